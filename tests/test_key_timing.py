"""How long the check of a key takes tells nothing of the key: it is looked up by its digest, once.

No clock is read here: the tests look at what a look-up touches and at the way that it goes.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any, ClassVar

from ingestd import keys
from ingestd.keys import Key, Keyring
from tests.support.requests import SECRET, post
from tests.support.wire import Wire


class _Watched(bytes):
    """A secret that notes each use of it: as bytes for hashing it is read whole, without a call."""

    uses: ClassVar[list[str]] = []

    def __eq__(self, other: object) -> bool:
        self.uses.append("compared")
        return super().__eq__(other)

    def __hash__(self) -> int:
        self.uses.append("hashed for a dict")
        return super().__hash__()

    def __lt__(self, other: bytes) -> bool:
        self.uses.append("compared")
        return super().__lt__(other)

    def __len__(self) -> int:
        self.uses.append("measured")
        return super().__len__()

    def __getitem__(self, at: Any) -> Any:
        self.uses.append("looked into")
        return super().__getitem__(at)

    def __iter__(self) -> Iterator[int]:
        self.uses.append("looked into")
        return super().__iter__()

    def startswith(self, *args: Any) -> bool:
        self.uses.append("looked into")
        return super().startswith(*args)


class _Index(dict[bytes, Key]):
    """The index of a Keyring, noting what is asked of it."""

    def __init__(self, of: Mapping[bytes, Key]) -> None:
        super().__init__(of)
        self.asked: list[bytes] = []

    def get(self, digest: bytes, default: Any = None) -> Any:
        assert type(digest) is bytes
        self.asked.append(digest)
        return super().get(digest, default)

    def __iter__(self) -> Iterator[bytes]:
        raise AssertionError("the keys are gone through one by one")

    values = items = keys = __iter__  # type: ignore[assignment]


def guesses(secret: bytes) -> list[bytes]:
    """Wrong keys: each prefix of the right one, each with one byte changed, longer ones, and none."""
    prefixes = [secret[:length] for length in range(len(secret))]
    changed = [
        secret[:at] + bytes([secret[at] ^ bit]) + secret[at + 1 :]
        for at in range(len(secret))
        for bit in (1, 0x20)
    ]
    longer = [secret + tail for tail in (b" ", b"\0", b"a", secret, b"x" * 10_000)]
    return [*prefixes, *changed, *longer, secret.swapcase(), b"ing_" + b"A" * 43, b"\xff" * 47]


def test_a_look_up_asks_the_index_for_the_digest_once_and_touches_nothing_else() -> None:
    made = [keys.make(f"k{i}") for i in range(20)]
    ring = Keyring([key for key, _ in made])
    index = ring._by_digest = _Index(ring._by_digest)
    right = made[7][1].encode()
    for secret in [right, *guesses(right)]:
        watched = _Watched(secret)
        _Watched.uses.clear()
        index.asked.clear()
        found = ring.find(watched)
        assert index.asked == [hashlib.sha256(secret).digest()]
        assert _Watched.uses == []
        assert (found is not None) is (secret == right)


def test_the_index_holds_digests_and_no_part_of_a_key() -> None:
    made = [keys.make(f"k{i}") for i in range(20)]
    ring = Keyring([key for key, _ in made])
    assert set(ring._by_digest) == {hashlib.sha256(secret.encode()).digest() for _, secret in made}
    held = repr(ring._by_digest)
    assert not [secret for _, secret in made if secret[4:12] in held]


def test_wrong_keys_of_every_length_and_prefix_go_the_same_way() -> None:
    key, secret = keys.make("a")
    ring = Keyring([key, *(keys.make(f"k{i}")[0] for i in range(5))])
    ways = {tuple(_calls(ring.find, guess)) for guess in guesses(secret.encode())}
    assert len(ways) == 1
    assert ways == {tuple(_calls(ring.find, secret.encode()))}


def _calls(function: Callable[[bytes], object], secret: bytes) -> list[str]:
    """Every line and every call, C functions among them, on the way of one look-up."""
    steps: list[str] = []

    def tracer(frame: FrameType, event: str, _arg: Any) -> Any:
        steps.append(f"{event} {frame.f_code.co_qualname}:{frame.f_lineno}")
        return tracer

    def profiler(frame: FrameType, event: str, arg: Any) -> None:
        if event.startswith("c_"):
            steps.append(f"{event} {arg.__name__} in {frame.f_code.co_qualname}")

    before = sys.gettrace(), sys.getprofile()
    sys.settrace(tracer)
    sys.setprofile(profiler)
    try:
        function(secret)
    finally:
        sys.setprofile(before[1])
        sys.settrace(before[0])
    return [step for step in steps if "Keyring" in step]


def test_on_the_wire_every_wrong_key_has_the_very_same_answer() -> None:
    answers = set()
    tried = 0
    for guess in guesses(SECRET.encode()):
        if not guess or len(guess) > 200 or not all(0x21 <= byte <= 0x7E for byte in guess):
            continue
        tried += 1
        wire = Wire()
        wire.feed(post(b"{}").replace(SECRET.encode(), guess))
        received = bytes(wire.transport.received)
        answers.add(re.sub(rb"Date: [^\r]*\r\n", b"", received))
    assert tried > 60
    assert len(answers) == 1
    assert answers.pop().startswith(b"HTTP/1.1 401 ")

"""Lines of the log: one for each record, whatever is in it, in both forms."""

from __future__ import annotations

import json
import logging
import os
import re
import select
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.errors import StorageError
from ingestd.sampling import Sampler
from ingestd.service.logs import Handler, Lines
from ingestd.service.logwriter import WAITING_BYTES_MAX, Writer
from tests.support.server import wait_until

_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def record(
    message: str, *arguments: object, level: int = logging.INFO, name: str = "ingestd.x", **fields: object
) -> logging.LogRecord:
    made = logging.LogRecord(name, level, "/x/y.py", 7, message, arguments, None)
    made.fields = fields
    return made


def raised(error: Exception) -> logging.LogRecord:
    made = record("bug while testing")
    try:
        raise error
    except Exception:
        made.exc_info = sys.exc_info()
    return made


def test_a_line_of_text_has_its_time_level_logger_and_worker() -> None:
    line = Lines("text", 3).format(record("keys loaded: %d", 5))
    assert re.fullmatch(rf"{_TIME} INFO ingestd\.x\[w3\]: keys loaded: 5", line)
    assert Lines("text", shows_time=False).format(record("x")) == "INFO ingestd.x: x"


def test_a_line_of_json_is_an_object() -> None:
    line = json.loads(Lines("json", 3).format(record("keys loaded: %d", 5, a=1, b="x y", c=None, d=True)))
    assert re.fullmatch(_TIME, line.pop("time"))
    assert line == {
        "level": "info", "logger": "ingestd.x", "worker": 3, "message": "keys loaded: 5", "a": 1, "b": "x y",
        "d": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("level", "number"),
    [
        (logging.DEBUG, 7),
        (logging.INFO, 6),
        (logging.WARNING, 4),
        (logging.ERROR, 3),
        (logging.CRITICAL, 2),
    ],
)
def test_journald_gets_the_level_as_a_number_and_no_time(level: int, number: int) -> None:
    line = Lines("text", in_journal=True).format(record("x", level=level))
    assert line == f"<{number}>{logging.getLevelName(level)} ingestd.x: x"
    line = Lines("json", in_journal=True).format(record("x", level=level))
    assert line.startswith(f'<{number}>{{"level": ')
    assert "time" not in line


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("web", "web"),
        (5, "5"),
        (0.25, "0.25"),
        (True, "true"),
        ("", '""'),
        ("a b", '"a b"'),
        ("a=b", '"a=b"'),
        ('a"b', '"a\\"b"'),
        ("a\\b", '"a\\\\b"'),
        ("a\nb", '"a\\nb"'),
        ("é€", "é€"),
    ],
)
def test_a_value_is_quoted_where_it_would_be_misread(value: object, shown: str) -> None:
    assert Lines("text", shows_time=False).format(record("x", key=value)) == f"INFO ingestd.x: x key={shown}"


HOSTILE = st.text(st.characters() | st.sampled_from('\n\r\x1b\x00\x7f\x85\u2028\u202e\ud800\\"= '))


@given(HOSTILE, HOSTILE)
def test_no_text_breaks_a_line_or_reaches_a_terminal(message: str, value: str) -> None:
    text = Lines("text", shows_time=False).format(record("%s", message, key=value))
    assert text.isprintable()
    line = Lines("json", shows_time=False).format(record("%s", message, key=value))
    assert line.isascii()
    assert line.isprintable()
    told = json.loads(line)
    if len(value) <= 500:
        assert told["key"] == value
    if len(message) <= 2000:
        assert told["message"] == message


@given(HOSTILE)
def test_a_value_can_be_read_back_from_a_line_of_text(value: str) -> None:
    line = Lines("text", shows_time=False).format(record("x", key=value[:400], last=1))
    shown = line.removeprefix("INFO ingestd.x: x key=").removesuffix(" last=1")
    assert (json.loads(shown) if shown.startswith('"') else shown) == value[:400]


def test_what_is_endless_is_cut() -> None:
    line = Lines("json").format(record("m" * 10_000, key="v" * 10_000))
    told = json.loads(line)
    assert (len(told["message"]), len(told["key"])) == (2000, 500)
    assert told["key"].endswith("v…")


# -- exceptions ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_bug_is_one_line_with_its_type_and_way_and_none_of_its_words(form: Any) -> None:
    line = Lines(form).format(raised(ValueError("canary")))
    assert "canary" not in line
    assert "ValueError" in line
    assert re.search(r"tests/test_logs\.py:\d+ raised", line)
    assert "\n" not in line


def test_errors_of_the_disk_keep_their_words() -> None:
    line = Lines("text").format(raised(StorageError("write x: no space left")))
    assert 'error="StorageError: write x: no space left"' in line
    line = Lines("text").format(raised(OSError(28, "No space left on device", "x")))
    assert "OSError: [Errno 28] No space left on device: 'x'" in line


def test_of_what_asyncio_reports_only_the_first_line_is_told() -> None:
    """The others show tasks and their exceptions."""
    words = "Task exception was never retrieved\nfuture: <Task exception=ValueError('canary')>"
    assert "canary" not in Lines("text").format(record(words, name="asyncio"))


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Where to read what is written to stderr."""
    source, sink = os.pipe()
    monkeypatch.setattr("ingestd.service.logs._STDERR", sink)
    yield source
    os.close(source)
    os.close(sink)


def handler(*, has_thread: bool = False) -> Handler:
    return Handler(Lines("text", shows_time=False), has_thread=has_thread, is_for_machines=False)


def read(pipe: int) -> str:
    return os.read(pipe, 65536).decode() if select.select([pipe], [], [], 0)[0] else ""


def test_a_bug_that_happens_again_and_again_is_told_of_once_a_second(
    pipe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    ours = handler()
    for _ in range(50):
        ours.handle(raised(ValueError("x")))
    assert read(pipe).count("\n") == 1
    ours.handle(raised(KeyError("another")))
    assert read(pipe).count("\n") == 1
    now = 101.0
    ours.handle(raised(ValueError("x")))
    assert "left_out=49" in read(pipe)


def test_a_record_that_cannot_be_formatted_is_a_line_without_its_contents(pipe: int) -> None:
    handler().handle(record("%d", "canary"))
    assert read(pipe) == "ERROR ingestd.logs: a line cannot be made: TypeError\n"


# -- writing ---------------------------------------------------------------------------------


def test_lines_are_written_in_their_order_by_another_thread(pipe: int) -> None:
    ours = handler(has_thread=True)
    for number in range(500):
        ours.handle(record("%d", number))
    ours.flush()
    assert read(pipe) == "".join(f"INFO ingestd.x: {number}\n" for number in range(500))


def test_whoever_logs_does_not_wait_for_a_reader_that_is_stuck() -> None:
    source, sink = os.pipe()
    writer = Writer(sink, lambda count: b"%d lost\n" % count, has_thread=True)
    line = b"x" * 1023 + b"\n"
    count = 2 * WAITING_BYTES_MAX // len(line)
    for _ in range(count):
        writer.put(line)
    received = bytearray()

    def read_on() -> bool:
        received.extend(os.read(source, 65536))
        return b"lost" in received

    wait_until(read_on, "the rest is written")
    kept = received.count(line)
    assert received == line * kept + b"%d lost\n" % (count - kept)
    assert WAITING_BYTES_MAX <= kept * len(line) < 2 * WAITING_BYTES_MAX
    writer.flush()


def test_a_reader_that_has_gone_is_no_error() -> None:
    source, sink = os.pipe()
    os.close(source)
    Writer(sink, lambda _: b"", has_thread=False).put(b"x\n")
    os.close(sink)


def test_a_descriptor_that_does_not_block_gets_every_line() -> None:
    source, sink = os.pipe()
    os.set_blocking(sink, False)
    writer = Writer(sink, lambda _: b"", has_thread=False)
    writing = threading.Thread(target=writer.put, args=(b"x" * 300_000 + b"\n",))
    writing.start()
    received = b""
    while not received.endswith(b"\n"):
        received += os.read(source, 65536)
    writing.join()
    assert len(received) == 300_001


# -- sampling --------------------------------------------------------------------------------


def test_so_many_pass_in_a_second_and_the_first_of_each_kind() -> None:
    sampler = Sampler(3)
    passed = [sampler.passes("a", 0.0) for _ in range(10)]
    assert passed.count(True) == 4
    assert sampler.passes("b", 0.5)
    assert not sampler.passes("b", 0.9)
    assert sampler.take_left_out(0.9) == {}
    assert sampler.take_left_out(1.0) == {"a": 6, "b": 1}
    assert sampler.take_left_out(1.0) == {}
    assert sampler.passes("a", 1.0)

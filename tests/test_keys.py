"""Keys: shown once, kept as digests, and a file that people may edit by hand and get wrong."""

from __future__ import annotations

import hashlib
import itertools
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd import keys
from ingestd.errors import StorageError, UsageError
from ingestd.keys import Key, Keyring
from ingestd.service import keyfile
from ingestd.storage.disk import Disk
from tests.support.disk import FaultyDisk

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
TIMES = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))


def key_text(name: str = '"a"', sha256: str = f'"{"0" * 64}"', more: str = "") -> bytes:
    """One [[key]] as a person may write it."""
    return f"[[key]]\nname = {name}\nsha256 = {sha256}\ncreated = 2026-01-01T00:00:00Z\n{more}\n".encode()


@given(st.lists(st.tuples(NAMES, st.binary(min_size=32, max_size=32), TIMES), unique_by=lambda row: row[0]))
def test_what_is_rendered_is_parsed_back_to_the_second(rows: list[tuple[str, bytes, datetime]]) -> None:
    made = [
        Key(name=name, sha256=digest.hex(), created=created.replace(microsecond=0))
        for name, digest, created in rows
    ]
    assert keys.parse(keys.render(made), "f") == made


def test_only_the_key_itself_is_found() -> None:
    key, secret = keys.make("a")
    ring = Keyring([key])
    assert ring.find(secret.encode()) == key
    for wrong in (b"", secret.encode() + b" ", secret.lower().encode(), key.sha256.encode(), b"\xff" * 40):
        assert ring.find(wrong) is None


def test_a_key_is_random_prefixed_and_kept_as_its_sha256() -> None:
    made = [keys.make("a") for _ in range(50)]
    assert len({secret for _, secret in made}) == 50
    for key, secret in made:
        assert secret.startswith("ing_")
        assert len(secret) == len("ing_") + 43
        assert key.sha256 == hashlib.sha256(secret.encode()).hexdigest()


def test_a_replaced_key_stops_at_once_and_the_generation_tells() -> None:
    (old, old_secret), (new, new_secret) = keys.make("old"), keys.make("new")
    ring = Keyring([old])
    generation = ring.generation
    ring.replace([new])
    assert ring.find(old_secret.encode()) is None
    assert ring.find(new_secret.encode()) == new
    assert (len(ring), ring.generation) == (1, generation + 1)


@pytest.mark.parametrize("name", ["a", "0", "A.b_c-d", "x" * 64])
def test_a_good_name_makes_a_key(name: str) -> None:
    key, _ = keys.make(name)
    assert keys.parse(keys.render([key]), "f")[0].name == name


@pytest.mark.parametrize("name", ["", ".a", "-a", "_a", "a b", "a\n", "\na", "ü", 'a"', "x" * 65, "a/b"])
def test_a_bad_name_is_refused_wherever_it_stands(name: str) -> None:
    with pytest.raises(UsageError, match=r"^key name .*: use 1 to 64 letters, digits"):
        keys.make(name)
    quoted = name.replace('"', '\\"').replace("\n", "\\n")
    with pytest.raises(UsageError, match=r"^DATA/keys.toml: .*\$\.key\[0\]\.name"):
        keys.parse(key_text(f'"{quoted}"'), "DATA/keys.toml")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"[[key]\n", "at line 1"),
        (b"\xff", "can't decode byte 0xff"),
        (key_text(sha256='"00"'), "$.key[0].sha256"),
        (key_text(sha256=f'"{"0" * 64}\\n"'), "$.key[0].sha256"),
        (key_text(sha256=f'"{"A" * 64}"'), "$.key[0].sha256"),
        (key_text(more="secret = 'x'"), "unknown field `secret`"),
        (
            key_text() + key_text().replace(b"created", b"#"),
            "missing required field `created` - at `$.key[1]`",
        ),
        (key_text().replace(b"2026-01-01T00:00:00Z", b"'soon'"), "$.key[0].created"),
        (key_text() + key_text(sha256=f'"{"1" * 64}"'), "two keys are named 'a'"),
        (b"keys = []\n", "unknown field `keys`"),
        (b"key = 1\n", "Expected `array`, got `int`"),
    ],
)
def test_a_bad_file_is_named_with_what_is_wrong(text: bytes, problem: str) -> None:
    with pytest.raises(UsageError) as raised:
        keys.parse(text, "DATA/keys.toml")
    assert str(raised.value).startswith("DATA/keys.toml: ")
    assert problem in str(raised.value)


def test_an_empty_file_holds_no_keys() -> None:
    assert keys.parse(b"", "f") == []
    assert keys.parse(keys.render([]), "f") == []


def test_keys_are_added_and_revoked_by_name(tmp_path: Path) -> None:
    disk, data_dir = Disk(), tmp_path / "new" / "data"
    secrets = {name: keyfile.add(disk, data_dir, name) for name in ("a", "b", "c")}
    keyfile.revoke(disk, data_dir, "b")
    ring = Keyring(keyfile.load(disk, data_dir))
    found = {name: ring.find(secret.encode()) for name, secret in secrets.items()}
    assert [key and key.name for key in found.values()] == ["a", None, "c"]


def test_no_key_is_on_disk_only_digests(tmp_path: Path) -> None:
    secret = keyfile.add(Disk(), tmp_path, "a")
    keyfile.add(Disk(), tmp_path, "b")
    keyfile.revoke(Disk(), tmp_path, "b")
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert secret.encode() not in everything
    assert secret.removeprefix("ing_").encode() not in everything
    assert hashlib.sha256(secret.encode()).hexdigest().encode() in everything


def test_a_name_is_given_once_and_only_a_known_one_is_revoked(tmp_path: Path) -> None:
    keyfile.add(Disk(), tmp_path, "a")
    with pytest.raises(UsageError, match=r"^a key named 'a' exists; revoke it first"):
        keyfile.add(Disk(), tmp_path, "a")
    with pytest.raises(UsageError, match=r"^no key is named 'b'; the keys are: a$"):
        keyfile.revoke(Disk(), tmp_path, "b")
    keyfile.revoke(Disk(), tmp_path, "a")
    with pytest.raises(UsageError, match=r"the keys are: none$"):
        keyfile.revoke(Disk(), tmp_path, "a")


def test_nothing_is_revoked_where_there_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"/none: no such directory"):
        keyfile.revoke(Disk(), tmp_path / "none", "a")
    assert not (tmp_path / "none").exists()


def test_a_bad_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "keys.toml").write_bytes(b"[[key]\n")
    for change in (keyfile.add, keyfile.revoke):
        with pytest.raises(UsageError, match=r"keys\.toml: .*at line 1"):
            change(Disk(), tmp_path, "a")
    assert (tmp_path / "keys.toml").read_bytes() == b"[[key]\n"


def test_changes_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    keyfile.add(Disk(), tmp_path, "first")
    start = threading.Barrier(8)

    def change(number: int) -> None:
        start.wait()
        for n in range(5):
            keyfile.add(Disk(), tmp_path, f"kept-{number}-{n}")
            keyfile.add(Disk(), tmp_path, f"gone-{number}-{n}")
            keyfile.revoke(Disk(), tmp_path, f"gone-{number}-{n}")

    threads = [threading.Thread(target=change, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    names = {key.name for key in keyfile.load(Disk(), tmp_path)}
    assert names == {"first"} | {f"kept-{number}-{n}" for number in range(8) for n in range(5)}


def test_after_a_power_cut_at_any_call_a_key_is_added_whole_or_not_at_all() -> None:
    found, is_added = set(), False
    for nth in itertools.count():
        disk = FaultyDisk()
        keyfile.add(disk, disk.root, "a")
        disk.cut_after = nth
        with suppress(BaseException):
            keyfile.add(disk, disk.root, "b")
            is_added = True
        found.add(tuple(key.name for key in keyfile.load(disk.crash(), disk.root)))
        if is_added:
            break
    assert found == {("a",), ("a", "b")}


def test_a_key_that_could_not_be_kept_is_not_given_out() -> None:
    for call in ("create", "write", "fdatasync", "rename"):
        disk = FaultyDisk()
        disk.fail(call)
        with pytest.raises(StorageError):
            keyfile.add(disk, disk.root, "a")
        assert keyfile.load(disk, disk.root) == []


def test_the_default_key_is_made_once_and_not_again_after_its_revocation(tmp_path: Path) -> None:
    secret = keyfile.ensure_one(Disk(), tmp_path)
    assert secret is not None
    assert keyfile.ensure_one(Disk(), tmp_path) is None
    keyfile.revoke(Disk(), tmp_path, "default")
    assert keyfile.ensure_one(Disk(), tmp_path) is None


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080/v1/track"),
        ("http://0.0.0.0:80", "http://127.0.0.1:80/v1/track"),
        ("http://:80", "http://127.0.0.1:80/v1/track"),
        ("http://[::]:80", "http://[::1]:80/v1/track"),
        ("https://127.0.0.1:443", "https://127.0.0.1:443/v1/track"),
        ("unix:/run/s", "--unix-socket /run/s http://localhost/v1/track"),
    ],
)
def test_the_first_key_is_shown_with_a_line_to_paste(
    url: str, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    keyfile.show_first("ing_secret", url)
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Authorization: Bearer ing_secret" in shown.err
    assert f"' {target}\n" in shown.err

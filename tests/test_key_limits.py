"""Limits of keys in keys.toml: written by people or by `ingestd key`, and keys that come as a credential."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd import keys
from ingestd.errors import UsageError
from ingestd.keys import Key
from ingestd.service import keyfile
from ingestd.storage.disk import Disk
from tests.support.server import run
from tests.test_keys import TIMES, key_text

RATES = st.none() | st.integers(1, 10**9).map(float) | st.floats(1e-6, 1e9, allow_nan=False)
OK, WRONG, USAGE = 0, 1, 2


@pytest.fixture
def credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where systemd would put the credential; it is not there yet."""
    directory = tmp_path / "credentials"
    directory.mkdir()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(directory))
    return directory / "ingestd-keys.toml"


# -- the text --------------------------------------------------------------------------------


@given(TIMES, RATES, RATES, st.none() | st.floats(0.001, 86400))
def test_limits_are_rendered_and_parsed_back(
    created: object, events_per_s: float | None, requests_per_s: float | None, burst_s: float | None
) -> None:
    is_limited = events_per_s is not None or requests_per_s is not None
    key = Key(
        name="a",
        sha256="0" * 64,
        created=created.replace(microsecond=0),  # type: ignore[attr-defined]
        events_per_s=events_per_s,
        requests_per_s=requests_per_s,
        burst_s=burst_s if is_limited else None,
    )
    assert keys.parse(keys.render([key]), "f") == [key]


def test_limits_may_be_whole_numbers_or_not_and_are_absent_by_default() -> None:
    [key] = keys.parse(key_text(), "f")
    assert (key.events_per_s, key.requests_per_s, key.burst_s) == (None, None, None)
    [key] = keys.parse(key_text(more="events_per_s = 1000\nrequests_per_s = 0.5\nburst_s = 2"), "f")
    assert (key.events_per_s, key.requests_per_s, key.burst_s) == (1000, 0.5, 2)


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "-inf", '"5"', "true", "[5]", "1e10"])
@pytest.mark.parametrize("name", keys.LIMITS)
def test_a_bad_limit_names_file_key_and_setting(name: str, value: str) -> None:
    text = key_text('"fine"') + key_text('"shop"', f'"{"1" * 64}"', f"events_per_s = 1\n{name} = {value}")
    if name == "events_per_s":
        text = text.replace(b"events_per_s = 1\n", b"")
    with pytest.raises(UsageError, match=rf"^DATA/keys.toml: key 'shop': .*\$\.key\[1\]\.{name}"):
        keys.parse(text, "DATA/keys.toml")


def test_a_burst_of_nothing_is_a_mistake() -> None:
    with pytest.raises(UsageError, match=r"^f: key 'a': burst_s limits nothing without events_per_s or req"):
        keys.parse(key_text(more="burst_s = 2"), "f")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"[[key]]\nevents_per_s = 1\n", "f: Object missing required field `name` - at `$.key[0]`"),
        (b"[[key]]\nname = 7\n", "f: Expected `str`, got `int` - at `$.key[0].name`"),
        (b"key = [7]\n", "f: Expected `object`, got `int` - at `$.key[0]`"),
    ],
)
def test_a_key_without_a_name_is_told_by_its_place(text: bytes, problem: str) -> None:
    with pytest.raises(UsageError) as raised:
        keys.parse(text, "f")
    assert str(raised.value) == problem


def test_the_file_of_the_page_about_keys_is_valid() -> None:
    page = (Path(__file__).parents[1] / "docs" / "keys.md").read_text()
    text = page.partition("```toml\n")[2].partition("```")[0]
    [key] = keys.parse(text.encode(), "docs/keys.md")
    assert (key.name, key.events_per_s, key.requests_per_s, key.burst_s) == ("shop", 1000, 50, 2)


# -- the commands ----------------------------------------------------------------------------


def test_limits_are_given_listed_changed_and_taken_away(tmp_path: Path) -> None:
    def listed() -> str:
        return run("key", "list", cwd=tmp_path).stdout.splitlines()[-1].split("\t")[-1]

    assert run("key", "add", "other", cwd=tmp_path).returncode == OK
    assert listed() == "no limits"
    added = run("key", "add", "shop", "--events-per-s", "1000", "--requests-per-s", "2.5", cwd=tmp_path)
    assert added.returncode == OK
    assert listed() == "events_per_s 1000, requests_per_s 2.5, burst_s 1"
    for flags, shown in (
        (["--burst-s", "3"], "events_per_s 1000, requests_per_s 2.5, burst_s 3"),
        (["--events-per-s", "50"], "events_per_s 50, requests_per_s 2.5, burst_s 3"),
        (["--requests-per-s", "none"], "events_per_s 50, burst_s 3"),
        (["--burst-s", "none"], "events_per_s 50, burst_s 1"),
        (
            ["--events-per-s", "none", "--requests-per-s", "7", "--burst-s", "9"],
            "requests_per_s 7, burst_s 9",
        ),
        (["--requests-per-s", "none"], "no limits"),
    ):
        changed = run("key", "limit", "shop", *flags, cwd=tmp_path)
        assert (changed.returncode, changed.stdout, changed.stderr) == (OK, "", "")
        assert listed() == shown
    assert run("key", "list", cwd=tmp_path).stdout.splitlines()[0].endswith("\tno limits")


def test_the_secret_stays_the_same_when_a_limit_changes(tmp_path: Path) -> None:
    secret = keyfile.add(Disk(), tmp_path, "a")
    [before] = keyfile.load(Disk(), tmp_path)
    keyfile.limit(Disk(), tmp_path, "a", {"events_per_s": 5})
    [after] = keyfile.load(Disk(), tmp_path)
    assert (after.sha256, after.created) == (before.sha256, before.created)
    assert keys.Keyring([after]).find(secret.encode()) == after


def test_other_changes_leave_limits_as_they_are(tmp_path: Path) -> None:
    limits = {"events_per_s": 5.0, "requests_per_s": 0.25, "burst_s": 1.0}
    keyfile.add(Disk(), tmp_path, "kept", limits)
    keyfile.add(Disk(), tmp_path, "b")
    keyfile.limit(Disk(), tmp_path, "b", {"events_per_s": 1})
    keyfile.revoke(Disk(), tmp_path, "b")
    [kept] = keyfile.load(Disk(), tmp_path)
    assert {name: getattr(kept, name) for name in keys.LIMITS} == limits


def test_the_file_says_that_comments_are_not_kept(tmp_path: Path) -> None:
    keyfile.add(Disk(), tmp_path, "a")
    path = tmp_path / "keys.toml"
    path.write_text(path.read_text() + "# mine\n")
    keyfile.limit(Disk(), tmp_path, "a", {"events_per_s": 1})
    assert "# mine" not in path.read_text()
    assert "without comments of your own" in path.read_text()


@pytest.mark.parametrize(
    ("command", "status", "text"),
    [
        (["limit", "a"], USAGE, "say what to change: --events-per-s, --requests-per-s, --burst-s"),
        (["limit", "nobody", "--burst-s", "1"], USAGE, "no key is named 'nobody'; the keys are: a"),
        (["limit", "a", "--burst-s", "2"], USAGE, "data/keys.toml: key 'a': burst_s limits nothing"),
        (["add", "b", "--burst-s", "2"], USAGE, "data/keys.toml: key 'b': burst_s limits nothing"),
        (
            ["limit", "a", "--events-per-s", "0"],
            USAGE,
            "--events-per-s: '0' is not right: Expected `float` >",
        ),
        (["limit", "a", "--events-per-s", "nan"], USAGE, "--events-per-s: 'nan' is not right"),
        (["add", "b", "--requests-per-s", "many"], USAGE, "--requests-per-s: 'many' is not right"),
        (["limit", "a", "--burst-s", "1e9"], USAGE, "--burst-s: '1e9' is not right"),
        (["limit", "a", "--events-per-s", "1", "--data-dir", "none"], USAGE, "none: no such directory"),
    ],
)
def test_a_mistake_changes_nothing(tmp_path: Path, command: list[str], status: int, text: str) -> None:
    keyfile.add(Disk(), tmp_path / "data", "a")
    before = (tmp_path / "data" / "keys.toml").read_bytes()
    done = run("key", *command, cwd=tmp_path)
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert (done.returncode, done.stdout) == (status, "")
    assert (tmp_path / "data" / "keys.toml").read_bytes() == before


# -- keys from systemd -----------------------------------------------------------------------


def test_a_credential_takes_the_place_of_the_file(tmp_path: Path, credential: Path) -> None:
    keyfile.add(Disk(), tmp_path, "own")
    credential.write_bytes(key_text('"handed"', more="events_per_s = 5"))
    [key] = keyfile.load(Disk(), tmp_path)
    assert (key.name, key.events_per_s) == ("handed", 5)
    assert keyfile.path(Disk(), tmp_path) == credential
    listed = run("key", "list", "--data-dir", str(tmp_path), cwd=tmp_path)
    assert listed.stdout.startswith("handed\t")


def test_without_the_credential_the_file_counts(tmp_path: Path, credential: Path) -> None:
    assert not credential.exists()
    keyfile.add(Disk(), tmp_path, "own")
    assert [key.name for key in keyfile.load(Disk(), tmp_path)] == ["own"]


@pytest.mark.parametrize(
    "command", [["add", "a"], ["limit", "own", "--events-per-s", "1"], ["revoke", "own"]], ids=" ".join
)
def test_keys_from_a_credential_are_not_changed_here(
    tmp_path: Path, credential: Path, command: list[str]
) -> None:
    keyfile.add(Disk(), tmp_path / "data", "own")
    before = (tmp_path / "data" / "keys.toml").read_bytes()
    credential.write_bytes(key_text('"own"'))
    done = run("key", *command, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (USAGE, "")
    assert f"the keys come from {credential}, a systemd credential" in done.stderr
    assert "LoadCredential=" in done.stderr
    assert credential.read_bytes() == key_text('"own"')
    assert (tmp_path / "data" / "keys.toml").read_bytes() == before


def test_no_first_key_is_made_where_a_credential_has_them(tmp_path: Path, credential: Path) -> None:
    credential.write_bytes(b"")
    assert keyfile.ensure_one(Disk(), tmp_path) is None
    assert not (tmp_path / "keys.toml").exists()


def test_a_bad_credential_is_named(tmp_path: Path, credential: Path) -> None:
    credential.write_bytes(key_text(more="events_per_s = 0"))
    with pytest.raises(UsageError, match=rf"^{credential}: key 'a': .*events_per_s"):
        keyfile.load(Disk(), tmp_path)

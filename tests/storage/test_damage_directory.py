"""Whatever else is in a data directory, the good segments beside it are shown, proved and recovered.

On the real file system, because directories, links, pipes and permissions are what this is about.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ingestd.storage.disk import Disk
from ingestd.storage.recovery import recover_all
from tests.storage.reads import packed, read, verified
from tests.storage.samples import NAME, lines, open_bytes, put, sealed_bytes, write

GOOD = NAME.replace("000001", "000007")
GOOD_OPEN = NAME.replace("000001", "000008")
HOUR = Path("segments", "date=2026-01-02", "hour=03")
OTHER_HOUR = HOUR.with_name("hour=04")
OPEN = Path("open")
FILE, OPEN_FILE = f"{NAME}.ndjson.zst", f"{NAME}.ndjson.zst.open"
COMMITS = [lines(2), lines(3, 2)]


def data_dir(root: Path) -> Disk:
    """One good sealed segment, and one that is good and open."""
    disk = Disk()
    disk.make_directory(root / "open")
    write(disk, root, [lines(2, 10), lines(1, 12)], GOOD).seal()
    write(disk, root, [lines(3, 13)], GOOD_OPEN)
    return disk


GOOD_LINES = lines(6, 10)


def files(*made: tuple[Path, bytes]) -> Callable[[Path], None]:
    def make(root: Path) -> None:
        for path, data in made:
            put(Disk(), root / path, data)

    return make


def directory(path: Path) -> Callable[[Path], None]:
    return lambda root: (root / path / "something").mkdir(parents=True)


def pipe(path: Path) -> Callable[[Path], None]:
    return lambda root: os.mkfifo(root / path)


def link(path: Path, target: str) -> Callable[[Path], None]:
    return lambda root: (root / path).symlink_to(target)


HARMLESS: dict[str, Callable[[Path], None]] = {
    "unknown files": files(
        (OPEN / "notes", b"mine"),
        (OPEN / "x.zst", b"mine"),
        (HOUR / "notes", b"mine"),
        (Path("segments", "notes"), b"mine"),
        (Path("notes"), b"mine"),
    ),
    "names that are not UTF-8": files((OPEN / "\udcff", b"mine"), (HOUR / "\udcfe\udc80", b"mine")),
    "empty open file": files((OPEN / OPEN_FILE, b"")),
    "half-made files": files(
        (OPEN / f"{NAME}.packing", b"\x28\xb5\x2f\xfd half"),
        (OPEN / f"{NAME}.recovering", b"\x28\xb5\x2f\xfd half"),
        (OPEN / f"{GOOD_OPEN}.packing", b""),
        (OPEN / f"{GOOD_OPEN}.recovering", b""),
    ),
    "directory with the name of an open segment": directory(OPEN / OPEN_FILE),
    "directory with the name of a sealed segment": directory(HOUR / FILE),
    "pipe with the name of an open segment": pipe(OPEN / OPEN_FILE),
    "pipe with the name of a sealed segment": pipe(HOUR / FILE),
    "link to nothing": link(HOUR / FILE, "nothing"),
    "link to itself": link(OPEN / OPEN_FILE, OPEN_FILE),
    "link to the directory above": link(HOUR / "loop", ".."),
    "hour with nothing but a directory": directory(OTHER_HOUR),
    "empty quarantine": lambda root: (root / "quarantine").mkdir(),
    "open and sealed file of one segment": files(
        (OPEN / OPEN_FILE, open_bytes(COMMITS)), (HOUR / FILE, packed([lines(5)]))
    ),
}

WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "empty sealed file": (files((HOUR / FILE, b"")), "the footer is missing"),
    "sealed file that is none": (files((HOUR / FILE, b"mine")), "torn: no whole zstd frame at byte 0"),
    "file that cannot be read": (link(HOUR / FILE, "/proc/self/mem"), "Input/output error"),
    "open file that cannot be read": (link(OPEN / OPEN_FILE, "/proc/self/mem"), "Input/output error"),
    "one segment in two hours": (
        files((HOUR / FILE, sealed_bytes(COMMITS)), (OTHER_HOUR / FILE, sealed_bytes(COMMITS))),
        "the same lines; readers see both",
    ),
    "two segments of one name": (
        files((HOUR / FILE, sealed_bytes(COMMITS)), (OPEN / OPEN_FILE, sealed_bytes([lines(1)]))),
        " and other lines",
    ),
    "quarantine that is a file": (files((Path("quarantine"), b"mine")), "Not a directory"),
}


@pytest.mark.parametrize("case", HARMLESS)
def test_what_does_no_harm_is_no_problem(case: str, tmp_path: Path) -> None:
    disk = data_dir(tmp_path)
    HARMLESS[case](tmp_path)
    shown, wrong = read(disk, tmp_path)
    assert (shown.endswith(GOOD_LINES), wrong) == (True, [])
    verdict, _ = verified(disk, tmp_path)
    assert verdict.problems == []
    assert verdict.events == shown.count(b"\n")
    recovered(disk, tmp_path)
    assert read(disk, tmp_path) == (shown, [])
    assert verified(disk, tmp_path)[0].events == verdict.events


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named_and_the_good_is_there(case: str, tmp_path: Path) -> None:
    disk = data_dir(tmp_path)
    make, text = WRONG[case]
    make(tmp_path)
    assert read(disk, tmp_path)[0].endswith(GOOD_LINES)
    verdict, _ = verified(disk, tmp_path)
    [problem] = verdict.problems
    assert text in problem.problem
    assert verdict.events >= 6
    recovered(disk, tmp_path)
    assert read(disk, tmp_path)[0].endswith(GOOD_LINES)


def recovered(disk: Disk, root: Path) -> None:
    """Recovery seals the good open segment, whatever becomes of the others."""
    actions = {done.path.name: done.action for done in recover_all(disk, root)}
    assert actions[f"{GOOD_OPEN}.ndjson.zst.open"] == "recovered"
    assert (root / HOUR / f"{GOOD_OPEN}.ndjson.zst").is_file()


@pytest.mark.parametrize(
    "path",
    [
        HOUR / f"{GOOD_OPEN}.ndjson.zst",
        OPEN / f"{GOOD_OPEN}.recovering",
        OPEN / f"{GOOD_OPEN}.ndjson.zst.torn",
    ],
    ids=["sealed place", "copy", "torn tail"],
)
def test_a_directory_in_the_place_of_what_recovery_makes_leaves_the_segment_where_it_is(
    path: Path, tmp_path: Path
) -> None:
    disk = data_dir(tmp_path)
    open_file = tmp_path / OPEN / f"{GOOD_OPEN}.ndjson.zst.open"
    with open_file.open("ab") as f:
        f.write(b"torn")
    directory(path)(tmp_path)
    [done] = recover_all(disk, tmp_path)
    assert (done.action, done.is_left) == ("left in place", True)
    assert read(disk, tmp_path)[0] == GOOD_LINES
    shutil.rmtree(tmp_path / path)
    recovered(disk, tmp_path)


def test_without_its_directories_a_data_directory_is_empty(tmp_path: Path) -> None:
    disk = Disk()
    for missing in (tmp_path, tmp_path / "missing"):
        assert recover_all(disk, missing) == []
        verdict, said = verified(disk, missing)
        assert (verdict.segments, said) == (0, [])
    assert read(disk, tmp_path) == (b"", [])


@pytest.mark.parametrize("name", ["open", "segments"])
def test_a_file_in_the_place_of_a_directory_is_named_and_the_other_is_read(name: str, tmp_path: Path) -> None:
    disk = data_dir(tmp_path)
    shutil.rmtree(tmp_path / name)
    (tmp_path / name).write_bytes(b"mine")
    shown, [wrong] = read(disk, tmp_path)
    assert wrong == f"list {tmp_path / name}: Not a directory; what is in it is not shown"
    assert shown == {"open": lines(3, 10), "segments": lines(3, 13)}[name]
    verdict, [said] = verified(disk, tmp_path)
    assert not verdict.ok
    assert said == f"{tmp_path / name}: list {tmp_path / name}: Not a directory"
    assert verdict.events == 3
    assert [done.action for done in recover_all(disk, tmp_path)] == ["left in place"] * (name == "segments")


@pytest.mark.parametrize("path", [HOUR, HOUR / FILE, OPEN / OPEN_FILE])
def test_what_may_not_be_read_is_named_and_the_rest_is_read(path: Path, tmp_path: Path) -> None:
    disk = data_dir(tmp_path)
    put(disk, tmp_path / path / "x" if path == HOUR else tmp_path / path, sealed_bytes(COMMITS))
    os.chmod(tmp_path / path, 0)
    try:
        if os.access(tmp_path / path, os.R_OK):
            pytest.skip("this user may read everything")
        shown, [wrong] = read(disk, tmp_path)
        verdict, [said] = verified(disk, tmp_path)
    finally:
        os.chmod(tmp_path / path, 0o700)
    assert shown.endswith(lines(3, 13))
    assert "Permission denied" in wrong
    assert "Permission denied" in said
    assert not verdict.ok


def test_an_hour_that_cannot_be_listed_does_not_hide_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = data_dir(tmp_path)
    put(disk, tmp_path / OTHER_HOUR / FILE, sealed_bytes(COMMITS))
    real_scandir = os.scandir

    def scandir(path: str) -> object:
        if Path(path).name == "hour=04":
            raise PermissionError(13, "Permission denied", str(path))
        return real_scandir(path)

    monkeypatch.setattr(os, "scandir", scandir)
    shown, [wrong] = read(disk, tmp_path)
    assert shown == GOOD_LINES
    assert wrong == f"list {tmp_path / OTHER_HOUR}: Permission denied; what is in it is not shown"
    verdict, [said] = verified(disk, tmp_path)
    assert verdict.events == 6
    assert said.startswith(f"{tmp_path / 'segments'}: list {tmp_path / OTHER_HOUR}: Permission denied")

"""The real disk, and the proof that the faulty one behaves like it."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.errors import StorageError, UsageError
from ingestd.storage.disk import Disk
from tests.support.disk import FaultyDisk, PowerCut

# No renames and removals of directories: ingestd does none, and the faulty disk has none.
FILES = st.sampled_from(["a", "b.x", "d/c", "d/e/f.x", "missing/a", "first"])
DIRECTORIES = st.sampled_from(["d", "d/e", "plain file"])
ACTIONS = st.one_of(
    st.tuples(st.sampled_from(["create", "unlink", "read"]), FILES),
    st.tuples(st.sampled_from(["mkdir", "sync"]), DIRECTORIES),
    st.tuples(st.sampled_from(["exists", "is_dir"]), FILES | DIRECTORIES),
    st.tuples(st.sampled_from(["rename", "link", "move"]), FILES, FILES),
    st.tuples(st.just("write"), st.binary(max_size=9)),
    st.tuples(st.just("truncate"), st.integers(0, 20)),
    st.tuples(st.just("replace"), FILES, st.binary(max_size=9)),
    st.tuples(st.just("list"), DIRECTORIES, st.sampled_from(["*", "*.x", "a*"]), st.booleans()),
)


def play(disk: Disk, root: Path, actions: list[tuple[object, ...]]) -> list[object]:
    """Do these things; what came of each, with the root cut from paths and errors."""
    seen: list[object] = []
    disk.close(disk.create(root / "plain file"))
    fd = disk.create(root / "first")

    def act(call: object, *arguments: object) -> object:
        nonlocal fd
        paths = [root / str(argument) for argument in arguments]
        match call:
            case "create":
                made = disk.create(paths[0])
                disk.close(fd)
                fd = made
            case "write":
                disk.write(fd, bytes(arguments[0]))  # type: ignore[call-overload]
                disk.fdatasync(fd)
            case "truncate":
                disk.truncate(fd, int(str(arguments[0])))
            case "rename":
                disk.rename(paths[0], paths[1])
            case "link":
                disk.link(paths[0], paths[1])
            case "move":
                disk.move(paths[0], paths[1])
            case "unlink":
                disk.unlink(paths[0])
            case "mkdir":
                disk.make_directory(paths[0])
            case "sync":
                disk.sync_directory(paths[0])
            case "read":
                return disk.read(paths[0], 1)
            case "exists":
                return disk.exists(paths[0])
            case "is_dir":
                return disk.is_directory(paths[0])
            case "replace":
                disk.replace_file(paths[0], bytes(arguments[1]))  # type: ignore[call-overload]
            case "list":
                listed = disk.list(paths[0], str(arguments[1]), deep=bool(arguments[2]))
                return sorted(str(path.relative_to(root)) for path in listed)
        return None

    for action in actions:
        try:
            seen.append(act(*action))
        except StorageError as e:
            seen.append(str(e).replace(str(root), ""))
    disk.close(fd)
    seen.append(
        [(str(p.relative_to(root)), disk.read(p)) for p in sorted(disk.list(root, "*", deep=True))],
    )
    return seen


@given(st.lists(ACTIONS, max_size=20))
def test_the_faulty_disk_does_what_the_real_one_does(actions: list[tuple[object, ...]]) -> None:
    with TemporaryDirectory() as directory:
        assert play(FaultyDisk(), Path("/disk"), actions) == play(Disk(), Path(directory), actions)


def test_a_full_disk_is_a_storage_error_that_names_the_call() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    with pytest.raises(StorageError, match=r"^write 4 bytes: No space left on device$"):
        Disk().write(fd, b"1234")
    Disk().close(fd)


def test_a_short_write_is_continued_until_the_error_shows(tmp_path: Path) -> None:
    disk = Disk()
    fd = disk.create(tmp_path / "a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StorageError, match=r"^write 1500 bytes: File too large$"):
            disk.write(fd, b"x" * 1500)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        disk.close(fd)
    assert disk.read(tmp_path / "a") == b"x" * 1000


def test_a_directory_is_locked_for_one_process_and_the_error_names_it(tmp_path: Path) -> None:
    disk = Disk()
    fd = disk.lock(tmp_path / "lock")
    with pytest.raises(UsageError, match=rf"in use by process {os.getpid()}; stop that one or name"):
        disk.lock(tmp_path / "lock")
    disk.close(fd)
    disk.close(disk.lock(tmp_path / "lock"))


def test_a_file_in_the_place_of_a_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(StorageError, match=r"^mkdir .*/a: File exists$"):
        Disk().make_directory(tmp_path / "a")


def test_a_directory_that_exists_is_synced_before_anything_is_made_in_it() -> None:
    disk = FaultyDisk()
    disk.fail("fsync")
    with pytest.raises(StorageError, match=r"^fsync "):
        disk.make_directory(disk.root / "a")
    disk = disk.kill()
    disk.make_directory(disk.root / "a" / "b")
    assert disk.crash().is_directory(disk.root / "a" / "b")


def test_a_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_bytes(b"old")
    path.chmod(0o600)
    Disk().replace_file(path, b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
@pytest.mark.parametrize("exists", [True, False])
def test_a_file_that_root_replaces_stays_its_owners(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "keys.toml"
    if exists:
        path.write_bytes(b"old")
    for owned in (path, tmp_path) if exists else (tmp_path,):
        os.chown(owned, 1234, 1234)
    Disk().replace_file(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1234)


def test_a_replacement_that_fails_leaves_the_old_file_and_no_other() -> None:
    for call in ("create", "write", "fdatasync", "rename"):
        disk = FaultyDisk()
        disk.replace_file(disk.root / "a", b"old")
        disk.fail(call)
        with pytest.raises(StorageError):
            disk.replace_file(disk.root / "a", b"new")
        assert [(p.name, disk.read(p)) for p in disk.list(disk.root, "*")] == [("a", b"old")]


def test_a_replacement_is_old_or_new_after_a_power_cut_at_any_call() -> None:
    found = set()
    for cut in range(10):
        disk = FaultyDisk()
        disk.replace_file(disk.root / "a", b"old")
        disk.cut_after = cut
        with suppress(PowerCut):
            disk.replace_file(disk.root / "a", b"new")
        found.add(disk.crash().read(disk.root / "a"))
        found.add(disk.crash(Random(cut)).read(disk.root / "a"))
    assert found == {b"old", b"new"}


def moving() -> FaultyDisk:
    """A disk with a file old/a that is to become new/a."""
    disk = FaultyDisk()
    for name in ("old", "new"):
        disk.make_directory(disk.root / name)
    disk.replace_file(disk.root / "old" / "a", b"data")
    return disk


@pytest.mark.parametrize("call", ["link", "fsync", "unlink"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_move_that_fails_never_leaves_the_file_with_no_durable_name(call: str, nth: int) -> None:
    disk = moving()
    disk.fail(call, nth=nth)
    with suppress(StorageError):
        disk.move(disk.root / "old" / "a", disk.root / "new" / "a")
    # Whoever uses the old directory next makes its changes durable.
    disk.sync_directory(disk.root / "old")
    after = disk.crash()
    assert [after.read(path) for path in after.list(after.root, "a", deep=True)][:1] == [b"data"]


def test_a_move_overwrites_nothing() -> None:
    disk = moving()
    disk.replace_file(disk.root / "new" / "a", b"other")
    with pytest.raises(StorageError, match=r"^link .*: File exists$"):
        disk.move(disk.root / "old" / "a", disk.root / "new" / "a")
    assert disk.read(disk.root / "new" / "a") == b"other"
    assert disk.read(disk.root / "old" / "a") == b"data"


def test_a_file_system_without_hard_links_moves_by_rename() -> None:
    disk = moving()
    disk.fail("link", error=errno.EPERM, once=False)
    disk.move(disk.root / "old" / "a", disk.root / "new" / "a")
    after = disk.crash()
    assert [str(path.relative_to(after.root)) for path in after.list(after.root, "*", deep=True)] == ["new/a"]


def test_a_directory_that_may_not_be_read_is_an_error_and_not_empty(tmp_path: Path) -> None:
    closed = tmp_path / "segments" / "date=2026-01-02"
    closed.mkdir(parents=True)
    closed.chmod(0)
    # As another user not even the way down is open; either way it must not look empty.
    with _without_root(), pytest.raises(StorageError, match=r"Permission denied"):
        Disk().list(tmp_path / "segments", "*", deep=True)
    closed.chmod(0o700)


def test_a_directory_that_is_not_there_has_no_files(tmp_path: Path) -> None:
    assert Disk().list(tmp_path / "none", "*", deep=True) == []


@contextmanager
def _without_root() -> Iterator[None]:
    """root may read everything, so be somebody else."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(user)


@pytest.mark.parametrize("has_dsync", [True, False])
def test_writing_through_writes_all_of_the_bytes(tmp_path: Path, has_dsync: bool) -> None:
    disk = Disk()
    disk._has_dsync = has_dsync
    fd = disk.create(tmp_path / "f")
    for offset, data in ((0, b"first, and more"), (5, b"x" * 100_000), (100_005, b"last")):
        disk.write_through(fd, data, offset)
    disk.close(fd)
    assert disk.read(tmp_path / "f") == b"first" + b"x" * 100_000 + b"last"
    assert disk._has_dsync is has_dsync


def test_an_error_of_stat_is_never_taken_for_absence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "f").write_bytes(b"")

    def broken(*_: object, **__: object) -> os.stat_result:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "stat", broken)
    for look in (Disk().exists, Disk().is_directory):
        with pytest.raises(StorageError, match=r"^stat .*: Input/output error$"):
            look(tmp_path / "f")
    with pytest.raises(StorageError, match=r"^list .*: Input/output error$"):
        Disk().list(tmp_path, "*")


def test_an_error_of_writing_through_is_named(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"")
    fd = os.open(path, os.O_RDONLY)
    with pytest.raises(StorageError, match="write 4 bytes: Bad file descriptor"):
        Disk().write_through(fd, b"1234", 0)
    os.close(fd)

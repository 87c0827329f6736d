"""The arrows of the design, held: who may import whom, who may touch the disk, how big things may be."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "ingestd"
MODULES = sorted(ROOT.rglob("*.py"))

# From the top down; the rooms of one line stand side by side and do not know each other.
LAYERS = [
    {"cli", "__main__"},
    {"finding", "shipping"},
    {"ship"},
    {"service"},
    {"eventlog", "http", "storage"},
    {"ring", "ratelimit", "sifting"},
    {"events", "keys", "config"},
    {"forms"},
    {"analytics", "ndjson", "shape", "slices"},
    {"places"},
    {"oddities", "uuid7"},
    {"metrics", "errors", "progress", "sampling"},
]
LEVELS = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
SIDE_BY_SIDE = {("__main__", "cli")}
"""The one exception: `python -m ingestd` is the command."""

FILE_CALLS = {
    "open", "chmod", "chown", "close", "fchmod", "fchown", "fdatasync", "flock", "fsync", "ftruncate", "glob",
    "is_dir", "is_file", "iterdir", "link", "listdir", "lstat", "makedirs", "mkdir", "read_bytes",
    "read_text", "remove", "removedirs", "rename", "renames", "resolve", "rglob", "rmdir", "rmtree",
    "scandir", "stat", "symlink", "touch", "truncate", "unlink", "utime", "walk", "write_bytes", "write_text",
}  # fmt: skip


def room(path: Path) -> str:
    """The part of ingestd a module belongs to: a package, or the module itself."""
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> set[str]:
    """The parts of ingestd that a module imports from, type checking included."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            if node.module == "ingestd":
                found |= {alias.name for alias in node.names}
            elif node.module and node.module.startswith("ingestd."):
                found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("ingestd.")}
    return found - {"__version__"}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_imports_point_only_downward(path: Path) -> None:
    here = room(path)
    if here == "__init__":
        assert imports(path) == set()
        return
    for there in imports(path):
        assert here == there or LEVELS[here] < LEVELS[there] or (here, there) in SIDE_BY_SIDE, (
            f"{named(path)} imports {there}"
        )


def test_http_and_storage_never_import_each_other() -> None:
    for ours, theirs in (("http", "storage"), ("storage", "http")):
        paths = list((ROOT / ours).rglob("*.py"))
        assert paths
        assert all(theirs not in imports(path) for path in paths)


@pytest.mark.parametrize("path", sorted((ROOT / "storage").rglob("*.py")), ids=named)
def test_only_the_disk_touches_files(path: Path) -> None:
    calls = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = node.func
        on_disk = isinstance(called, ast.Attribute) and ast.unparse(called.value) in ("disk", "self._disk")
        name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
        # Our own `walk` reads bytes that are in memory.
        if name in FILE_CALLS and not on_disk and ast.unparse(called) != "walk":
            calls.append(f"line {node.lineno}: {ast.unparse(called)}")
    if path.name == "disk.py":
        assert len(calls) > 10, "the names below are out of date"
    else:
        assert calls == []


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if room(path) in ("events", "ring", "ratelimit", "keys", "http")],
    ids=named,
)
def test_what_is_above_the_disk_imports_nothing_that_could_touch_it(path: Path) -> None:
    text = ast.parse(path.read_text())
    names = {alias.name for node in ast.walk(text) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(text) if isinstance(node, ast.ImportFrom)}
    assert not names & {"pathlib", "shutil", "tempfile", "io", "fcntl", "mmap"}


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", MODULES, ids=named)
def test_files_and_functions_are_small_enough_to_read(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= 350
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= 70, f"{node.name} has {lines} lines"

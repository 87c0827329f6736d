"""What `make install` brings, in a directory of the test's own, and what systemd-analyze says of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from ingestd.config import Settings
from ingestd.service import listeners, supervisor
from ingestd.ship import process
from tests.support.server import clean_environ
from tests.support.tools import tool

ROOT: Final = Path(__file__).parents[2]
PREFIX: Final = "opt/ingestd"
UNITS: Final = "usr/local/lib/systemd/system"
EXPOSURE_MAX: Final = 1.5


def make(target: str, destdir: Path, *variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [tool("make"), target, f"DESTDIR={destdir}", *variables],
        cwd=ROOT,
        env=clean_environ(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def files(folder: Path) -> set[str]:
    """All files and links below, without those inside the virtualenv."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return {str(path) for path in found if not str(path).startswith(PREFIX)}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is installed, below a directory that stands for `/`."""
    destdir = tmp_path_factory.mktemp("root")
    done = make("install", destdir)
    assert done.returncode == 0, done.stdout + done.stderr
    return destdir


def values(unit: str, name: str) -> list[str]:
    """All values of a setting of a unit."""
    return re.findall(rf"^{name}=(.*)$", (ROOT / "systemd" / unit).read_text(), re.MULTILINE)


def value(unit: str, name: str) -> str:
    """Its only value."""
    [found] = values(unit, name)
    return found


def test_every_file_has_its_place_and_none_knows_where_it_was_made(installed: Path) -> None:
    assert files(installed) == {
        "etc/ingestd/ingestd.toml",
        "usr/local/bin/ingestd",
        f"{UNITS}/ingestd.service",
        f"{UNITS}/ingestd-ship.service",
        f"{UNITS}/ingestd.socket",
        "usr/local/lib/sysusers.d/ingestd.conf",
        "usr/local/lib/tmpfiles.d/ingestd.conf",
    }
    assert os.readlink(installed / "usr/local/bin/ingestd") == "/opt/ingestd/bin/ingestd"
    assert (installed / PREFIX / "bin/ingestd").read_text().startswith("#!/opt/ingestd/bin/python")
    for path in installed.rglob("*"):
        if path.is_file():
            assert str(installed).encode() not in path.read_bytes(), path


def test_what_is_installed_runs(installed: Path) -> None:
    done = subprocess.run(
        # By its interpreter: the first line of the command names one that is not there.
        [installed / PREFIX / "bin/python", installed / PREFIX / "bin/ingestd", "--version"],
        cwd=installed,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.split()[:1]) == (0, ["ingestd"])


def test_systemd_finds_nothing_wrong_with_the_units(installed: Path, tmp_path: Path) -> None:
    for path in (installed / UNITS).iterdir():
        (tmp_path / path.name).write_text(path.read_text().replace("/opt/", f"{installed}/opt/"))
    done = subprocess.run(
        [tool("systemd-analyze"), "verify", "ingestd.service", "ingestd.socket", "ingestd-ship.service"],
        # The colon adds the system's own units.
        env=clean_environ({"SYSTEMD_UNIT_PATH": f"{tmp_path}:"}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("unit", ["ingestd.service", "ingestd-ship.service"])
def test_a_service_is_exposed_as_little_as_was_asked(installed: Path, unit: str) -> None:
    done = subprocess.run(
        [
            tool("systemd-analyze"),
            "security",
            "--offline=true",
            "--no-pager",
            installed / UNITS / unit,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    match = re.search(rf"Overall exposure level for {unit}: ([\d.]+)", done.stdout)
    assert match is not None, done.stdout + done.stderr
    assert float(match[1]) <= EXPOSURE_MAX


def test_a_second_install_keeps_settings_and_the_version_before(installed: Path) -> None:
    settings = installed / "etc/ingestd/ingestd.toml"
    settings.write_text(settings.read_text() + "segment_age_max_s = 10\n")
    before = settings.read_text()
    assert make("install", installed).returncode == 0
    assert settings.read_text() == before
    assert (installed / f"{PREFIX}.old/bin/ingestd").exists()


def test_a_build_that_fails_changes_nothing(installed: Path) -> None:
    command = installed / PREFIX / "bin/ingestd"
    before = command.stat().st_ino
    assert make("install", installed, "PYTHON=false").returncode != 0
    assert command.stat().st_ino == before
    assert not (installed / f"{PREFIX}.new").exists()


def test_uninstall_leaves_settings_and_data(installed: Path, tmp_path: Path) -> None:
    root = shutil.copytree(installed, tmp_path / "root", symlinks=True)
    (root / "var/lib/ingestd").mkdir(parents=True)
    (root / "var/lib/ingestd/keys.toml").touch()
    assert make("uninstall", root).returncode == 0
    assert files(root) == {"etc/ingestd/ingestd.toml", "var/lib/ingestd/keys.toml"}
    assert not (root / PREFIX).exists()


def test_the_figures_of_the_units_fit_those_of_the_code() -> None:
    defaults = Settings()
    stop_s = int(value("ingestd.service", "TimeoutStopSec"))
    assert stop_s > defaults.drain_timeout_s + supervisor._KILL_S
    assert value("ingestd.service", "TimeoutStartSec") == f"{supervisor._START_S / 60:.0f}min"
    assert int(value("ingestd.service", "LimitNOFILE")) > 2 * defaults.connections_max
    assert int(value("ingestd.socket", "Backlog")) == listeners.BACKLOG
    assert int(value("ingestd-ship.service", "TimeoutStopSec")) > 2 * process._STOP_S
    assert set(values("ingestd.socket", "ListenStream")) == {defaults.listen}

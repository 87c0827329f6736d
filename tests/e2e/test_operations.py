"""docs/operations.md is true, and the unit keeps its promises: a Debian of the test's own, with its systemd.

Apart from `make test`, for it needs root, mmdebstrap and a minute: `make test-systemd` runs it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from typing import Final

import pytest

from tests.e2e.test_supervisor import Senders
from tests.support.container import Container, make_tree, make_wheels
from tests.support.server import wait_until
from tests.support.tools import ROOT, copy_tree

pytestmark = [
    pytest.mark.skipif("INGESTD_TEST_CONTAINER" not in os.environ, reason="make test-systemd runs it"),
    pytest.mark.timeout(600),
]

PAGE: Final = (ROOT / "docs" / "operations.md").read_text()
BLOCKS: Final = [block.strip() for block in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.M | re.S)]
APT: Final = "apt-get install --no-install-recommends "
DROP_IN: Final = "/run/systemd/system/ingestd.service.d/test.conf"


def packages() -> list[str]:
    """What the page says is to be installed."""
    [line] = [line for line in PAGE.splitlines() if line.startswith(APT)]
    return line.removeprefix(APT).split()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    """A bare Debian that has been through all of the page, in its order."""
    folder = tmp_path_factory.mktemp("machine")
    clone = folder / "clone"
    copy_tree(clone)
    make_wheels(folder / "wheels", clone)
    make_tree(folder / "tree", packages())
    try:
        with Container(folder / "tree", clone, folder / "wheels") as booted:
            follow_the_page(booted)
            yield booted
    finally:
        shutil.rmtree(folder / "tree")


def follow_the_page(machine: Container) -> None:
    """Run every command of the page, in its order; the last key that it makes is the one that tests use."""
    for block in BLOCKS:
        # Packages are there already, and there is no network to fetch them from.
        commands = [line for line in block.splitlines() if not line.startswith(APT)]
        output = machine.run("\n".join(commands).replace("ing_...", machine.key))
        made = re.search(r"^ing_\S+$", output, re.MULTILINE)
        if made is not None and "key revoke" not in block:
            machine.key = made[0]
        if "ingestd cat" in block:
            assert '{"status":"ok","messageId":' in output
            assert '"signup"' in output
        elif "systemctl status" in block:
            assert "active (running)" in output
            assert re.search(r"Serving: (\d+) of \1 workers are ready", output)
        elif "9464" in block:
            assert '{"status":"ok"}' in output
            assert "ingestd_worker_ready" in output
        elif "verify" in block:
            assert "1 events, 0 problems" in output
        elif "ingestd-ship" in block:
            assert "ActiveState=active" in output


def restarts(machine: Container) -> int:
    return int(machine.property("NRestarts"))


def workers(machine: Container) -> list[int]:
    main = machine.property("MainPID")
    return [int(pid) for pid in machine.run(f"cat /proc/{main}/task/{main}/children").split()]


def assert_all_are_stored(machine: Container, senders: Senders) -> None:
    stored = set(re.findall(r'"messageId": ?"([^"]+)"', machine.run("ingestd cat /var/lib/ingestd")))
    assert set(senders.acked) <= stored


def set_watchdog(machine: Container, seconds: int) -> None:
    machine.run(
        f"mkdir -p {os.path.dirname(DROP_IN)}; printf '[Service]\\nWatchdogSec={seconds}\\n' >{DROP_IN}; "
        "systemctl daemon-reload; systemctl restart ingestd"
    )


def test_the_units_are_clean_and_closed_where_they_are_installed(machine: Container) -> None:
    assert machine.run("systemd-analyze verify ingestd{,-ship}.service ingestd.socket 2>&1") == ""
    for unit in ("ingestd.service", "ingestd-ship.service"):
        score = re.search(r"exposure level .*: ([\d.]+)", machine.run(f"systemd-analyze security {unit}"))
        assert score is not None
        assert float(score[1]) <= 1.5


def test_the_service_is_confined_and_its_flusher_may_still_be_modest(machine: Container) -> None:
    user = machine.run("id --user ingestd").strip()
    for pid in [int(machine.property("MainPID")), *workers(machine)]:
        status = dict(re.findall(r"^(\w+):\t(.*)$", machine.run(f"cat /proc/{pid}/status"), re.MULTILINE))
        assert status["Uid"].split() == [user] * 4
        assert (status["CapBnd"], status["NoNewPrivs"], status["Seccomp"]) == ("0" * 16, "1", "2")
    for pid in workers(machine):
        assert "SCHED_BATCH" in machine.run(f"chrt --all-tasks --pid {pid}")
    assert machine.run("stat --format '%U %a' /var/lib/ingestd").split() == ["ingestd", "750"]


def test_the_shipper_delivers_from_within_its_sandbox_and_can_write_nowhere_else(machine: Container) -> None:
    with Senders(machine) as senders:
        senders.wait_for(10)
    machine.run("systemctl kill --kill-whom=main --signal=SIGUSR1 ingestd")
    segments = "ls /var/lib/ingestd/segments/*/*/ | grep -c zst"
    objects = "ls /srv/events/*/*/ | grep -c zst || true"
    wait_until(lambda: machine.run(segments) == machine.run(objects) != "0\n", "all is delivered", 60)
    pid = machine.property("MainPID", "ingestd-ship.service")
    inside = f"nsenter --target {pid} --mount --setuid $(id -u ingestd) touch"
    assert "Read-only file system" in machine.run(f"{inside} /var/lib/ingestd/segments/x 2>&1 || true")
    machine.run(f"{inside} /var/lib/ingestd/shipped/x; rm /var/lib/ingestd/shipped/x")


def test_a_reload_takes_up_a_key_and_lets_one_go(machine: Container) -> None:
    old = machine.key
    machine.key = machine.run("ingestd key add other --config /etc/ingestd/ingestd.toml").strip()
    machine.run("systemctl reload ingestd")
    wait_until(lambda: machine.property("ActiveState") == "active", "the reload is over")
    with Senders(machine) as senders:
        senders.wait_for(10)
    assert senders.errors == []
    machine.run("ingestd key revoke other --config /etc/ingestd/ingestd.toml; systemctl reload ingestd")
    with Senders(machine) as senders:
        wait_until(lambda: any(error.endswith(": 401") for error in senders.errors), "the key is refused")
    machine.key = old


def test_a_restart_under_connections_refuses_and_resets_none(machine: Container) -> None:
    with Senders(machine) as senders:
        senders.wait_for(50)
        for _ in range(3):
            before = machine.property("MainPID")
            machine.run("systemctl restart ingestd")
            assert machine.property("MainPID") != before
            senders.wait_for(50)
    assert senders.errors == []
    assert_all_are_stored(machine, senders)


def test_workers_are_replaced_one_by_one_and_nobody_is_refused_or_cut_off(machine: Container) -> None:
    before = set(workers(machine))
    with Senders(machine) as senders:
        senders.wait_for(50)
        machine.run("systemctl kill --kill-whom=main --signal=SIGUSR2 ingestd")
        wait_until(
            lambda: not before & set(workers(machine)) and len(workers(machine)) == len(before),
            "all workers are new",
        )
        senders.wait_for(50)
    assert senders.errors == []
    assert_all_are_stored(machine, senders)


def test_workers_that_stand_still_are_ended_by_the_watchdog_and_all_is_well_again(machine: Container) -> None:
    set_watchdog(machine, 5)
    before = restarts(machine)
    with Senders(machine) as senders:
        senders.wait_for(50)
        machine.run(f"kill -STOP {' '.join(map(str, workers(machine)))}")
        wait_until(lambda: restarts(machine) > before, "systemd has restarted it", 60)
        senders.wait_for(50)
    assert "Watchdog timeout" in machine.run("journalctl --unit ingestd")
    assert "the watchdog is not fed: worker 0 stands still" in machine.run("journalctl --unit ingestd")
    # What the stopped ones had in their hands is cut off; nobody is refused.
    assert not [error for error in senders.errors if "Refused" in error]
    assert len(senders.errors) <= 4
    assert_all_are_stored(machine, senders)


def test_a_supervisor_that_is_killed_is_back_and_nobody_is_refused(machine: Container) -> None:
    before = restarts(machine)
    with Senders(machine) as senders:
        senders.wait_for(50)
        machine.run("systemctl kill --kill-whom=main --signal=SIGKILL ingestd")
        wait_until(lambda: restarts(machine) > before, "systemd has restarted it", 60)
        senders.wait_for(50)
    assert not [error for error in senders.errors if "Refused" in error]
    assert_all_are_stored(machine, senders)


def test_connections_wait_while_a_bad_setting_is_mended(machine: Container) -> None:
    machine.run("echo 'segment_age_max = 1' >>/etc/ingestd/ingestd.toml; systemctl restart ingestd || true")
    before = restarts(machine)
    with Senders(machine) as senders:
        wait_until(lambda: restarts(machine) > before, "it is tried again", 60)
        assert "unknown setting 'segment_age_max'" in machine.run("journalctl --unit ingestd")
        machine.run("sed -i '/^segment_age_max =/d' /etc/ingestd/ingestd.toml")
        senders.wait_for(50)
    assert senders.errors == []


def test_sockets_named_https_speak_tls_with_a_certificate_that_is_a_credential(machine: Container) -> None:
    machine.run(
        """openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost \
            -addext subjectAltName=DNS:localhost -out /etc/ingestd/cert.pem \
            -keyout /etc/ingestd/key.pem 2>/dev/null
        cp /etc/ingestd/ingestd.toml /root/before.toml
        cat >>/etc/ingestd/ingestd.toml <<'END'
tls_cert_file = "/run/credentials/ingestd.service/tls-cert.pem"
tls_key_file = "/run/credentials/ingestd.service/tls-key.pem"
END
        printf '%s\n' '[Service]' 'LoadCredential=tls-cert.pem:/etc/ingestd/cert.pem' \
            'LoadCredential=tls-key.pem:/etc/ingestd/key.pem' >/run/systemd/system/ingestd.service.d/tls.conf
        mkdir -p /run/systemd/system/ingestd.socket.d
        printf '%s\n' '[Socket]' 'FileDescriptorName=https' >/run/systemd/system/ingestd.socket.d/tls.conf
        systemctl daemon-reload; systemctl stop ingestd.service
        systemctl restart ingestd.socket; systemctl start ingestd.service"""
    )
    assert machine.run("stat --format %U:%a /etc/ingestd/key.pem").strip() == "root:600"
    url = "https://localhost:8080/readyz"
    assert machine.run(f"curl --fail --silent --cacert /etc/ingestd/cert.pem {url}") == '{"status":"ok"}'
    machine.run(
        """rm /run/systemd/system/ingestd.{service,socket}.d/tls.conf
        cp /root/before.toml /etc/ingestd/ingestd.toml
        systemctl daemon-reload; systemctl stop ingestd.service
        systemctl restart ingestd.socket; systemctl start ingestd.service"""
    )


def test_keys_may_be_a_credential(machine: Container) -> None:
    machine.run(
        """install --mode=600 /var/lib/ingestd/keys.toml /root/keys.toml
        printf '%s\n' '[Service]' 'LoadCredential=ingestd-keys.toml:/root/keys.toml' \
            >/run/systemd/system/ingestd.service.d/keys.conf
        ingestd key revoke shop --config /etc/ingestd/ingestd.toml
        systemctl daemon-reload; systemctl restart ingestd"""
    )
    with Senders(machine) as senders:
        senders.wait_for(10)
    assert senders.errors == []
    machine.run(
        """rm /run/systemd/system/ingestd.service.d/keys.conf
        systemctl daemon-reload; systemctl restart ingestd"""
    )
    with Senders(machine) as senders:
        wait_until(lambda: any(error.endswith(": 401") for error in senders.errors), "the key is refused")


def test_uninstall_stops_it_and_keeps_the_data(machine: Container) -> None:
    machine.run("make uninstall")
    assert machine.property("LoadState") == "not-found"
    assert machine.run("ls /usr/local/bin /opt").split() == ["/opt:", "/usr/local/bin:"]
    machine.run("ls /var/lib/ingestd/segments /etc/ingestd/ingestd.toml")

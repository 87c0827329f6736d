"""As much as a server takes: wrk, pinned to a core of its own, sending prepared bodies in turn.

wrk is a closed loop: each connection asks again when it has its answer. That is right for
throughput; latency is measured by `openloop`.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from bench.corpus import Load
from bench.processes import LOAD_CORE, pinned

CONNECTIONS: Final = {1: 64, 10: 64, 100: 16, 1000: 8, 10_000: 2}

_LENGTH_DIGITS: Final = 10
_LUA: Final = """\
local requests, n = {{}}, 0
function init(args)
  local f = io.open("{file}", "rb")
  for length in function() return f:read({digits}) end do
    requests[#requests + 1] = wrk.format("POST", "{path}", {{
      ["Host"] = "127.0.0.1", ["Authorization"] = "Bearer {key}",
      ["Content-Type"] = "application/json"{encoding} }}, f:read(tonumber(length)))
  end
  f:close()
end
function request()
  n = n % #requests + 1
  return requests[n]
end
"""


class Driven(NamedTuple):
    """What wrk saw."""

    connections: int
    seconds: float
    requests: int
    """Answered with 200."""
    refused: int
    """Answered with anything else: a server that answers before it has written may be told to come again."""


def write_bodies(bodies: Sequence[bytes], file: Path) -> None:
    """Where wrk and the kernels read them: each after its length."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"".join([b"%0*d%b" % (_LENGTH_DIGITS, len(body), body) for body in bodies]))


def read_bodies(file: Path) -> list[bytes]:
    """What `write_bodies` has written."""
    data, at, bodies = file.read_bytes(), 0, []
    while at < len(data):
        start = at + _LENGTH_DIGITS
        at = start + int(data[at:start])
        bodies.append(data[start:at])
    return bodies


def drive(port: int, key: str, load: Load, file: Path, seconds: float) -> Driven:
    """Load the server with the bodies in the file, in turn. Raises RuntimeError if it fails."""
    script = file.with_suffix(".lua")
    encoding = ', ["Content-Encoding"] = "gzip"' if load.is_gzip else ""
    script.write_text(
        _LUA.format(file=file, digits=_LENGTH_DIGITS, path=load.path, key=key, encoding=encoding)
    )
    connections = CONNECTIONS[load.events]
    command = [*pinned(LOAD_CORE), "wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
    command += ["--timeout", "20s", "-s", str(script), f"http://127.0.0.1:{port}/"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 60)
    found = re.search(r"(\d+) requests in ([\d.]+)(ms|s|m),", done.stdout)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    errors = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", done.stdout)
    if done.returncode or not found:
        raise RuntimeError(f"wrk: {done.stdout}{done.stderr}")
    refusals = int(refused[1]) if refused else 0
    # A refusal may end its connection.
    if errors and (int(errors[1]) or int(errors[4]) or not refusals):
        raise RuntimeError(errors[0])
    if int(found[1]) <= refusals:
        raise RuntimeError(f"{refusals} of {found[1]} requests were refused")
    took = float(found[2]) * {"ms": 0.001, "s": 1, "m": 60}[found[3]]
    return Driven(connections, took, int(found[1]) - refusals, refusals)

"""wrk, pinned to a core of its own, sending prepared bodies in turn."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.contenders import LOAD_CORE, Contender, pinned

_LUA = """\
local requests, n = {{}}, 0
function init(args)
  for i = 0, {count} - 1 do
    local f = io.open("{folder}/" .. i, "rb")
    requests[i] = wrk.format("POST", "{path}", {{
      ["Host"] = "127.0.0.1", ["Authorization"] = "Bearer {key}",
      ["Content-Type"] = "application/json"{encoding} }}, f:read("*a"))
    f:close()
  end
end
function request()
  n = (n + 1) % {count}
  return requests[n]
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw and what the server spent."""

    requests: int
    requests_per_s: float
    cpu_us_per_request: float
    p50_ms: float
    p99_ms: float


def drive(
    contender: Contender, bodies: list[bytes], folder: Path, *, seconds: int, connections: int, is_many: bool,
    gzipped: bool,
) -> Load:  # fmt: skip
    """Load the contender for some seconds. Raises RuntimeError if a single request failed."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, body in enumerate(bodies):
        (folder / str(i)).write_bytes(body)
    script = folder / "load.lua"
    script.write_text(
        _LUA.format(
            count=len(bodies),
            folder=folder,
            path="/v1/bulk-track" if is_many else "/v1/track",
            key=contender.key,
            encoding=', ["Content-Encoding"] = "gzip"' if gzipped else "",
        )
    )
    command = [
        *pinned(LOAD_CORE),
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--timeout",
        "10s",
        "--latency",
    ]
    command += ["-s", str(script), f"http://127.0.0.1:{contender.port}/"]
    before = contender.cpu_s()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    cpu_s = contender.cpu_s() - before
    failed = re.search(r"Non-2xx.*|Socket errors.*", done.stdout)
    count = re.search(r"(\d+) requests in", done.stdout)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    if failed or not count or not rate or int(count[1]) == 0:
        raise RuntimeError(f"{contender.name}: {failed[0] if failed else done.stdout + done.stderr}")
    cpu_us = cpu_s / int(count[1]) * 1e6
    return Load(
        int(count[1]), float(rate[1]), cpu_us, _latency_ms(done.stdout, 50), _latency_ms(done.stdout, 99)
    )


def _latency_ms(report: str, percentile: int) -> float:
    """A line of wrk's latency distribution, such as `50%  412.00us`."""
    found = re.search(rf"^\s+{percentile}%\s+([\d.]+)(us|ms|s)$", report, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"no latencies in:\n{report}")
    return float(found[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[found[2]]

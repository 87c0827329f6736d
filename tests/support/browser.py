"""A real browser without a screen, led by chromedriver, and pages for it.

The words between us and chromedriver are those of https://www.w3.org/TR/webdriver2/.
"""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from tests.support.server import DEADLINE_S, wait_until
from tests.support.tools import tool

_FLAGS: Final = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-proxy-server",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage",
)  # fmt: skip
_STARTED: Final = re.compile(r"started successfully on port (\d+)")


class Browser:
    """One window."""

    def __init__(self, port: int, profile: Path) -> None:
        self._port = port
        options = {
            "binary": tool("chromium"),
            "args": [*_FLAGS, f"--user-data-dir={profile}"],
        }
        asked = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        self._path = f"/session/{self._ask('POST', '/session', asked)['sessionId']}"
        self._ask("POST", f"{self._path}/timeouts", {"script": int(DEADLINE_S * 1000)})

    def open(self, url: str) -> None:
        """Go to a page; the one before is hidden and left."""
        self._ask("POST", f"{self._path}/url", {"url": url})

    def run(self, script: str) -> Any:
        """What an async function with this body returns."""
        whole = f"""const done = arguments[arguments.length - 1];
            (async () => {{ {script} }})().then(done, error => done(String(error)));"""
        return self._ask("POST", f"{self._path}/execute/async", {"script": whole, "args": []})

    def quit(self) -> None:
        """End it."""
        self._ask("DELETE", self._path, None)

    def _ask(self, method: str, path: str, body: object) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=3 * DEADLINE_S)
        try:
            connection.request(method, path, None if body is None else json.dumps(body).encode())
            response = connection.getresponse()
            value = json.loads(response.read())["value"]
            assert response.status == 200, value
            return value
        finally:
            connection.close()


@contextmanager
def browser(folder: Path) -> Iterator[Browser]:
    """A browser with a new profile, ended with everything it started."""
    log = folder / "chromedriver.txt"
    with log.open("wb") as output:
        driver = subprocess.Popen(
            [tool("chromedriver"), "--port=0"], stdout=output, stderr=output, cwd=folder
        )
    try:
        wait_until(lambda: _STARTED.search(log.read_text()), "chromedriver has started")
        found = _STARTED.search(log.read_text())
        assert found is not None
        made = Browser(int(found[1]), folder / "profile")
        try:
            yield made
        finally:
            made.quit()
    finally:
        driver.terminate()
        driver.wait(DEADLINE_S)


@contextmanager
def pages(texts: dict[str, str]) -> Iterator[str]:
    """A server of these pages, by path; yields its origin. A page may be added meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            text = texts.get(self.path)
            body = (text or "").encode()
            self.send_response(200 if text is not None else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serving = threading.Thread(target=server.serve_forever)
    serving.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        serving.join()
        server.server_close()

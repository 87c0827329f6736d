"""A real browser sends events from pages on another origin, and reads the answers, errors too."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import pytest

from tests.support.browser import Browser, browser, pages
from tests.support.server import EVENT, Server, run, wait_until
from tests.support.tools import ROOT

pytestmark = pytest.mark.timeout(180)

README: Final = (ROOT / "README.md").read_text()
HTML: Final = re.findall(r"^```html\n(.*?)^```$", README, re.M | re.S)[0]
LIMITS: Final = ("--events-per-s", "100", "--requests-per-s", "100")


class Scene(NamedTuple):
    """A server, a browser, and pages on an origin that the server knows and on one that it does not."""

    server: Server
    browser: Browser
    page: str
    stranger: str
    texts: dict[str, str]
    keys: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://{self.server.host}:{self.server.port}"

    def stored(self) -> list[str]:
        """The messageIds so far."""
        return [event["messageId"] for event in self.server.events()]

    def fetch(self, body: object, path: str = "/v1/track", **options: Any) -> Any:
        """What a page sees of an answer."""
        headers = {"Authorization": f"Bearer {self.server.key}", "Content-Type": "application/json"}
        asked = {"method": "POST", "headers": headers, "body": json.dumps(body), **options}
        return self.browser.run(
            f"""const answer = await fetch({json.dumps(self.url + path)}, {json.dumps(asked)});
            return {{status: answer.status, again: answer.headers.get("Retry-After"),
                     body: await answer.json()}}"""
        )


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("browser")
    texts = {"/": "<title>a page</title>"}
    with (
        pages(texts) as page,
        pages(texts) as stranger,
        Server(folder, cors_origins=page, request_log="true", body_bytes_max=4096) as server,
        browser(folder) as window,
    ):
        public = run("key", "add", "page", "--public", *LIMITS, cwd=folder).stdout.strip()
        limited = run("key", "add", "limited", "--events-per-s", "0.001", cwd=folder).stdout.strip()
        wait_until(lambda: "keys loaded: 3" in server.log, "the new keys are known")
        yield Scene(server, window, page, stranger, texts, {"page": public, "limited": limited})


def logged(scene: Scene, method: str) -> int:
    """How many requests of this method the server has answered."""
    return len(re.findall(rf"method={method}\b", scene.server.log))


def test_a_page_sends_with_its_key_in_a_header_and_reads_the_id(scene: Scene) -> None:
    scene.browser.open(scene.page)
    before = logged(scene, "OPTIONS")
    for name in ("fetched-1", "fetched-2", "fetched-3"):
        seen = scene.fetch(EVENT | {"messageId": name})
        assert seen == {"status": 200, "again": None, "body": {"status": "ok", "messageId": name}}
    bulk = scene.fetch([EVENT | {"messageId": "fetched-4"}], "/v1/bulk-track")
    assert bulk["body"] == {"status": "ok", "messageIds": ["fetched-4"]}
    assert [name for name in scene.stored() if name.startswith("fetched-")] == [
        f"fetched-{i}" for i in range(1, 5)
    ]
    # The browser keeps what it was told: one preflight for each target.
    assert logged(scene, "OPTIONS") - before == 2


def test_a_page_reads_what_is_wrong_and_when_to_come_again(scene: Scene) -> None:
    scene.browser.open(scene.page)
    bad = scene.fetch(EVENT | {"timestamp": "yesterday"})
    assert (bad["status"], bad["body"]["code"]) == (400, "invalid_event")
    assert bad["body"]["detail"].startswith("$.timestamp: ")
    unknown = scene.fetch(EVENT, headers={"Authorization": "Bearer ing_unknown"})
    assert (unknown["status"], unknown["body"]["code"]) == (401, "unauthorized")
    large = scene.fetch(EVENT | {"pad": "x" * 5000})
    assert (large["status"], large["body"]["code"]) == (413, "payload_too_large")
    limited = {"Authorization": f"Bearer {scene.keys['limited']}"}
    assert scene.fetch(EVENT | {"messageId": "within"}, headers=limited)["status"] == 200
    over = scene.fetch(EVENT, headers=limited)
    assert (over["status"], over["body"]["code"]) == (429, "rate_limited")
    assert int(over["again"]) >= 1


def test_a_page_on_an_origin_that_is_not_named_sends_nothing_and_reads_nothing(scene: Scene) -> None:
    scene.browser.open(scene.stranger)
    assert "Failed to fetch" in scene.fetch(EVENT | {"messageId": "refused"})
    assert "code=origin_refused" in scene.server.log
    scene.browser.open(scene.page)
    assert scene.fetch(EVENT | {"messageId": "after the refused"})["status"] == 200
    assert "refused" not in scene.stored()


def test_the_page_of_the_readme_sends_a_beacon_when_it_is_left(scene: Scene) -> None:
    html = HTML.replace("https://events.example", scene.url).replace("ing_...", scene.keys["page"])
    assert html.count(scene.keys["page"]) == 1
    scene.texts["/readme"] = html
    before = logged(scene, "OPTIONS")
    scene.browser.open(f"{scene.page}/readme")
    assert "left" not in [event["event"] for event in scene.server.events()]
    scene.browser.open(f"{scene.page}/")
    wait_until(lambda: "left" in [event["event"] for event in scene.server.events()], "the beacon is stored")
    [left] = [event for event in scene.server.events() if event["event"] == "left"]
    assert (left["source"], left["properties"]) == ("page", {"path": "/readme"})
    assert logged(scene, "OPTIONS") == before
    assert scene.keys["page"] not in scene.server.log


@pytest.mark.parametrize("kind", ["text/plain", "application/json"])
def test_beacons_of_any_type_and_kept_alive_fetches_outlive_their_page(scene: Scene, kind: str) -> None:
    """One of JSON needs a preflight, which asks for credentials to be allowed."""
    url = json.dumps(f"{scene.url}/v1/bulk-track?key={scene.keys['page']}")
    beacon, fetched = (
        json.dumps([EVENT | {"messageId": f"{way} {kind}"}]) for way in ("beacon", "keepalive")
    )
    scene.texts["/leave"] = f"""<script>addEventListener("pagehide", () => {{
        navigator.sendBeacon({url}, new Blob([{json.dumps(beacon)}], {{type: "{kind}"}}));
        fetch({url}, {{method: "POST", keepalive: true, body: {json.dumps(fetched)},
                       headers: {{"Content-Type": "{kind}"}}}});
    }})</script>"""
    scene.browser.open(f"{scene.page}/leave")
    scene.browser.open(f"{scene.page}/")
    wait_until(lambda: {f"beacon {kind}", f"keepalive {kind}"} <= {*scene.stored()}, "both are stored")
    stored = scene.stored()
    assert stored.count(f"beacon {kind}") == stored.count(f"keepalive {kind}") == 1


def test_a_compressed_body_is_taken_from_a_page(scene: Scene) -> None:
    scene.browser.open(scene.page)
    seen = scene.browser.run(
        f"""const packed = new Blob([{json.dumps(json.dumps(EVENT | {"messageId": "packed"}))}]).stream()
            .pipeThrough(new CompressionStream("gzip"));
        const answer = await fetch({json.dumps(scene.url + "/v1/track")}, {{
            method: "POST", body: await new Response(packed).blob(),
            headers: {{Authorization: "Bearer {scene.server.key}", "Content-Encoding": "gzip"}}}});
        return answer.status"""
    )
    assert seen == 200
    assert scene.stored().count("packed") == 1

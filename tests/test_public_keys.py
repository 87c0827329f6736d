"""Public keys: they stand in pages, so they are taken from the query, and always have limits."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

import pytest

from ingestd import keys
from ingestd.errors import UsageError
from tests.support.requests import SECRET, encoded, event, head, post
from tests.support.server import EVENT, Client, Server, run
from tests.support.wire import Answer, Site, Wire, key
from tests.test_keys import key_text

PUBLIC: Final = "ing_public-key-of-a-page"
LIMITS: Final = "events_per_s = 9\nrequests_per_s = 3\n"
BODY: Final = encoded(event("m"))
TARGET: Final = f"/v1/track?key={PUBLIC}"


# -- keys.toml and the commands --------------------------------------------------------------------


def test_public_is_rendered_and_parsed_back_and_false_by_default() -> None:
    [plain] = keys.parse(key_text(), "f")
    [public] = keys.parse(key_text(more=f"public = true\n{LIMITS}"), "f")
    assert (plain.public, public.public) == (False, True)
    assert keys.parse(keys.render([public]), "f") == [public]
    assert b"public" not in keys.render([plain])


@pytest.mark.parametrize("more", ["", "events_per_s = 9\n", "requests_per_s = 3\n"])
def test_a_public_key_without_both_limits_is_refused(more: str) -> None:
    with pytest.raises(UsageError, match=r"^f: key 'a': a public key needs events_per_s and requests_per_s"):
        keys.parse(key_text(more=f"public = true\n{more}"), "f")


def test_a_public_key_is_made_listed_and_keeps_its_limits(tmp_path: Path) -> None:
    refused = run("key", "add", "page", "--public", cwd=tmp_path)
    assert refused.returncode == 2
    assert "a public key needs events_per_s and requests_per_s" in refused.stderr
    limits = ["--events-per-s", "100", "--requests-per-s", "50"]
    assert run("key", "add", "page", "--public", *limits, cwd=tmp_path).returncode == 0
    listed = run("key", "list", cwd=tmp_path).stdout
    assert listed.endswith("\tpublic, events_per_s 100, requests_per_s 50, burst_s 1\n")
    refused = run("key", "limit", "page", "--events-per-s", "none", cwd=tmp_path)
    assert refused.returncode == 2
    assert run("key", "limit", "page", "--events-per-s", "7", cwd=tmp_path).returncode == 0
    assert "public, events_per_s 7, " in run("key", "list", cwd=tmp_path).stdout


# -- over HTTP -------------------------------------------------------------------------------------


def site() -> Site:
    """A site with a key that is public and one that is not."""
    made = Site()
    public = key(PUBLIC, "page", public=True, events_per_s=9, requests_per_s=9)
    made.keyring.replace([key(), public])
    return made


def asked(target: str, *lines: str, at: Site | None = None) -> Answer:
    wire = Wire(at or site())
    headers = [f"Content-Length: {len(BODY)}", *lines]
    wire.feed(head(f"POST {target} HTTP/1.1", headers, auth=False) + BODY)
    wire.site.commit()
    return wire.answer()


@pytest.mark.parametrize("query", ["key={}", "a=b&key={}", "key={}&a=b", "&&key={}&", "xkey=1&key={}"])
def test_a_public_key_is_taken_from_the_query(query: str) -> None:
    at = site()
    assert asked(f"/v1/track?{query.format(PUBLIC)}", at=at).status == 200
    assert [line["source"] for line in at.stored] == ["page"]


@pytest.mark.parametrize(
    "query",
    [
        f"key={SECRET}",
        "key=ing_unknown",
        "key=",
        "key",
        "",
        f"KEY={PUBLIC}",
        f"xkey={PUBLIC}",
        f"key={PUBLIC}x",
        f"key={PUBLIC}&key={PUBLIC}",
        f"key=x&key={PUBLIC}",
        f"a=key={PUBLIC}",
        f"key={PUBLIC}#x",
    ],
)
def test_any_other_key_in_the_query_is_401_and_none_can_be_probed(query: str) -> None:
    missing, answer = asked("/v1/track"), asked(f"/v1/track?{query}")
    assert answer.status == missing.status == 401
    assert answer.body == missing.body


def test_a_public_key_is_taken_from_the_header_as_well() -> None:
    assert asked("/v1/track", f"Authorization: Bearer {PUBLIC}").status == 200


@pytest.mark.parametrize(
    ("authorization", "source"), [(f"Bearer {SECRET}", "web"), (f"Bearer {PUBLIC}", "page")]
)
def test_a_header_wins_over_the_query(authorization: str, source: str) -> None:
    at = site()
    assert asked(f"/v1/track?key={PUBLIC}", f"Authorization: {authorization}", at=at).status == 200
    assert [line["source"] for line in at.stored] == [source]
    assert asked(f"/v1/track?key={SECRET}", f"Authorization: {authorization}").status == 200


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer ing_unknown", f"?key={PUBLIC}", f"key={PUBLIC}"]
)
def test_a_header_that_is_no_key_is_not_made_good_by_the_query(authorization: str) -> None:
    answer = asked(TARGET, f"Authorization: {authorization}")
    assert answer.status == (401 if authorization else 200), "an empty header is none"


def test_keys_in_queries_are_told_apart_on_one_connection() -> None:
    """What a connection remembers of a key belongs to the query as to the header."""
    at = site()
    wire = Wire(at)
    lines = [f"Content-Length: {len(BODY)}"]
    for _ in range(3):
        wire.feed(head(f"POST {TARGET} HTTP/1.1", lines, auth=False) + BODY)
        wire.feed(post(BODY))
    at.commit()
    wire.feed(head("POST /v1/track HTTP/1.1", lines, auth=False) + BODY)
    at.commit()
    assert [answer.status for answer in wire.answers()] == [200] * 6 + [401]
    assert [line["source"] for line in at.stored] == ["page", "web"] * 3


def test_a_key_that_is_public_no_longer_stops_at_once_in_queries_only() -> None:
    at = site()
    wire = Wire(at)
    raw = head(f"POST {TARGET} HTTP/1.1", [f"Content-Length: {len(BODY)}"], auth=False) + BODY
    wire.feed(raw * 3)
    at.commit()
    at.keyring.replace([key(), key(PUBLIC, "page")])
    wire.feed(raw)
    assert [answer.status for answer in wire.answers()] == [200, 200, 200, 401]
    assert asked("/v1/track", f"Authorization: Bearer {PUBLIC}", at=at).status == 200


def test_the_limits_of_a_public_key_hold_in_the_query() -> None:
    at = site()
    assert [asked(TARGET, at=at).status for _ in range(10)] == [200] * 9 + [429]


def test_a_public_key_in_a_query_stands_in_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for query in (f"key={PUBLIC}", f"key={SECRET}", "key=ing_unknown"):
        at = Site(request_log=True, error_log_per_s=100)
        at.keyring.replace([key(), key(PUBLIC, "page", public=True, events_per_s=9, requests_per_s=9)])
        asked(f"/v1/track?{query}", at=at)
        asked(f"/v1/nowhere?{query}", at=at)
        wire = Wire(at)
        wire.feed(head(f"GET /v1/track?{query} HTTP/1.1", auth=False))
    told: list[Any] = [vars(record) for record in caplog.records]
    assert len(told) >= 9
    assert not [1 for text in (PUBLIC, SECRET, "ing_unknown") if text in repr(told)]


def test_a_real_server_takes_a_public_key_and_logs_it_nowhere(tmp_path: Path) -> None:
    limits = ["--events-per-s", "100", "--requests-per-s", "50"]
    made = run("key", "add", "page", "--public", *limits, cwd=tmp_path).stdout.strip()
    with Server(tmp_path, request_log="true", log_level="debug") as server:
        client = Client(server.host, server.port, "no key")
        for path in (f"/v1/track?key={made}", f"/v1/track?key={made}x"):
            answer = client.request(
                "POST", path, encoded(EVENT), {"Content-Type": "text/plain;charset=UTF-8"}
            )
            assert answer.status == (200 if path.endswith(made) else 401)
        client.close()
        assert [line["source"] for line in server.events()] == ["page"]
    assert "/v1/track" in server.log
    assert made not in server.log

"""Pages on other origins: preflights, and headers that let a page read its answers, errors too."""

from __future__ import annotations

from typing import Final

import pytest

from ingestd.errors import StorageError, UsageError
from ingestd.http.cors import MAX_AGE_S, Cors
from tests.support.requests import bytewise, encoded, event, head, post
from tests.support.wire import Answer, Site, Wire

SHOP: Final = "https://shop.example"
ORIGINS: Final = f"{SHOP}, http://localhost:3000"
BODY: Final = encoded(event("m"))
FROM_SHOP: Final = f"Origin: {SHOP}"
ASKS: Final = [
    "Access-Control-Request-Method: POST",
    "Access-Control-Request-Headers: authorization,content-type",
]


def preflight(origin: str = SHOP, target: str = "/v1/track", *lines: str) -> bytes:
    """What a browser asks before it sends."""
    return head(f"OPTIONS {target} HTTP/1.1", [f"Origin: {origin}", *(lines or ASKS)], auth=False)


def answered(raw: bytes, site: Site | None = None, method: str = "POST") -> Answer:
    wire = Wire(site or Site(cors_origins=ORIGINS))
    wire.feed(raw)
    wire.site.commit()
    return wire.answer(method)


def said(answer: Answer) -> dict[str, str]:
    """The headers of CORS that an answer has."""
    return {
        name: value
        for name, value in answer.headers.items()
        if name.startswith("Access-Control-") or name == "Vary"
    }


READABLE: Final = {
    "Access-Control-Allow-Origin": SHOP,
    "Access-Control-Allow-Credentials": "true",
    "Access-Control-Expose-Headers": "*, Ingest-Ack, Ingest-Receipt, Retry-After",
    "Vary": "Origin",
}
READABLE_BY_ALL: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "*, Ingest-Ack, Ingest-Receipt, Retry-After",
}


# -- preflights ------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["/v1/track", "/v1/bulk-track", "/v1/track?key=ing_x"])
def test_a_preflight_is_answered_without_a_key_and_may_be_kept(target: str) -> None:
    raw = preflight(SHOP, target)
    for pieces in ([raw], bytewise(raw)):
        wire = Wire(Site(cors_origins=ORIGINS))
        wire.feed(raw, pieces)
        answer = wire.answer("OPTIONS")
        assert answer.status == 200
        assert said(answer) == READABLE | {
            "Access-Control-Allow-Methods": "POST",
            "Access-Control-Allow-Headers": "*, Authorization, Content-Type, Content-Encoding",
            "Access-Control-Max-Age": str(MAX_AGE_S),
        }
        assert not wire.is_ended()


def test_with_a_star_every_page_may_ask_but_without_credentials() -> None:
    answer = answered(preflight("https://anybody.example"), Site(cors_origins="*"), "OPTIONS")
    assert said(answer).items() >= READABLE_BY_ALL.items()
    assert "Access-Control-Allow-Credentials" not in answer.headers
    assert "Vary" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        "https://shop.example.evil",
        "http://shop.example",
        "https://shop.example:444",
        "null",
        "https://SHOP.example",
    ],
)
def test_a_page_that_is_not_named_is_refused(origin: str) -> None:
    answer = answered(preflight(origin), method="OPTIONS")
    assert (answer.status, answer.code) == (403, "origin_refused")
    assert answer.detail == "cors_origins does not name this origin"
    assert said(answer) == {}


def test_without_the_setting_nothing_is_said_of_origins() -> None:
    assert answered(preflight(), Site(), "OPTIONS").status == 405
    answer = answered(post(BODY, headers=[FROM_SHOP]), Site())
    assert (answer.status, said(answer)) == (200, {})


@pytest.mark.parametrize("lines", [["X: y"], ["Access-Control-Request-Headers: x"]])
def test_options_that_is_no_preflight_is_405(lines: list[str]) -> None:
    answer = answered(preflight(SHOP, "/v1/track", *lines), method="OPTIONS")
    assert answer.status == 405
    assert answer.headers["Access-Control-Allow-Origin"] == SHOP


def test_a_preflight_without_an_origin_is_405() -> None:
    assert answered(head("OPTIONS /v1/track HTTP/1.1", ASKS, auth=False), method="OPTIONS").status == 405


def test_a_preflight_for_an_unknown_target_is_404_and_for_a_page_names_its_methods() -> None:
    assert answered(preflight(SHOP, "/v1/nothing"), method="OPTIONS").status == 404
    answer = answered(preflight(SHOP, "/healthz"), method="OPTIONS")
    assert answer.headers["Access-Control-Allow-Methods"] == "GET, HEAD"


def test_preflights_pass_while_everything_else_is_refused() -> None:
    """By the limit of a key, for want of room on the disk, for a full ring: none of it is theirs."""
    site = Site(cors_origins=ORIGINS, ring_batches_max=1)
    site.hub.no_room = site.hub.overloaded("no room")
    assert answered(preflight(), site, "OPTIONS").status == 200
    assert answered(post(BODY), site).status == 429


def test_a_preflight_is_logged_and_counted_as_what_it_is() -> None:
    site = Site(cors_origins=ORIGINS)
    answered(preflight(), site, "OPTIONS")
    assert site.hub.traffic.answers == {("/v1/track", 200, ""): 1}


def test_a_preflight_and_its_request_go_over_one_connection_again_and_again() -> None:
    wire = Wire(Site(cors_origins=ORIGINS))
    for _ in range(4):
        wire.feed(preflight())
        wire.feed(post(BODY, headers=[FROM_SHOP]) * 2)
        wire.site.commit()
    answers = wire.answers(["OPTIONS", "POST", "POST"] * 4)
    assert [answer.status for answer in answers] == [200] * 12
    assert [said(answer) for answer in answers if "messageId" in answer.json] == [READABLE] * 8
    assert len(wire.site.lines) == 8


# -- answers ---------------------------------------------------------------------------------------

BAD: Final = {
    "no key": (head("POST /v1/track HTTP/1.1", [FROM_SHOP, "Content-Length: 1"], auth=False), 401),
    "bad event": (post(b"{}", headers=[FROM_SHOP]), 400),
    "bad gzip": (post(b"x" * 30, headers=[FROM_SHOP, "Content-Encoding: gzip"]), 400),
    "unknown coding": (post(BODY, headers=["Content-Encoding: br", FROM_SHOP]), 415),
    "unknown target": (post(BODY, "/v2", headers=[FROM_SHOP]), 404),
    "another method": (head("GET /v1/track HTTP/1.1", [FROM_SHOP]), 405),
    "too large": (post(b" " * 5000, headers=[FROM_SHOP]), 413),
    "too large by chunks": (
        head("POST /v1/track HTTP/1.1", [FROM_SHOP, "Transfer-Encoding: chunked"])
        + b"1388\r\n"
        + b" " * 5000,
        413,
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_an_error_can_be_read_by_the_page(name: str) -> None:
    raw, status = BAD[name]
    answer = answered(raw, Site(cors_origins=ORIGINS, body_bytes_max=4096))
    assert answer.status == status
    assert said(answer) == READABLE
    answer = answered(
        raw.replace(SHOP.encode(), b"https://evil.example"), Site(cors_origins=ORIGINS, body_bytes_max=4096)
    )
    assert answer.status == status
    assert said(answer) == {}


def test_a_429_and_when_to_come_again_can_be_read_by_the_page() -> None:
    site = Site(cors_origins=ORIGINS, inflight_bytes_max=1024)
    answer = answered(post(encoded(event(pad="x" * 2000)), headers=[FROM_SHOP]), site)
    assert answer.status == 429
    assert answer.headers["Retry-After"]
    assert said(answer) == READABLE


def test_a_timeout_and_failed_storage_can_be_read_by_the_page() -> None:
    site = Site(cors_origins=ORIGINS)
    wire, other = Wire(site), Wire(site)
    wire.feed(post(BODY, headers=[FROM_SHOP])[:-1])
    other.feed(post(BODY, headers=[FROM_SHOP]))
    site.commit(StorageError("no"))
    site.tick(61)
    assert (wire.answer().status, said(wire.answer())) == (408, READABLE)
    assert (other.answer().status, said(other.answer())) == (500, READABLE)


@pytest.mark.parametrize("origins", [ORIGINS, "*"])
def test_a_success_and_its_repeats_can_be_read_by_the_page(origins: str) -> None:
    wire = Wire(Site(cors_origins=origins))
    for target, body in (("/v1/track", BODY), ("/v1/bulk-track", b"[%b]" % BODY)):
        wire.feed(post(body, target, [FROM_SHOP]) * 3)
    wire.site.commit()
    assert [answer.status for answer in wire.answers()] == [200] * 6
    wanted = READABLE_BY_ALL if origins == "*" else READABLE
    assert [said(answer) for answer in wire.answers()] == [wanted] * 6


def test_who_is_beside_in_a_round_has_answers_of_its_own() -> None:
    """Bodies of one key are validated together, whoever sends them."""
    site = Site(cors_origins=ORIGINS)
    wires = {origin: Wire(site) for origin in (SHOP, "http://localhost:3000", "https://evil.example", "")}
    with site.one_round():
        for origin, wire in wires.items():
            wire.feed(post(BODY, headers=[f"Origin: {origin}"] if origin else []))
    site.commit()
    allowed = {origin: wire.answer().headers["Access-Control-Allow-Origin"] for origin, wire in wires.items()}
    assert allowed == {
        SHOP: SHOP,
        "http://localhost:3000": "http://localhost:3000",
        "https://evil.example": None,
        "": None,
    }
    assert len(site.lines) == 4


def test_the_last_answer_of_a_connection_can_be_read_too() -> None:
    answer = answered(post(BODY, headers=[FROM_SHOP, "Connection: close"]))
    assert answer.headers["Connection"] == "close"
    assert said(answer) == READABLE


def test_an_error_after_a_good_request_is_for_the_page_that_sent_it() -> None:
    """What is said of an origin is not carried over to who comes next on the connection."""
    wire = Wire(Site(cors_origins=ORIGINS))
    wire.feed(post(BODY, headers=[FROM_SHOP]))
    wire.site.commit()
    wire.feed(b"\x00nonsense\r\n\r\n")
    good, bad = wire.answers()
    assert (good.status, bad.status) == (200, 400)
    assert said(bad) == {}


def test_two_origins_are_one_too_many() -> None:
    answer = answered(post(BODY, headers=[FROM_SHOP, FROM_SHOP]))
    assert (answer.status, answer.code) == (400, "repeated_header")


# -- the setting -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origins",
    [
        "shop.example",
        "https://shop.example/",
        "https://shop.example/x",
        "null",
        "https://",
        "https://*.example",
        "a b",
    ],
)
def test_what_is_no_origin_is_named(origins: str) -> None:
    with pytest.raises(UsageError, match=r"^cors_origins: .* is no origin; say https://shop\.example"):
        Cors(f"{SHOP}, {origins}")


@pytest.mark.parametrize(
    "origin",
    [SHOP, "http://[::1]:8080", "http://127.0.0.1:5", "capacitor://localhost", "chrome-extension://abc"],
)
def test_origins_of_all_kinds_are_taken(origin: str) -> None:
    assert f"Access-Control-Allow-Origin: {origin}\r\n".encode() in Cors(origin).lines(origin.encode())
    assert Cors(origin).lines(b"https://another.example") == b""
    assert Cors("").lines(origin.encode()) == b""

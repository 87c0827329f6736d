"""Whose address the log tells: the peer's, or whom trusted proxies name, and never a stranger's word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.errors import UsageError
from ingestd.http.peers import Peers

PROXY = ("10.0.0.1", 4000)


@pytest.mark.parametrize(
    ("peername", "shown"),
    [
        (("192.0.2.1", 80), "192.0.2.1:80"),
        (("2001:db8::1", 80, 0, 0), "[2001:db8::1]:80"),
        ("", "unix"),
        (None, None),
    ],
)
def test_a_peer_is_shown_with_its_port(peername: object, shown: str | None) -> None:
    for trusted in ("", "10.0.0.0/8"):
        assert Peers(trusted).shown(peername, b"198.51.100.7") == shown
        assert Peers(trusted).shown(peername, b"") == shown


@pytest.mark.parametrize(
    ("forwarded", "shown"),
    [
        (b"198.51.100.7", "198.51.100.7"),
        (b",198.51.100.7", "198.51.100.7"),
        (b"198.51.100.7:1234", "198.51.100.7"),
        (b"2001:db8::7", "2001:db8::7"),
        (b"[2001:DB8::7]", "2001:db8::7"),
        (b"[2001:db8::7]:1234", "2001:db8::7"),
        (b"::ffff:198.51.100.7", "198.51.100.7"),
        # From the right, past those who are trusted.
        (b"1.1.1.1, 198.51.100.7", "198.51.100.7"),
        (b"198.51.100.7, 10.0.0.3 ,10.0.0.2", "198.51.100.7"),
        (b"evil, 198.51.100.7, 10.0.0.2", "198.51.100.7"),
        (b"10.0.0.9, 10.0.0.2", "10.0.0.9"),
        # What is no address tells nothing, nor does what stands before it.
        (b"198.51.100.7, unknown", "10.0.0.1:4000"),
        (b"198.51.100.7, unknown, 10.0.0.2", "10.0.0.2"),
        (b"unknown", "10.0.0.1:4000"),
        (b"", "10.0.0.1:4000"),
        (b" , ,", "10.0.0.1:4000"),
        (b"fe80::1%cAnArY", "fe80::1"),
        (b"300.1.1.1", "10.0.0.1:4000"),
        # RFC 7239.
        (b"for=198.51.100.7", "198.51.100.7"),
        (b"For=198.51.100.7;proto=https;by=10.0.0.1", "198.51.100.7"),
        (b'proto=https; for="[2001:db8::7]:4711"', "2001:db8::7"),
        (b"for=1.1.1.1, for=198.51.100.7, for=10.0.0.2;by=10.0.0.1", "198.51.100.7"),
        (b"for=_hidden", "10.0.0.1:4000"),
        (b"by=198.51.100.7", "10.0.0.1:4000"),
        (b'for="198.51.100.7', "198.51.100.7"),
    ],
)
def test_the_client_is_the_last_that_no_trusted_proxy_is(forwarded: bytes, shown: str) -> None:
    assert Peers("10.0.0.0/8").shown(PROXY, forwarded) == shown


def test_a_unix_socket_is_trusted_by_its_name() -> None:
    assert Peers("unix").shown("", b"198.51.100.7") == "198.51.100.7"
    assert Peers("unix").shown("", b"") == "unix"
    assert Peers("unix").shown(PROXY, b"198.51.100.7") == "10.0.0.1:4000"
    assert Peers("unix, 10.0.0.0/8").shown("", b"198.51.100.7, 10.0.0.2") == "198.51.100.7"


def test_a_proxy_on_ipv6_is_trusted_by_its_network() -> None:
    peers = Peers("2001:db8::/32,127.0.0.1")
    assert peers.shown(("2001:db8::1", 80, 0, 0), b"198.51.100.7") == "198.51.100.7"
    assert peers.shown(("::ffff:127.0.0.1", 80, 0, 0), b"198.51.100.7") == "198.51.100.7"
    assert peers.shown(("2001:db9::1", 80, 0, 0), b"198.51.100.7") == "[2001:db9::1]:80"


def test_an_endless_chain_is_not_followed() -> None:
    forwarded = b"198.51.100.7" + b",10.0.0.2" * 1000
    assert Peers("10.0.0.0/8").shown(PROXY, forwarded) == "10.0.0.2"


@pytest.mark.parametrize("text", ["10.0.0.1/8", "proxy.example", "10.0.0.0/33", "10.0.0.0/8;::1", "UNIX"])
def test_what_is_no_network_is_an_error_that_names_the_setting(text: str) -> None:
    with pytest.raises(UsageError, match=r"^trusted_proxies: .*10\.0\.0\.0/8"):
        Peers(text)


@given(st.binary(max_size=60) | st.text('0123456789abcdef.:,[]"=;for ', max_size=60).map(str.encode))
def test_only_an_address_is_ever_shown(forwarded: bytes) -> None:
    shown = Peers("10.0.0.0/8").shown(PROXY, forwarded)
    assert shown is not None
    assert set(shown) <= set("0123456789abcdef.:")

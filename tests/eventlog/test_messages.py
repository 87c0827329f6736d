"""Lines to messages, by templates, and the addresses of logs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestd.config import MESSAGE_HEAD_BYTES_MAX, Settings
from ingestd.errors import StorageError, UsageError
from ingestd.eventlog.address import address
from ingestd.eventlog.kafka import properties
from ingestd.eventlog.log import TooLarge, require_fitting
from ingestd.eventlog.messages import Messages

USUAL = Messages(Settings().message_key, Settings().message_headers)


def line(**fields: Any) -> bytes:
    return json.dumps({"messageId": "a", "source": "shop"} | fields).encode() + b"\n"


def test_as_the_settings_are() -> None:
    first, second = line(), line(messageId="b", source="é")
    assert USUAL.of(first + second) == [
        (first[:-1], "a", b"a", [("source", b"shop")]),
        (second[:-1], "b", b"b", [("source", "é".encode())]),
    ]


@pytest.mark.parametrize(
    ("template", "fields", "key"),
    [
        ("{userId}", {"userId": "u"}, b"u"),
        ("{userId}", {"userId": 7}, b"7"),
        ("{userId}", {"userId": None}, None),
        ("{userId}", {}, None),
        ("{userId}", {"userId": {"a": [1, True]}}, b'{"a":[1,true]}'),
        ("", {}, None),
        ("all", {}, b"all"),
        ("{source}/{userId}", {"userId": "u"}, b"shop/u"),
        ("{{{source}}}", {}, b"{shop}"),
        ("{user id}", {"user id": "odd"}, b"odd"),
        ("{userId}", {"userId": "é" * 600}, "é".encode() * 512),
        ("{userId}", {"userId": "x" + "é" * 600}, b"x" + "é".encode() * 511),
    ],
)
def test_a_template_takes_fields_of_the_event(template: str, fields: Any, key: bytes | None) -> None:
    (message,) = Messages(template, "").of(line(**fields))
    assert message.key == key
    assert message.headers == []


@pytest.mark.parametrize(
    ("key", "headers", "told"),
    [
        ("{userId", "", "message_key: '{userId'"),
        ("{userId!r}", "", "message_key: '{userId!r}': a field is {name}, as it is"),
        ("{userId:5}", "", "a field is {name}, as it is"),
        ("{}", "", "a field is {name}, as it is"),
        ("", "source", "message_headers: 'source': say name=text"),
        ("", "two words=x", "say name=text"),
        ("", "a=1,A=2", "each named once"),
        ("", "Nats-Msg-Id=x", "'Nats-Msg-Id' is a name with a meaning of its own"),
        ("", "messageid=x", "is a name with a meaning of its own"),
        ("", ",".join(f"h{n}=x" for n in range(9)), "up to 8 headers"),
    ],
)
def test_a_template_that_is_none_is_refused(key: str, headers: str, told: str) -> None:
    with pytest.raises(UsageError) as error:
        Messages(key, headers)
    assert told in str(error.value)


@pytest.mark.parametrize("message_id", ["a b", "é", "x" * 257, "a\r\nNats-Rollup: all", " ", "\0"])
def test_an_id_that_no_header_could_carry_is_told_by_its_digest(message_id: str) -> None:
    (message,) = USUAL.of(line(messageId=message_id))
    assert message.message_id == f"sha256:{hashlib.sha256(message_id.encode()).hexdigest()}"


@given(st.text(), st.text(), st.text())
def test_whatever_an_event_has_its_message_has_a_bound(message_id: str, user: str, source: str) -> None:
    messages = Messages("{userId}", ",".join(f"h{n}={{source}}" for n in range(8)))
    (message,) = messages.of(line(messageId=message_id, userId=user * 50, source=source * 50))
    assert message.size <= len(message.value) + MESSAGE_HEAD_BYTES_MAX
    assert json.loads(message.value)["messageId"] == message_id


def test_one_that_is_too_large_is_told_of_by_its_id() -> None:
    small, large = USUAL.of(line() + line(messageId="b", x="x" * 50_000))
    require_fitting([small], 40_000)
    with pytest.raises(TooLarge, match="the event 'b' makes a message of 50"):
        require_fitting([small, large], 40_000)


def test_a_line_that_is_no_event_is_an_error() -> None:
    with pytest.raises(StorageError, match="a line is no event"):
        USUAL.of(line() + b"{]\n")


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("kafka://a:1/t", "kafka://a:1/t"),
        ("kafka://a,b:2/my.topic_1-x", "kafka://a:9092,b:2/my.topic_1-x"),
        ("nats://a/events.web", "nats://a:4222/events.web"),
        ("nats://[::1]:5/events", "nats://[::1]:5/events"),
    ],
)
def test_a_log_is_named_by_a_url(url: str, clean: str) -> None:
    assert str(address(url, "--to")) == clean


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://a/t", "--to: say kafka://"),
        ("kafka://a:1", "name a topic"),
        ("kafka://a:1/", "name a topic"),
        ("kafka://a:1/..", "name a topic"),
        ("kafka://a:1/a/b", "name a topic"),
        (f"kafka://a:1/{'x' * 250}", "name a topic"),
        ("nats://a:1", "name a subject"),
        ("nats://a:1/a..b", "name a subject"),
        ("nats://a:1/a.*", "name a subject"),
        ("nats://a:1/>", "name a subject"),
        ("nats://a:1/$JS.x", "name a subject"),
        ("kafka:///t", "say HOST:PORT"),
        ("kafka://a:x/t", "say HOST:PORT"),
        ("kafka://a:70000/t", "say HOST:PORT"),
        ("kafka://a:1,,b:2/t", "say HOST:PORT"),
        ("kafka://user:secret-7b1f@a:1/t", "credentials come from the file that kafka_config_file names"),
        ("nats://secret-7b1f@a:1/t", "credentials come from NATS_CREDS"),
        ("nats://a:1/t?token=secret-7b1f", "credentials come from NATS_CREDS"),
    ],
)
def test_a_url_that_names_no_log_is_refused_with_what_would_be_right(url: str, told: str) -> None:
    with pytest.raises(UsageError) as error:
        address(url, "--to")
    assert told in str(error.value)
    assert "7b1f" not in str(error.value)


def test_properties_of_kafka_are_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "kafka.properties"
    path.write_text("# for the shipper\n\nsecurity.protocol = SASL_SSL\nsasl.password=a=b # c\n")
    assert properties(path) == {"security.protocol": "SASL_SSL", "sasl.password": "a=b # c"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sasl.password secret-7b1f\n", "line 1: say name=value"),
        ("a=b\nacks=1\n", "line 2: acks is ingestd's to set"),
        ("enable.idempotence=false\n", "is ingestd's to set"),
    ],
)
def test_properties_that_are_none_are_refused_without_being_quoted(
    text: str, told: str, tmp_path: Path
) -> None:
    path = tmp_path / "kafka.properties"
    path.write_text(text)
    with pytest.raises(UsageError) as error:
        properties(path)
    assert told in str(error.value)
    assert str(path) in str(error.value)
    assert "7b1f" not in str(error.value)


def test_a_file_of_properties_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="kafka_config_file: .*: No such file"):
        properties(tmp_path / "none")

"""The URL, and the names of objects: what is taken, what is refused, and that no secret is quoted."""

from __future__ import annotations

import pytest

from ingestd.config import Settings
from ingestd.errors import StorageError, UsageError
from ingestd.ship.destination import Template, destination

NAME = "20260102T030405.678Z-node-a.example-w0-000001"
DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/", "s3://bucket"),
        ("s3://bucket//a/b//", "s3://bucket/a/b"),
        ("gs://bucket/a", "gs://bucket/a"),
        ("az://container/a", "az://container/a"),
        ("file:///srv/events/", "file:///srv/events"),
    ],
)
def test_a_place_is_taken(url: str, clean: str) -> None:
    assert destination(url, {}).url == clean


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "--to URL, or ship_to"),
        ("bucket", "--to: say one of s3://…, gs://…, az://…, file://…"),
        ("http://bucket", "say one of s3://…"),
        ("s3://", "name a bucket"),
        ("s3:///prefix", "name a bucket"),
        ("s3://key:geheim@bucket", "credentials come from AWS_ACCESS_KEY_ID"),
        ("s3://bucket?key=geheim", "credentials come from AWS_ACCESS_KEY_ID"),
        ("az://container/a?sig=geheim", "credentials come from AZURE_STORAGE_ACCOUNT_NAME"),
        ("gs://bucket#geheim", "credentials come from GOOGLE_SERVICE_ACCOUNT"),
        ("file://srv/events", "by its whole path"),
        ("file:///", "by its whole path"),
        ("file:///a?geheim", "without a host"),
        ("s3://bucket/a/../b", "'.' and '..'"),
        ("file:///srv/./events", "'.' and '..'"),
    ],
)
def test_what_is_no_place_is_refused_with_what_would_be_right(url: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        destination(url, {})
    assert told in str(caught.value)
    assert "geheim" not in str(caught.value)


def test_an_endpoint_with_credentials_is_refused() -> None:
    with pytest.raises(UsageError, match="AWS_ENDPOINT_URL") as caught:
        destination("s3://bucket", {"AWS_ENDPOINT_URL": "http://key:geheim@host"})
    assert "geheim" not in str(caught.value)


def test_the_same_place_has_one_name_and_other_places_have_others() -> None:
    here = {"AWS_ENDPOINT_URL": "http://host:9000"}
    labels = [
        destination(url, environ).label
        for url, environ in (
            ("s3://bucket/a", {}),
            ("s3://bucket/a-b", {}),
            ("s3://bucket/a/b", {}),
            ("s3://bucket/a", here),
            ("gs://bucket/a", {}),
            ("s3://" + "b" * 200, {}),
            ("s3://" + "b" * 201, {}),
        )
    ]
    assert len(set(labels)) == len(labels)
    assert all(len(label) < 100 and "/" not in label for label in labels)
    again = destination("s3://bucket//a/", {"AWS_ENDPOINT_URL": "http://host:9000/"})
    assert again.label == destination("s3://bucket/a", here).label
    assert str(again) == "s3://bucket/a at http://host:9000"


def test_the_usual_name_keeps_date_and_hour() -> None:
    key = Template(Settings().ship_key).key(NAME, DIGEST)
    assert key == f"date=2026-01-02/hour=03/{NAME}-{DIGEST}.ndjson.zst"


def test_all_words_of_a_template() -> None:
    key = Template("a/{node}/{date}T{hour}/{name}/{sha256}.zst").key(NAME, DIGEST)
    assert key == f"a/node-a.example/2026-01-02T03/{NAME}/{DIGEST}.zst"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{date}/{sha256}", "{name} must be in it"),
        ("{date}/{name}", "{sha256} must be in it"),
        ("{name}-{sha256}-{year}", "the words are {date}, {hour}, {node}, {name}, {sha256}"),
        ("{name.__class__}-{sha256}", "the words are"),
        ("{name!r}-{sha256}", "the words are"),
        ("{name:>500}-{sha256}", "the words are"),
        ("{name}-{sha256}{", "ship_key"),
        ("/{name}-{sha256}", "single slashes"),
        ("a//{name}-{sha256}", "single slashes"),
        ("a/../{name}-{sha256}", "single slashes"),
        ("{name}-{sha256}/", "single slashes"),
        ("{name}\n{sha256}", "single slashes"),
        ("{name}#{sha256}", "without '#'"),
        ("_shipping/{name}-{sha256}", "large objects"),
    ],
)
def test_a_template_that_could_mix_things_up_is_refused(text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        Template(text)
    assert told in str(caught.value)


def test_a_name_that_no_store_takes_is_that_of_one_segment_only() -> None:
    with pytest.raises(StorageError, match="900 bytes"):
        Template("x" * 850 + "/{name}-{sha256}").key(NAME, DIGEST)

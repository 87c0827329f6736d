"""Sentences for what a store refuses: each names what would be right, and none passes on what is secret.

The texts are those of obstore, cut short; that the real store's are recognised is for test_faults.
"""

from __future__ import annotations

import pytest

from ingestd.ship.destination import KINDS, destination
from ingestd.ship.reasons import described

SECRET = "geheim4711"
S3 = destination("s3://bucket/a", {"AWS_ENDPOINT_URL": "https://host"})


def answer(status: str, code: str) -> str:
    """What obstore says of a refusal of S3."""
    return (
        f"Generic S3 error: Error performing PUT https://host/bucket/a?X-Amz-Signature={SECRET} in 1ms - "
        f"Server returned non-2xx status code: {status}: <?xml?><Error><Code>{code}</Code>"
        f"<AWSAccessKeyId>{SECRET}</AWSAccessKeyId><StringToSign>{SECRET}</StringToSign></Error>"
    )


def client(words: str) -> str:
    """What it says when there is no answer."""
    return f"Generic S3 error: PUT https://host/a?sig={SECRET} inner: Http(HttpError {{ {words} }})"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (answer("403 Forbidden", "InvalidAccessKeyId"), "AWS_ACCESS_KEY_ID"),
        (answer("403 Forbidden", "SignatureDoesNotMatch"), "AWS_SECRET_ACCESS_KEY"),
        (answer("400 Bad Request", "ExpiredToken"), "AWS_SESSION_TOKEN"),
        (answer("403 Forbidden", "RequestTimeTooSkewed"), "the clocks of this machine and the store"),
        (answer("403 Forbidden", "AccessDenied"), "put, get and delete objects below s3://bucket/a"),
        (answer("403 Forbidden", "SomethingElse"), "403 SomethingElse: see AWS_ACCESS_KEY_ID"),
        (answer("404 Not Found", "NoSuchBucket"), "no such bucket: make it"),
        (answer("404 Not Found", "Other"), "404 Other: is there such a bucket?"),
        (answer("301 Moved", "PermanentRedirect"), "AWS_REGION"),
        (answer("503 Slow Down", "SlowDown"), "fewer requests"),
        (answer("507 Insufficient Storage", "Other"), "it is full"),
        (answer("500 Internal Server Error", "InternalError"), "it has answered 500 InternalError"),
        (answer("500 Internal Server Error", "a b <c>"), "it has answered 500"),
        (
            "Error performing PUT http://169.254.169.254/latest/api/token",
            "there are no credentials: set AWS_",
        ),
        (
            client('kind: Connect, message: "Connection refused"'),
            "nobody listens at AWS_ENDPOINT_URL, https://host",
        ),
        (client('kind: Connect, "dns error"'), "the name of AWS_ENDPOINT_URL, https://host is not known"),
        (client("kind: Connect, InvalidCertificate(UnknownIssuer)"), "certificate of AWS_ENDPOINT_URL"),
        (client("kind: Connect, x"), "cannot be reached"),
        (client("kind: Request, x"), "the connection has failed"),
        (f"{SECRET}", "no more is known"),
    ],
)
def test_a_refusal_is_told_in_words_that_say_what_would_be_right(text: str, told: str) -> None:
    sentence = described(RuntimeError(text), S3)
    assert told in sentence
    assert SECRET not in sentence
    assert len(sentence) < 200


def test_errors_that_are_told_by_their_type() -> None:
    assert "ship_timeout_s" in described(TimeoutError(), S3)
    assert "see ship_to" in described(FileNotFoundError(SECRET), S3)


@pytest.mark.parametrize("scheme", KINDS)
def test_each_kind_of_store_is_told_of_by_its_own_variables(scheme: str) -> None:
    place = destination(f"{scheme}://{'' if scheme == 'file' else 'bucket'}/a", {})
    told = described(RuntimeError("status code: 403 Forbidden"), place)
    assert KINDS[scheme].credentials in told

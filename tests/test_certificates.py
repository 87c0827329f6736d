"""What is agreed with the clients of TLS, and mistakes in certificate files, named with setting and file."""

from __future__ import annotations

import shutil
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ingestd.config import Settings
from ingestd.errors import UsageError
from ingestd.service.certificates import Certificate, context, expiry
from tests.support import certificates
from tests.support.certificates import Pair


@pytest.fixture(name="pair", scope="module")
def _pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return certificates.make(tmp_path_factory.mktemp("tls"))


def settings(pair: Pair) -> Settings:
    return Settings(tls_cert_file=str(pair.cert), tls_key_file=str(pair.key))


def test_only_modern_tls_is_spoken(pair: Pair) -> None:
    made = context(settings(pair))
    assert made.minimum_version is ssl.TLSVersion.TLSv1_2
    assert made.options & ssl.OP_NO_RENEGOTIATION
    assert made.options & ssl.OP_NO_COMPRESSION
    assert not made.options & ssl.OP_NO_TICKET
    assert made.verify_mode is ssl.CERT_NONE
    for cipher in made.get_ciphers():
        assert cipher["aead"], cipher["name"]
        assert cipher["name"].startswith(("TLS_", "ECDHE-")), cipher["name"]


@pytest.mark.parametrize("days", [1, 30, 365 * 20, 365 * 60])
def test_the_end_of_a_certificate_is_read_from_it(tmp_path: Path, days: int) -> None:
    """From 2050 on it is spelled in another way."""
    made = certificates.make(tmp_path, days=days)
    end = expiry(made.cert.read_text())
    assert end is not None
    assert abs(end - datetime.now(UTC) - timedelta(days=days)) < timedelta(hours=1)


def test_a_chain_begins_with_the_server_s_own(pair: Pair, tmp_path: Path) -> None:
    other = certificates.make(tmp_path, "other", days=900)
    chain = Pair(tmp_path / "chain.crt", pair.key)
    chain.cert.write_text("a comment: é\n" + pair.cert.read_text() + other.cert.read_text())
    context(settings(chain))
    assert expiry(chain.cert.read_text()) == expiry(pair.cert.read_text())


def problem(cert: Path | str, key: Path | str) -> str:
    with pytest.raises(UsageError) as raised:
        context(Settings(tls_cert_file=str(cert), tls_key_file=str(key)))
    return str(raised.value)


def test_a_mistake_is_named_with_its_setting_and_file(pair: Pair, tmp_path: Path) -> None:
    other = certificates.make(tmp_path, "other")
    rsa = certificates.make(tmp_path, "rsa", "rsa")
    locked, text, gone = tmp_path / "locked.key", tmp_path / "text", tmp_path / "gone"
    certificates.openssl("ec", "-aes128", "-passout", "pass:abcd", "-in", pair.key, "-out", locked)
    text.write_text("no certificate")
    broken = tmp_path / "broken.key"
    broken.write_text(pair.key.read_text().replace("M", "A"))
    cert, key = pair.cert, pair.key
    assert problem("", "") == (
        "tls_cert_file: name a PEM file; tls: addresses need tls_cert_file and tls_key_file"
    )
    assert problem(cert, "").startswith("tls_key_file: name a PEM file; ")
    assert problem(gone, key) == f"tls_cert_file {gone}: No such file or directory"
    assert problem(cert, gone) == f"tls_key_file {gone}: No such file or directory"
    assert problem(tmp_path, key) == f"tls_cert_file {tmp_path}: Is a directory"
    for wrong in (text, key):
        assert problem(wrong, key) == f"tls_cert_file {wrong}: not a certificate in PEM"
    for wrong in (text, cert, broken):
        assert problem(cert, wrong) == f"tls_key_file {wrong}: not a private key in PEM"
    for wrong in (other.key, rsa.key):
        mismatch = f"tls_key_file {wrong}: not the key of the certificate in tls_cert_file {cert}"
        assert problem(cert, wrong) == mismatch
    assert problem(cert, locked) == f"tls_key_file {locked}: has a password; store the key without one"


def test_what_was_read_stays_until_something_better_can_be_read(pair: Pair, tmp_path: Path) -> None:
    used = Pair(tmp_path / "used.crt", tmp_path / "used.key")
    shutil.copy(pair.cert, used.cert)
    shutil.copy(pair.key, used.key)
    certificate = Certificate(settings(used))
    before = certificate.context
    used.cert.write_text("")
    with pytest.raises(UsageError, match=r"used\.crt: not a certificate"):
        certificate.reload()
    assert certificate.context is before
    shutil.copy(pair.cert, used.cert)
    certificate.reload()
    assert certificate.context is not before


def test_a_certificate_that_has_expired_is_a_warning(
    pair: Pair, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """openssl makes none, so its end is said to be another one."""
    monkeypatch.setattr("ingestd.service.certificates.expiry", lambda _: datetime(2025, 1, 1, tzinfo=UTC))
    Certificate(settings(pair))
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("text", ["", "no PEM", "\n".join([ssl.PEM_HEADER, "MAA=", ssl.PEM_FOOTER])])
def test_an_end_that_cannot_be_read_is_none(text: str) -> None:
    assert expiry(text) is None

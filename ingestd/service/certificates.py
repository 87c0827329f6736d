"""The certificate of tls: addresses, read at the start and at SIGHUP, and what is agreed with clients."""

from __future__ import annotations

import logging
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ingestd.config import Settings
from ingestd.errors import UsageError, tls_words

log = logging.getLogger("ingestd.tls")

_CIPHERS: Final = ":".join(
    f"ECDHE-{signed_with}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for signed_with in ("ECDSA", "RSA")
)
"""Of TLS 1.2, those of Mozilla's intermediate configuration (5.7) without its DHE, whose handshakes cost
the server most; all have forward secrecy. Those of TLS 1.3 are all good."""
_MISMATCHES: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")


class Certificate:
    """What the next connection shakes hands with."""

    def __init__(self, settings: Settings) -> None:
        """Raises UsageError."""
        self._settings = settings
        self.reload()

    def reload(self) -> None:
        """Read the files again. Raises UsageError, and then what was read before stays."""
        self.context = context(self._settings)
        path = self._settings.tls_cert_file
        expires = expiry(_read("tls_cert_file", path))
        fields = {"file": path, "expires": f"{expires:%Y-%m-%dT%H:%M:%SZ}" if expires else None}
        if expires is not None and expires < datetime.now(UTC):
            log.warning("the certificate has expired", extra={"fields": fields})
        else:
            log.info("certificate loaded", extra={"fields": fields})


def context(settings: Settings) -> ssl.SSLContext:
    """TLS as a server speaks it with these files. Raises UsageError that names the setting and the file."""
    cert_file, key_file = settings.tls_cert_file, settings.tls_key_file
    chain = _read("tls_cert_file", cert_file)
    _read("tls_key_file", key_file)
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    made.set_ciphers(_CIPHERS)
    # Sessions are resumed by tickets; a client may not start anew in the middle of a connection.
    made.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # Clients know whether they have AES in hardware.
    made.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    made.set_alpn_protocols(["http/1.1"])
    try:
        # Alone first, to know which of the files is wrong.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(cadata=chain)
    except (ssl.SSLError, ValueError):
        raise UsageError(f"tls_cert_file {cert_file}: not a certificate in PEM") from None
    try:
        made.load_cert_chain(cert_file, key_file, password=_refuse_password)
    except _EncryptedError:
        raise UsageError(f"tls_key_file {key_file}: has a password; store the key without one") from None
    except ssl.SSLError as e:
        if e.reason in _MISMATCHES:
            problem = f"not the key of the certificate in tls_cert_file {cert_file}"
        elif e.reason:
            problem = f"cannot be used with tls_cert_file {cert_file}: {tls_words(e)}"
        else:
            problem = "not a private key in PEM"
        raise UsageError(f"tls_key_file {key_file}: {problem}") from None
    return made


class _EncryptedError(Exception):
    """OpenSSL has asked for a password; by itself it would ask at the terminal."""


def _refuse_password() -> str:
    raise _EncryptedError


def _read(setting: str, path: str) -> str:
    """The text of a PEM file. Raises UsageError."""
    if not path:
        raise UsageError(f"{setting}: name a PEM file; tls: addresses need tls_cert_file and tls_key_file")
    try:
        return Path(path).read_bytes().decode("ascii", "ignore")
    except OSError as e:
        raise UsageError(f"{setting} {path}: {e.strerror}") from e


def expiry(pem: str) -> datetime | None:
    """When the first certificate ends to be valid: Python's ssl does not tell. None if it is an odd one."""
    try:
        first = pem[pem.index(ssl.PEM_HEADER) : pem.index(ssl.PEM_FOOTER) + len(ssl.PEM_FOOTER)]
        return _not_after(ssl.PEM_cert_to_DER_cert(first))
    except (ValueError, IndexError):
        return None


def _not_after(certificate: bytes) -> datetime:
    """RFC 5280 §4.1, as far as needed."""
    _, to_be_signed, _ = _element(certificate, _element(certificate, 0)[1])
    at = to_be_signed
    for _ in range(3 + (certificate[at] == 0xA0)):
        # The version, which may be absent; serial number, algorithm, issuer.
        at = _element(certificate, at)[2]
    _, not_before, _ = _element(certificate, at)
    kind, start, end = _element(certificate, _element(certificate, not_before)[2])
    text = certificate[start:end].decode()
    if kind == 0x17:
        # UTCTime has two digits for the year.
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)


def _element(der: bytes, at: int) -> tuple[int, int, int]:
    """The tag of the element at `at`, where its contents begin, and where they end."""
    size, start = der[at + 1], at + 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(der[at + 2 : start])
    return der[at], start, start + size

"""Lines to messages: key and headers come from fields of the event, as templates say.

A template is text in which `{field}` stands for a field of the event at its top: a string as it is,
anything else as JSON, and nothing where there is none. What is longer than a kilobyte is cut. A messageId
that is longer than 256 characters, or has others than those of printable ASCII, is told by its SHA-256.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from string import Formatter
from typing import Any, Final

import msgspec

from ingestd.errors import StorageError, UsageError
from ingestd.eventlog.log import Message

_VALUE_BYTES_MAX: Final = 1024
"""Of a key or a header's value: no message has more than MESSAGE_HEAD_BYTES_MAX beside its line."""
_HEADERS_MAX: Final = 8
_PLAIN: Final = re.compile(r"[!-~]{1,256}")
_HEADER: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
MESSAGE_ID: Final = "messageId"
_OURS: Final = (MESSAGE_ID.lower(), "nats-")
"""Names of headers that say something of their own."""


class Messages:
    """Makes messages as two templates say: that of the key, and those of the headers (`name=text`)."""

    def __init__(self, key: str, headers: str) -> None:
        """Raises UsageError that names the setting."""
        named = [part.strip() for part in headers.split(",") if part.strip()]
        self._names = [_header_name(part) for part in named]
        if len(set(map(str.lower, self._names))) < len(named) or len(named) > _HEADERS_MAX:
            raise UsageError(f"message_headers: {headers!r}: up to {_HEADERS_MAX} headers, each named once")
        texts = [key, *(part.partition("=")[2].strip() for part in named)]
        settings = ["message_key", *["message_headers"] * len(named)]
        parsed = [_parsed(text, setting) for text, setting in zip(texts, settings, strict=True)]
        fields = sorted({field for parts in parsed for _, field in parts if field} | {MESSAGE_ID})
        # A field may have any name, an attribute may not.
        place = {name: f"f{number}" for number, name in enumerate(fields)}
        attributes = [(place[name], Any, msgspec.field(default=None, name=name)) for name in fields]
        self._decoder = msgspec.json.Decoder(msgspec.defstruct("Told", attributes, gc=False))
        self._message_id = _text([("", MESSAGE_ID)], place)
        self._key, *self._values = [_text(parts, place) for parts in parsed]

    def of(self, lines: bytes) -> list[Message]:
        """The messages of a commit, a line each. Raises StorageError for a line that is no event."""
        decode, message_id, key, names, values = (
            self._decoder.decode, self._message_id, self._key, self._names, self._values,
        )  # fmt: skip
        out: list[Message] = []
        for line in lines.removesuffix(b"\n").split(b"\n"):
            try:
                told = decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as e:
                raise StorageError(f"a line is no event: {type(e).__name__}") from None
            headers = [(name, _cut(value(told))) for name, value in zip(names, values, strict=True)]
            out.append(Message(line, _safe(message_id(told)), _cut(key(told)) or None, headers))
        return out


def _header_name(part: str) -> str:
    name = part.partition("=")[0].strip()
    if not _HEADER.fullmatch(name) or "=" not in part:
        raise UsageError(f"message_headers: {part!r}: say name=text, such as source={{source}}")
    if name.lower().startswith(_OURS):
        raise UsageError(f"message_headers: {name!r} is a name with a meaning of its own")
    return name


def _parsed(text: str, setting: str) -> list[tuple[str, str]]:
    """Literal text and the field after it, in turn; "" where there is none."""
    try:
        found = list(Formatter().parse(text))
    except ValueError as e:
        raise UsageError(f"{setting}: {text!r}: {e}") from None
    for _, field, spec, how in found:
        if spec or how or (field is not None and not field):
            raise UsageError(f"{setting}: {text!r}: a field is {{name}}, as it is")
    return [(literal, field or "") for literal, field, _, _ in found]


def _text(parts: list[tuple[str, str]], place: dict[str, str]) -> Callable[[object], str]:
    """A function that fills in the fields."""
    if len(parts) == 1 and not parts[0][0]:
        attribute = place[parts[0][1]]

        def field(told: object) -> str:
            value = getattr(told, attribute)
            return value if type(value) is str else _as_text(value)

        return field

    def text(told: object) -> str:
        return "".join(
            literal + (_as_text(getattr(told, place[name])) if name else "") for literal, name in parts
        )

    return text


def _as_text(value: object) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()


def _safe(message_id: str) -> str:
    """The same for the same id, and another for any other: in NATS' headers not every character lasts."""
    if _PLAIN.fullmatch(message_id) or not message_id:
        return message_id
    return f"sha256:{hashlib.sha256(message_id.encode()).hexdigest()}"


def _cut(text: str) -> bytes:
    """In UTF-8, up to the bound; a character that it would part is left out."""
    data = text.encode()
    if len(data) <= _VALUE_BYTES_MAX:
        return data
    return data[:_VALUE_BYTES_MAX].decode(errors="ignore").encode()

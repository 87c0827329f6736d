"""The kinds of bodies that hold events: one, an array, or what is translated to an array first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from ingestd import analytics, ndjson, oddities, places
from ingestd.errors import Rejection

ABSENT: Final = Raw()


class _Object(Struct, gc=False):
    """An object whose members are skipped, not decoded."""


class Named(Struct, gc=False, kw_only=True):
    """What is read of an event besides its timestamp; other fields are kept without being read."""

    event: str
    properties: _Object
    messageId: str | UnsetType | None = UNSET
    receivedAt: Raw = ABSENT
    source: Raw = ABSENT


class Event(Named, gc=False, kw_only=True):
    """An event of the contract."""

    timestamp: oddities.Timestamp


class LooseEvent(Named, gc=False, kw_only=True):
    """An Event whose timestamp is judged by `oddities.is_rfc3339`: the slow way, for leap seconds."""

    timestamp: str


class Translation(NamedTuple):
    """How a body of another form becomes an array of events, and what is wrong gets its place there."""

    as_array: Callable[[bytes | bytearray, int], bytes]
    """Of the body, and when it was received. Raises Rejection (400)."""
    placed: Callable[[Rejection, bytes | bytearray], Rejection]
    """Of what is wrong with an event of the array, and the body."""


class Form:
    """The decoders for one kind of body: one event, an array of events, or what is translated to one."""

    __slots__ = ("answers_ids", "is_array", "loose", "translation", "typed")

    def __init__(
        self, *, is_array: bool, translation: Translation | None = None, answers_ids: bool = True
    ) -> None:
        def decoder(item: Any) -> msgspec.json.Decoder[Any]:
            return msgspec.json.Decoder(Annotated[list[item], Meta(min_length=1)] if is_array else item)

        self.answers_ids = answers_ids
        """The answer names the events that are kept."""
        self.is_array = is_array
        self.translation = translation
        self.typed = decoder(Event)
        self.loose = decoder(LooseEvent)


def _analytics(call: str) -> Form:
    """The form of one of Segment's calls."""
    member = "batch" if call == analytics.BATCH else None
    return Form(
        is_array=True,
        translation=Translation(
            lambda body, received_ms: analytics.as_array(body, call, received_ms),
            lambda rejection, _body: places.in_member(rejection, member),
        ),
        answers_ids=False,
    )


ONE: Final = Form(is_array=False)
MANY: Final = Form(is_array=True)
LINES: Final = Form(
    is_array=True, translation=Translation(lambda body, _: ndjson.as_array(body), places.on_its_line)
)
"""Of an array whose events stand on lines of their own instead."""
ANALYTICS: Final = {call: _analytics(call) for call in analytics.CALLS}
"""The calls of Segment's API."""

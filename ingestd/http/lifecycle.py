"""The life of a connection, as a table: what it is doing, what happens, what it does next.

The table is about reading: answers leave in their own time, in the order of their requests, and
may be owed in every state but CLOSED.
"""

from __future__ import annotations

from typing import Final

IDLE: Final = "idle"
"""Between requests."""
HEAD: Final = "head"
"""A request line and headers arrive."""
BODY: Final = "body"
"""The head has passed; the body arrives."""
WAIT: Final = "wait"
"""The body is not read on until there is room in the budget of bytes in flight."""
CLOSING: Final = "closing"
"""No further request is read; answers are still owed. What arrives is thrown away."""
DRAIN: Final = "drain"
"""The last answer is written and our side is shut; what arrives is thrown away, within bounds, so
that the client gets to read the answer (RFC 9112 §9.6)."""
CLOSED: Final = "closed"
"""Nothing is read or written any more."""

READING: Final = frozenset((IDLE, HEAD, BODY, WAIT))
"""In these, what arrives is looked at."""
STATES: Final = (IDLE, HEAD, BODY, WAIT, CLOSING, DRAIN, CLOSED)

BEGIN: Final = "begin"
"""The first byte of a request."""
ACCEPT: Final = "accept"
"""The head has passed every check."""
STARVE: Final = "starve"
"""There is no room for the body."""
GRANT: Final = "grant"
"""There is room again."""
COMPLETE: Final = "complete"
"""The request is whole, and another may follow."""
LAST: Final = "last"
"""No request will follow: the client or the server said so, or an error is answered."""
ANSWERED: Final = "answered"
"""The last answer is written."""
END: Final = "end"
"""The connection is lost, closed or aborted."""

EVENTS: Final = (BEGIN, ACCEPT, STARVE, GRANT, COMPLETE, LAST, ANSWERED, END)

NEXT: Final = {
    (IDLE, BEGIN): HEAD,
    (IDLE, LAST): CLOSING,
    (HEAD, ACCEPT): BODY,
    (HEAD, LAST): CLOSING,
    (BODY, STARVE): WAIT,
    (BODY, COMPLETE): IDLE,
    (BODY, LAST): CLOSING,
    (WAIT, GRANT): BODY,
    (WAIT, COMPLETE): IDLE,
    (WAIT, LAST): CLOSING,
    (CLOSING, LAST): CLOSING,
    (CLOSING, ANSWERED): DRAIN,
    (IDLE, END): CLOSED,
    (HEAD, END): CLOSED,
    (BODY, END): CLOSED,
    (WAIT, END): CLOSED,
    (CLOSING, END): CLOSED,
    (DRAIN, END): CLOSED,
    (CLOSED, END): CLOSED,
}
"""Whatever is not in the table cannot happen, and a test tries each pair."""


def diagram() -> str:
    """The table as a Mermaid state diagram, for docs/."""
    arrows = [f"    {state} --> {after}: {event}" for (state, event), after in NEXT.items() if state != after]
    return "\n".join(["stateDiagram-v2", f"    [*] --> {IDLE}", *arrows, f"    {CLOSED} --> [*]"])

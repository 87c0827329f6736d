"""Logs: one line per happening on stderr, as text or as JSON, for people and for journald.

A line has a message and, where they help, fields: `log.info("…", extra={"fields": {…}})`. Nothing in
it can break it in two or colour a terminal. What an exception says may quote what it stumbled over,
which may be an event: of a bug the log tells the type and the place, and no more.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
import traceback
from types import TracebackType
from typing import Any, Final

from ingestd.config import LogFormat, Settings
from ingestd.errors import StorageError, UsageError
from ingestd.events import rfc3339_ms
from ingestd.sampling import Sampler
from ingestd.service.logwriter import Writer

log = logging.getLogger("ingestd")

_STDERR: Final = 2
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""syslog's numbers, which journald takes from the front of a line (sd-daemon(3))."""
_TALKATIVE: Final = (
    OSError, StorageError, UsageError, MemoryError, RecursionError, TypeError, AttributeError, NameError,
    ImportError,
)  # fmt: skip
"""Exceptions that speak of files, types and names, never of a value."""
_FRAMES_MAX: Final = 12
_MESSAGE_CHARS_MAX: Final = 2000
_VALUE_CHARS_MAX: Final = 500
_PLAIN_VALUE: Final = re.compile(r'[^\s"=\\]+')


class Lines(logging.Formatter):
    """Makes the line of a record."""

    def __init__(
        self, form: LogFormat, worker: int | None = None, *, in_journal: bool = False, shows_time: bool = True
    ) -> None:
        """`in_journal`: journald gets the level as a number, and knows the time itself."""
        super().__init__()
        self._is_json = form == "json"
        self._worker = worker
        self._in_journal = in_journal
        self._shows_time = shows_time and not in_journal

    def format(self, record: logging.LogRecord) -> str:
        # uvloop adds lines that show what it was busy with, exceptions and their words included.
        message = record.getMessage() if record.name != "asyncio" else record.getMessage().partition("\n")[0]
        message = _cut(message, _MESSAGE_CHARS_MAX)
        fields: dict[str, Any] = {**getattr(record, "fields", {}), **_of_exception(record)}
        fields = {
            name: _cut(value, _VALUE_CHARS_MAX) if isinstance(value, str) else value
            for name, value in fields.items()
            if value is not None
        }
        line = self._json(record, message, fields) if self._is_json else self._text(record, message, fields)
        return f"<{_priority(record.levelno)}>{line}" if self._in_journal else line

    def _text(self, record: logging.LogRecord, message: str, fields: dict[str, Any]) -> str:
        at = f"{_time(record)} " if self._shows_time else ""
        who = "" if self._worker is None else f"[w{self._worker}]"
        pairs = "".join([f" {name}={_value(value)}" for name, value in fields.items()])
        return f"{at}{record.levelname} {record.name}{who}: {_printable(message)}{pairs}"

    def _json(self, record: logging.LogRecord, message: str, fields: dict[str, Any]) -> str:
        told: dict[str, Any] = {"time": _time(record)} if self._shows_time else {}
        told |= {"level": record.levelname.lower(), "logger": record.name}
        if self._worker is not None:
            told["worker"] = self._worker
        # ASCII only, so all that could act on a terminal or break the line is escaped.
        return json.dumps({**told, "message": message, **fields}).replace("\x7f", "\\u007f")


def _time(record: logging.LogRecord) -> str:
    return rfc3339_ms(int(record.created * 1000)).decode()


def _priority(level: int) -> int:
    return next((priority for least, priority in _PRIORITIES if level >= least), 7)


def _cut(text: str, chars_max: int) -> str:
    return text if len(text) <= chars_max else f"{text[: chars_max - 1]}…"


def _value(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if text.isprintable() and _PLAIN_VALUE.fullmatch(text):
        return text
    return '"{}"'.format(_printable(text.replace("\\", "\\\\").replace('"', '\\"')))


def _printable(text: str) -> str:
    """Without line breaks, control characters, and those that turn the direction of what follows."""
    if text.isprintable():
        return text
    return "".join([c if c.isprintable() else _escaped(c) for c in text])


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1] if character != "\x7f" else "\\u007f"


def _of_exception(record: logging.LogRecord) -> dict[str, str]:
    """The type of an exception, its words where they are harmless, and its way, innermost call first."""
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return {}
    words = f": {error}" if isinstance(error, _TALKATIVE) else ""
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES_MAX:]
    calls = [f"{_short(frame.filename)}:{frame.lineno} {frame.name}" for frame in reversed(frames)]
    return {"error": type(error).__name__ + words, "trace": " < ".join(calls)}


def _place(error: BaseException) -> str:
    """What was raised, and where."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{type(error).__name__} {trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""


def _short(path: str) -> str:
    return "/".join(path.split("/")[-2:])


class Handler(logging.Handler):
    """Writes lines to stderr. A bug that happens again and again is told of once a second."""

    def __init__(self, lines: Lines, *, has_thread: bool, is_for_machines: bool) -> None:
        super().__init__()
        self.setFormatter(lines)
        self.is_for_machines = is_for_machines
        self._writer = Writer(_STDERR, self._lost, has_thread=has_thread)
        self._bugs = Sampler(0)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            if record.exc_info and record.exc_info[1] is not None:
                kind = f"{record.pathname}:{record.lineno} {_place(record.exc_info[1])}"
                if not self._bugs.passes(kind, time.monotonic()):
                    return
                left_out = self._bugs.left_out.pop(kind, None)
                record.fields = {**getattr(record, "fields", {}), "left_out": left_out}
            line = self._line(record)
        except Exception as e:
            # Python would print the record with all that is in it.
            line = self._line(_record(logging.ERROR, f"a line cannot be made: {type(e).__name__}"))
        self._writer.put(line)

    def _line(self, record: logging.LogRecord) -> bytes:
        return self.format(record).encode(errors="replace") + b"\n"

    def _lost(self, count: int) -> bytes:
        return self._line(_record(logging.WARNING, f"{count} lines were lost: stderr did not take them"))

    def flush(self) -> None:
        """Wait, but not for ever, until what was put is written."""
        self._writer.flush()


def _record(level: int, message: str) -> logging.LogRecord:
    return logging.LogRecord("ingestd.logs", level, "", 0, message, None, None)


def in_journal() -> bool:
    """True if stderr is what journald has connected (systemd.exec(5), JOURNAL_STREAM)."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        status = os.fstat(_STDERR)
    except OSError:
        return False
    return (device, inode) == (str(status.st_dev), str(status.st_ino))


def begin(settings: Settings | None = None, worker: int | None = None) -> None:
    """Log to stderr; a server as its settings say, and its workers with their numbers."""
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if isinstance(handler, Handler)]:
        root.removeHandler(old)
        old.flush()
    is_server, settings = settings is not None, settings or Settings()
    lines = Lines(settings.log_format, worker, in_journal=in_journal(), shows_time=is_server)
    is_for_machines = in_journal() or settings.log_format == "json"
    # A command's lines are few, and must not come after what it prints.
    root.addHandler(Handler(lines, has_thread=is_server, is_for_machines=is_for_machines))
    root.setLevel(settings.log_level.upper())
    if is_server:
        _catch_bugs()
    # Nobody asks for these, and each line would pay for them.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False


def is_for_machines() -> bool:
    """True if the log is read by journald or as JSON: what is meant for people has no place in it."""
    handlers = logging.getLogger().handlers
    return any(handler.is_for_machines for handler in handlers if isinstance(handler, Handler))


def complain(error: Exception) -> None:
    """Say why a command ends: to people as it is, else as a line of the log."""
    if is_for_machines():
        log.error("%s", error)
    else:
        print(f"ingestd: {_printable(str(error))}", file=sys.stderr)


def _catch_bugs() -> None:
    """What nobody else has caught becomes a line too."""

    def uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        log.critical("bug: the process ends", exc_info=(kind, error, trace))

    def in_thread(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_value is not None:
            what = (arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
            log.critical("bug: a thread has ended", exc_info=what)

    def unraisable(arguments: sys.UnraisableHookArgs) -> None:
        if arguments.exc_value is not None:
            what = (arguments.exc_type, arguments.exc_value, arguments.exc_traceback)
            log.error("bug: where nobody could hear of it", exc_info=what)

    sys.excepthook = uncaught
    threading.excepthook = in_thread
    sys.unraisablehook = unraisable
    logging.captureWarnings(True)

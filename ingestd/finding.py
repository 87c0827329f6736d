"""The command `find`: what it takes, what it prints, how it exits."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

import msgspec

from ingestd.errors import UsageError
from ingestd.progress import Progress
from ingestd.storage.disk import Disk
from ingestd.storage.find import Found, Search
from ingestd.storage.receipts import Receipt
from ingestd.storage.segment import invalid_directory

_HELP: Final = """\
Tells where an event is: by the receipt of its answer (the header Ingest-Receipt), by its messageId, or by
both. The line of each event that is found goes to standard output, where it stands to standard error.
A receipt stands for all events that were committed together, of whichever requests. Of sealed segments the
index and few frames are read; open ones, and those sealed before there was an index, are read as a whole.
An event that was set aside as invalid is found as well, as 'ingestd cat --quarantine' shows it.

--json prints one object a line instead:
  path, segment    the file, and the name of the segment
  line             of the segment, from 1, as 'zstd -dc FILE' shows it
  commit, receipt  which commit it came with; null where that is not known
  event            the event as it is stored

Exit status 0: found; 1: not found; 2: usage; 3: the segment of the receipt is not here, because it has
expired, was taken away, or is of another data directory; 4: not found, but not all could be read."""

FOUND, NOT_FOUND, UNKNOWN_SEGMENT, NOT_ALL_READ = 0, 1, 3, 4
"""Exit statuses."""


def add_command(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Tell the parser what it takes."""
    find = commands.add_parser(
        "find",
        help="tell where an event is, by its receipt or its messageId",
        description=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    find.add_argument("data_dirs", nargs="+", type=Path, metavar="DIR")
    find.add_argument("--receipt", metavar="R", help="the Ingest-Receipt of the 200")
    find.add_argument("--message-id", metavar="M", type=_utf8, help="the messageId, exactly")
    find.add_argument("--json", action="store_true", help="print one JSON object for each event")


def _utf8(argument: str) -> str:
    """As ids are; argparse tells of the ValueError."""
    argument.encode()
    return argument


def run(args: argparse.Namespace) -> int:
    """Returns the exit status. Raises UsageError, StorageError."""
    if args.receipt is None and args.message_id is None:
        raise UsageError("say what to find: --receipt R, --message-id M, or both")
    receipt = None if args.receipt is None else Receipt.parsed(args.receipt)
    progress, problems = Progress(sys.stderr), 0

    def say(text: str) -> None:
        progress.clear()
        print(f"ingestd: {text}", file=sys.stderr)

    def problem(text: str) -> None:
        nonlocal problems
        problems += 1
        say(text)

    directories = [one for data_dir in args.data_dirs for one in (data_dir, invalid_directory(data_dir))]
    search = Search(Disk(), directories, problem, progress)
    if receipt is None:
        found = search.by_message_id(args.message_id)
    elif search.files(receipt.segment):
        found = search.by_receipt(receipt)
    elif problems:
        return NOT_ALL_READ
    else:
        say(f"{receipt}: its segment is not here: expired, taken away, or of another data directory")
        return UNKNOWN_SEGMENT
    count = 0
    for event in found:
        if args.message_id is None or event.has(args.message_id):
            count += 1
            if not args.json:
                say(
                    f"{event.path}: line {event.line}"
                    + (f", receipt {event.receipt}" if event.receipt else "")
                )
            sys.stdout.buffer.write((_as_json(event) if args.json else event.event) + b"\n")
    if search.segments_unindexed:
        say(f"read as a whole, for they were sealed without an index: {search.segments_unindexed} segments")
    if not count:
        say("not found" + (" in what could be read" if problems else ""))
    progress.clear()
    return FOUND if count else NOT_ALL_READ if problems else NOT_FOUND


def _as_json(found: Found) -> bytes:
    return msgspec.json.encode(
        {
            "path": str(found.path).encode(errors="backslashreplace").decode(),
            "segment": found.segment,
            "line": found.line,
            "commit": found.commit,
            "receipt": found.receipt,
            "event": msgspec.Raw(found.event),
        }
    )

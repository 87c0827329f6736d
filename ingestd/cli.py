"""The commands: serve, key, cat, find, verify, ship.

Exit 0 if all is well, 1 if something is wrong, 2 for usage; `find` has more.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from ingestd import __version__, config, finding, keys, shipping
from ingestd.errors import StorageError, UsageError
from ingestd.progress import Progress
from ingestd.service import keyfile, logs, supervisor
from ingestd.storage import reader
from ingestd.storage.disk import Disk
from ingestd.storage.repeats import distinct
from ingestd.storage.segment import invalid_directory
from ingestd.storage.verify import Note, Problem, Verdict, verify

_SERVE_HELP = """\
Takes events over HTTP and answers 200 when they are on disk. With no key in the data directory
yet, one named 'default' is made and printed once, with a curl line that works.

A flag wins over an environment variable, that over a line of the --config file (body_bytes_max = …),
that over the default."""

_VERIFY_HELP = """\
Checks every frame, chain and digest of a data directory, and counts every line. A line is printed
for each problem and each note, and one for the sum. A terminal sees the progress.

--json prints one object for machines:
  ok                                 true if there is no problem
  segments, sealed, open             segments, and how many of them are sealed and open
  commits, events, content_bytes     what is good: commits, lines, and their bytes
  stored_bytes                       bytes of the segments as they are on disk
  torn_files, quarantined_files      what recovery has put aside
  sources                            segments and events of each node and worker, as the names tell
  problems, notes                    objects of a path and a problem, or a note
  invalid                            the same of the events that were set aside (ingestd cat --quarantine)

Exit status 0: all that is stored is whole; 1: what is not has been printed; 2: no data directory."""

_OUTPUT_BYTES = 1024 * 1024
"""Written at once; a pipe or a disk takes a megabyte as gladly as a line."""


def _parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="ingestd",
        description="HTTP events in, durable zstd NDJSON segments out.",
        epilog="Start with: ingestd serve",
    )
    parser.add_argument("--version", action="version", version=f"ingestd {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    serve = commands.add_parser(
        "serve", help="run the server", description=_SERVE_HELP, epilog=_defaults(), formatter_class=raw
    )
    serve.add_argument("--config", type=Path, metavar="FILE", help="settings in TOML, by their names")
    serve.add_argument(
        "--listen",
        action="append",
        metavar="ADDRESS",
        help="HOST:PORT, tls:HOST:PORT or unix:PATH; may stand several times (127.0.0.1:8080)",
    )
    serve.add_argument("--admin", metavar="ADDRESS", help="the same for /metrics and probes (none)")
    serve.add_argument("--data-dir", metavar="DIR", help="where keys and segments live (./data)")
    serve.add_argument("--workers", metavar="N", help="worker processes (one per core)")
    serve.add_argument(
        "--ship", action="store_true", help="run 'ingestd ship' beside it, to where ship_to says"
    )
    serve.add_argument(
        "--ack",
        metavar="LEVEL",
        help="what a 200 means: 'fsync', on stable storage (the default); 'write', survives the end of "
        "the process; 'memory', in the queue; 'replicated', a log of several machines has it",
    )

    _add_key_commands(commands)

    cat = commands.add_parser(
        "cat",
        help="print stored events as NDJSON",
        description="Prints the events of data directories or segment files as NDJSON, one event a line, "
        "open segments included. Exit status 1: some of it could not be read, and was named.",
    )
    cat.add_argument("paths", nargs="+", type=Path, metavar="DIR|FILE")
    cat.add_argument(
        "--quarantine",
        action="store_true",
        help="of the directories, what was set aside instead: the invalid events of requests with "
        "on_invalid=skip, each with the reason",
    )
    cat.add_argument(
        "--dedup",
        action="store_true",
        help="each messageId once, as far as ten million of them reach back; tells how many were left out",
    )
    cat.add_argument("-f", "--follow", action="store_true", help="go on with what is added")

    finding.add_command(commands)

    verify = commands.add_parser(
        "verify",
        help="check every frame, chain and digest, and count every line",
        description=_VERIFY_HELP,
        formatter_class=raw,
    )
    verify.add_argument("data_dir", type=Path, metavar="DIR")
    verify.add_argument("--json", action="store_true", help="print one JSON object instead of lines")
    shipping.add_command(commands)
    return parser


def _add_key_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    key = commands.add_parser("key", help="make, list, limit and revoke API keys")
    actions = key.add_subparsers(dest="action", required=True, metavar="ACTION")
    for action, text in (
        ("add", "make a key and print it, for the only time"),
        ("list", "names, dates and limits of the keys; the keys themselves are not kept"),
        ("limit", "change limits of a key; what is not given stays, 'none' takes a limit away"),
        ("revoke", "make a key worthless; a running server follows within about a second"),
    ):
        sub = actions.add_parser(action, help=text, description=text)
        if action != "list":
            sub.add_argument("name", metavar="NAME", help="becomes the 'source' of the key's events")
        if action == "add":
            sub.add_argument(
                "--public",
                action="store_true",
                help="it may stand in a page: taken from ?key= as well; needs both limits",
            )
        if action in ("add", "limit"):
            sub.add_argument("--events-per-s", metavar="N", help="events a second, all workers together")
            sub.add_argument("--requests-per-s", metavar="N", help="requests a second")
            sub.add_argument(
                "--burst-s", metavar="S", help="how many seconds' worth of either may be taken at once (1)"
            )
        sub.add_argument("--data-dir", metavar="DIR", help="the server's data directory (./data)")
        sub.add_argument(
            "--config", type=Path, metavar="FILE", help="the server's settings, for its data_dir"
        )


def _defaults() -> str:
    """All settings as environment variables with their defaults; README.md has their meanings."""
    fields = msgspec.structs.fields(config.Settings)
    width = max(len(field.name) for field in fields) + len(config.ENV_PREFIX)
    shown = ['""' if field.default == "" else field.default for field in fields]
    lines = [
        f"  {config.ENV_PREFIX + field.name.upper():<{width}}  {default}"
        for field, default in zip(fields, shown, strict=True)
    ]
    return "\n".join(["settings and their defaults (README.md says what each means):", *lines])


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    args = _parser().parse_args(argv)
    logs.begin()
    commands = {"serve": _serve, "key": _key, "cat": _cat, "find": _find, "verify": _verify, "ship": _ship}
    command = commands[args.command]
    try:
        status = command(args)
        sys.stdout.flush()
        return status
    except UsageError as e:
        logs.complain(e)
        return 2
    except StorageError as e:
        logs.complain(e)
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as e:
        # What Disk does not see: standard output, and paths that cannot even be looked at. What is
        # left in the buffer goes nowhere, or Python would complain about it once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(e, BrokenPipeError):
            # The reader has what it wanted, as in `ingestd cat data | head`.
            return 0
        print(f"ingestd: {f'{e.filename}: ' if e.filename else ''}{e.strerror}", file=sys.stderr)
        return 1


def _settings(args: argparse.Namespace, *names: str, config_file: Path | None = None) -> config.Settings:
    """The settings, with the flags of these names over the rest."""
    flags = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    settings = config.load(flags, os.environ, config_file)
    data_dir = Path(settings.data_dir)
    if data_dir.exists() and not data_dir.is_dir():
        raise UsageError(f"{data_dir}: not a directory; --data-dir names one")
    return settings


def _serve(args: argparse.Namespace) -> int:
    args.listen = ",".join(args.listen) if args.listen else None
    names = ("listen", "admin", "data_dir", "workers", "ack")
    settings = _settings(args, *names, config_file=args.config)
    if args.ship:
        # A shipper that can never begin had better be known before there is a server.
        shipping.check(settings, os.environ)
    return supervisor.serve(settings, ships=args.ship)


def _key(args: argparse.Namespace) -> int:
    disk, data_dir = Disk(), Path(_settings(args, "data_dir", config_file=args.config).data_dir)
    if args.action == "add":
        print(keyfile.add(disk, data_dir, args.name, _limits(args), public=args.public))
    elif args.action == "limit":
        limits = _limits(args)
        if not limits:
            raise UsageError(f"say what to change: {', '.join(map(_flag, keys.LIMITS))}")
        keyfile.limit(disk, data_dir, args.name, limits)
    elif args.action == "revoke":
        keyfile.revoke(disk, data_dir, args.name)
    else:
        for key in keyfile.load(disk, data_dir):
            made, digest = f"created {key.created:%Y-%m-%d}", f"sha256 {key.sha256[:12]}…"
            print(f"{key.name}\t{made}\t{digest}\t{keys.limits_line(key)}")
    return 0


def _limits(args: argparse.Namespace) -> dict[str, float | None]:
    """The limits that are given, by their names in keys.toml."""
    given = {name: getattr(args, name) for name in keys.LIMITS}
    return {n: keys.limit_of(text, n, _flag(n)) for n, text in given.items() if text is not None}


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _cat(args: argparse.Namespace) -> int:
    failed = False

    def problem(text: str) -> None:
        nonlocal failed
        failed = True
        print(f"ingestd: {text}", file=sys.stderr)

    for path in args.paths:
        if not path.exists():
            raise UsageError(f"{path}: no such file or directory")
        if path.is_dir():
            _require_segments(path)
    paths = args.paths
    if args.quarantine:
        paths = [invalid_directory(path) if path.is_dir() else path for path in paths]
    contents = reader.cat(Disk(), paths, args.follow, problem)
    if args.dedup:
        contents = distinct(contents, lambda text: print(f"ingestd: {text}", file=sys.stderr))
    with open(sys.stdout.fileno(), "wb", _OUTPUT_BYTES, closefd=False) as out, closing(contents):
        for lines in contents:
            out.write(lines)
            if args.follow:
                out.flush()
    return int(failed)


def _find(args: argparse.Namespace) -> int:
    for data_dir in args.data_dirs:
        _require_data(data_dir)
    return finding.run(args)


def _verify(args: argparse.Namespace) -> int:
    _require_data(args.data_dir)
    progress = Progress(sys.stderr)

    def say(finding: Problem | Note) -> None:
        if not args.json:
            progress.clear()
            print(finding)

    verdict = verify(Disk(), args.data_dir, say, progress)
    invalid = verify(Disk(), invalid_directory(args.data_dir), say, progress)
    progress.clear()
    is_ok = verdict.ok and invalid.ok
    if args.json:
        found = {"ok": is_ok, **msgspec.to_builtins(verdict), "invalid": msgspec.to_builtins(invalid)}
        print(msgspec.json.encode(found).decode())
    else:
        print(_sum(verdict))
        if invalid.segments:
            print(f"set aside as invalid: {_sum(invalid)}")
    return int(not is_ok)


def _sum(verdict: Verdict) -> str:
    return (
        f"{verdict.segments} segments, {verdict.commits} commits, {verdict.events} events, "
        f"{len(verdict.problems)} problems"
    )


def _require_data(data_dir: Path) -> None:
    if not data_dir.is_dir():
        raise UsageError(f"{data_dir}: no such directory")
    _require_segments(data_dir)


def _ship(args: argparse.Namespace) -> int:
    # It brings obstore, and what it listens with; no other command needs them.
    from ingestd.ship import process

    args.ship_to, args.ship_admin = args.to, args.admin
    args.ship_dedup_s = None if args.dedup is None else config.seconds(args.dedup, "--dedup")
    names = ("data_dir", "ship_to", "ship_admin", "ship_dedup_s")
    settings = _settings(args, *names, config_file=args.config)
    _require_segments(Path(settings.data_dir))
    return process.ship(settings, is_once=args.once, until_eof=args.until_eof)


def _require_segments(data_dir: Path) -> None:
    """Finding nothing in the wrong directory must not look like all being well."""
    if not (data_dir / "segments").is_dir() and not (data_dir / "open").is_dir():
        raise UsageError(f"{data_dir}: neither 'segments' nor 'open' is in it; name a data directory")

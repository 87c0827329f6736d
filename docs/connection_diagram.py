"""Writes docs/connection.md's diagram from the table of states; `--check` only compares."""

from __future__ import annotations

import sys
from pathlib import Path

from marked import rewrite

from ingestd.http import lifecycle

PAGE = Path(__file__).with_name("connection.md")


def main(arguments: list[str]) -> int:
    """Rewrite the page between the markers; with `--check`, exit 1 if that would change it."""
    diagram = f"```mermaid\n{lifecycle.diagram()}\n```"
    return rewrite(PAGE, "connection", "ingestd/http/lifecycle.py", diagram, arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

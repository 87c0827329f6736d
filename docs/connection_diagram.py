"""Writes docs/connection.md's diagram from the table of states; `--check` only compares."""

from __future__ import annotations

import sys
from pathlib import Path

from ingestd.http import lifecycle

PAGE = Path(__file__).with_name("connection.md")
BEGIN = "<!-- connection: made by `make docs` from ingestd/http/lifecycle.py -->"
END = "<!-- end of connection -->"


def main(arguments: list[str]) -> int:
    """Rewrite the page between the markers; with `--check`, exit 1 if that would change it."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    assert after, f"{PAGE.name} has no {BEGIN!r} … {END!r}"
    made = f"{before}{BEGIN}\n\n```mermaid\n{lifecycle.diagram()}\n```\n\n{END}{after}"
    if "--check" in arguments:
        if made != text:
            print("docs/connection.md's diagram is not that of ingestd/http/lifecycle.py: run `make docs`")
        return int(made != text)
    PAGE.write_text(made)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

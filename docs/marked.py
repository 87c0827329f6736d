"""Pages of which a part is made from the code: the part stands between two markers."""

from __future__ import annotations

from pathlib import Path


def rewrite(page: Path, name: str, source: str, made: str, arguments: list[str]) -> int:
    """Put what is made of `source` between the markers of this name; returns the exit status.

    With `--check` in the arguments nothing is written, and the status is 1 if it would change the page.
    """
    begin, end = f"<!-- {name}: made by `make docs` from {source} -->", f"<!-- end of {name} -->"
    text = page.read_text()
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    assert after, f"{page.name} has no {begin!r} … {end!r}"
    new = f"{before}{begin}\n\n{made}\n\n{end}{after}"
    if "--check" not in arguments:
        page.write_text(new)
    elif new != text:
        print(f"{page.name}: the part named {name} is not that of {source}: run `make docs`")
        return 1
    return 0

"""Writes README.md's table of settings from the Settings struct; `--check` only compares.

The struct's own docstrings are the text, so the two cannot say different things.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from marked import rewrite

from ingestd import config

ROOT = Path(__file__).parents[1]


def table(prefix: str = "") -> str:
    """The table, a row for each field in the order of the struct, of those that begin so."""
    defaults = config.Settings()
    rows = ["| setting | default | meaning |", "|--|--|--|"]
    for name, text in _docstrings().items():
        if not name.startswith(prefix):
            continue
        rows.append(f"| `{name}` | `{_shown(getattr(defaults, name))}` | {' '.join(text.split())} |")
    return "\n".join(rows)


def _shown(value: object) -> str:
    """As it is written in a file, but for the quotes of what is not empty."""
    return str(value).lower() if isinstance(value, bool) else str(value) or '""'


def _docstrings() -> dict[str, str]:
    """The string that follows each field of the struct; no field may be without."""
    module = ast.parse((ROOT / "ingestd" / "config.py").read_text())
    [body] = [node.body for node in module.body if isinstance(node, ast.ClassDef) and node.name == "Settings"]
    found = {}
    for field, text in zip(body, [*body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            assert isinstance(text, ast.Expr), f"{field.target.id} has no docstring"
            found[field.target.id] = str(ast.literal_eval(text.value))
    assert tuple(found) == config.Settings.__struct_fields__
    return found


def main(arguments: list[str]) -> int:
    """Rewrite README.md and docs/shipping.md; with `--check`, exit 1 if that would change one."""
    pages = {ROOT / "README.md": table(), ROOT / "docs" / "shipping.md": table("ship_")}
    return max(
        rewrite(page, "settings", "ingestd/config.py", made, arguments) for page, made in pages.items()
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

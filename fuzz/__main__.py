"""`python -m fuzz TARGET [FOLDER…] [-libfuzzer_flag=…]`: runs one of the checks until something breaks."""

from __future__ import annotations

import logging
import sys

import atheris

with atheris.instrument_imports(include=["ingestd"]):
    from fuzz.checks import CHECKS


def main() -> None:
    """Hand the check to libFuzzer, which never returns."""
    if len(sys.argv) < 2 or sys.argv[1] not in CHECKS:
        sys.exit(f"usage: python -m fuzz {{{'|'.join(CHECKS)}}} [FOLDER…] [-libfuzzer_flag=…]")
    # A bug is answered with 500, which a check refuses; the log would only bury its trace.
    logging.getLogger("ingestd").setLevel(logging.CRITICAL)
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, CHECKS[name])
    atheris.Fuzz()


main()

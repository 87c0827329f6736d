"""`python -m ingestd`: the same as the `ingestd` command."""

from ingestd.cli import main

if __name__ == "__main__":
    raise SystemExit(main())

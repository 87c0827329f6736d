"""The system's commands that tests use: skipped where one is missing, but never in CI."""

from __future__ import annotations

import os
import shutil

import pytest


def tool(name: str) -> str:
    """The path of a command; where it is missing the test is skipped, and fails if CI is set."""
    path = shutil.which(name)
    if path is not None:
        return path
    reason = f"the command '{name}' is not installed"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}; .ci/run installs what tests need")
    pytest.skip(reason)

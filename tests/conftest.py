"""For all tests."""

from __future__ import annotations

from hypothesis import settings

# A busy machine may take any time for an example: slow is not wrong.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

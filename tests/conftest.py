"""Shared settings of all test tiers."""

from __future__ import annotations

import os

from hypothesis import settings

# "ci" is the default everywhere: the same examples on every run, so that a failure is found again.
settings.register_profile("ci", derandomize=True, deadline=None, max_examples=100)
settings.register_profile("long", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("MUNIMENT_HYPOTHESIS_PROFILE", "ci"))

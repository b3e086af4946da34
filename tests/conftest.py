"""Shared settings of all test tiers."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Final

from hypothesis import settings
from tests.thoroughness import SEED, times

# At night the seed is an option of its own, which scripts/nightly gives.
settings.register_profile(
    "muniment", derandomize=not SEED, deadline=None, database=None, max_examples=times(50)
)
settings.load_profile("muniment")

# Some environments turn bytecode files off; each of the hundreds of processes that the tests start would
# then compile the whole program anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Workers and what they start share the cores; nothing here does linear algebra.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Tests kill processes, never the machine: what memory keeps is kept as well as by a disk, without waiting for
# one at every fsync.  Where memory is short, or PYTEST_DEBUG_TEMPROOT says so, the folders are on disk.
_MEMORY: Final = Path("/dev/shm")
_NEEDED_BYTES: Final = 4 << 30
if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _NEEDED_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))

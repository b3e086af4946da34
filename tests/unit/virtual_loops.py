"""Event loops in virtual time for all tests of a folder: its `conftest.py` imports the one name from here.

What waits then waits for events alone: a deadline passes when nothing else can happen, on a busy machine as
on an idle one.  Not for folders whose tests use sockets or processes: virtual time does not wait for those.
"""

from __future__ import annotations

from muniment.testing.virtual_time import VirtualTimeLoop

__all__ = ["pytest_asyncio_loop_factories"]


def pytest_asyncio_loop_factories() -> dict[str, type[VirtualTimeLoop]]:
    """Asked by pytest-asyncio for each test."""
    return {"virtual": VirtualTimeLoop}

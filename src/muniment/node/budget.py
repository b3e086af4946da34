"""A bound on what many requests take together, where a bound on each alone would not do."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from muniment.errors import Overloaded


class Budget:
    """So many bytes, spent and given back; any thread.

    A request that alone wants more than there is gets it while nobody else spends: it has a limit of its own.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._spent_bytes = 0
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def spend(self, size_bytes: int) -> Iterator[None]:
        """Use `size_bytes` until the end of the block.  Raises: Overloaded: others use too much now."""
        with self._lock:
            if self._spent_bytes and self._spent_bytes + size_bytes > self._bytes_max:
                raise Overloaded(limit=f"{self._bytes_max} bytes of answers under way")
            self._spent_bytes += size_bytes
        try:
            yield
        finally:
            with self._lock:
                self._spent_bytes -= size_bytes

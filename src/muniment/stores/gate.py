"""Lets calls into a store until it closes, and lets closing wait for those inside."""

from __future__ import annotations

import threading

from muniment.errors import StoreFailed


class Gate:
    """A context manager around every call of a store.

    Closing a descriptor or thread pool under a running call would make it work on whatever takes their place.

    Args:
        where: the store's name, for messages.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._changed = threading.Condition()
        self._inside = 0
        self._is_shut = False

    def __enter__(self) -> None:
        """Raises: StoreFailed: shut."""
        with self._changed:
            if self._is_shut:
                raise StoreFailed(where=self._where, reason="the store is closed")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            if self._is_shut:
                self._changed.notify_all()

    def shut(self) -> bool:
        """Let nobody in any more and wait until all are out; False if somebody shut it before."""
        with self._changed:
            if self._is_shut:
                return False
            self._is_shut = True
            self._changed.wait_for(lambda: self._inside == 0)
            return True

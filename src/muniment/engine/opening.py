"""Signed entries opened many at a time.

A signature check is most of what an entry costs whoever takes it from others, and OpenSSL does it outside
Python's global lock: so large numbers are shared out to a thread for each core.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Final

from muniment.crypto.entries import SignedEntry, open_entry
from muniment.errors import MalformedRecord, UnknownVersion

_THREADS: Final = min(4, len(os.sched_getaffinity(0)))
"""More gain nothing: decoding, a fifth of the work, holds the global lock."""

_SLICE_ENTRIES: Final = 64
"""What a thread takes at a time: some 5 ms of work, against 0.1 ms to start the thread."""


def open_entries(signed: Sequence[bytes]) -> list[SignedEntry | MalformedRecord | UnknownVersion]:
    """Verify signed entries from anybody; blocks.

    Returns: for each in order what `open_entry` returns for it, or what it raises.
    Cost: a signature check for each, on all cores if they are many.
    """
    slices = [signed[at : at + _SLICE_ENTRIES] for at in range(0, len(signed), _SLICE_ENTRIES)]
    if len(slices) < 2 or _THREADS < 2:
        return list(chain.from_iterable(map(_opened, slices)))
    with ThreadPoolExecutor(min(_THREADS, len(slices)), thread_name_prefix="open") as threads:
        return list(chain.from_iterable(threads.map(_opened, slices)))


def _opened(signed: Sequence[bytes]) -> list[SignedEntry | MalformedRecord | UnknownVersion]:
    return [_one(entry) for entry in signed]


def _one(signed: bytes) -> SignedEntry | MalformedRecord | UnknownVersion:
    try:
        return open_entry(signed)
    except (MalformedRecord, UnknownVersion) as error:
        return error

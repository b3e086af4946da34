"""From the entries of a replica to its view: decrypted with the member's keys, decoded, folded, recorded.

Blocking; used by the one thread that has the follower.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from muniment.core.entries import unsealed
from muniment.core.fold import apply
from muniment.core.history import EntryMeta
from muniment.core.key_ring import KeyRing
from muniment.core.tree_state import Changes, Rejection
from muniment.crypto.entries import SignedEntry
from muniment.errors import MalformedRecord, NotCapable, OperationRejected
from muniment.ports import ViewBatch, VolumeView
from muniment.spec.limits import KIB
from muniment.spec.transaction import Transaction, decode_transaction

UNREADABLE: Final = "unreadable"
"""Rejection of a transaction that no member can read: its author is to blame."""

_FOLD_ENTRIES: Final = 1024
_OPEN_BYTES: Final = 64 * KIB
"""Of plaintext opened ahead of the fold; a value of one byte becomes a hundred in memory."""

_Opened = Transaction | Rejection | None
"""A transaction, why it is none, or None: an act."""


def fold(view: VolumeView, ring: KeyRing, entries: Iterator[SignedEntry]) -> None:
    """Record what the view has not, up to the first transaction whose keys the member does not have: they
    may be granted later, and then folding goes on there.

    Args:
        entries: the first one behind the view, and those behind it.
    Raises: DiskFull, StoreFailed.
    """
    while group := list(islice(entries, _FOLD_ENTRIES)):
        with view.batch() as batch:
            while group:
                opened = _opened(group, ring)
                if not opened:
                    return
                for entry, what in zip(group, opened, strict=False):
                    index, one = batch.size, entry.entry
                    message, outcome = _folded(what, index, one.time_ns, batch)
                    meta = EntryMeta(entry.hash, one.author, one.time_ns, one.epoch, message)
                    batch.record(index, meta, outcome)
                del group[: len(opened)]


def _opened(entries: Sequence[SignedEntry], ring: KeyRing) -> list[_Opened]:
    """What the first of them hold, up to one whose keys the member does not have.

    As many together as come to `_OPEN_BYTES`: decryption, decoding and folding that take turns for each
    entry push each other out of the processor's caches.
    """
    sealed: list[tuple[bytes, bytes] | MalformedRecord | None] = []
    size_bytes = 0
    for entry in entries:
        try:
            plain = unsealed(entry.entry, ring) if entry.entry.act is None else None
        except MalformedRecord as error:
            sealed.append(error)
            continue
        except NotCapable:
            break
        sealed.append(plain)
        size_bytes += sum(map(len, plain)) if plain else 0
        if size_bytes >= _OPEN_BYTES:
            break
    return list(map(_decoded, sealed))


def _decoded(plain: tuple[bytes, bytes] | MalformedRecord | None) -> _Opened:
    if plain is None:
        return None
    try:
        if isinstance(plain, MalformedRecord):
            raise plain
        return decode_transaction(*plain)
    except MalformedRecord as error:
        return Rejection(UNREADABLE, None, str(error))


def _folded(
    opened: _Opened, index: int, time_ns: int, batch: ViewBatch
) -> tuple[str, Changes | Rejection | None]:
    if not isinstance(opened, Transaction):
        return "", opened
    try:
        return opened.message, apply(batch.state, opened, index=index, time_ns=time_ns)
    except OperationRejected as error:
        return opened.message, Rejection.of(error)

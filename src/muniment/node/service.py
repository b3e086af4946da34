"""What every call of a node means, without HTTP: docs/spec/wire.md section 5 describes them.

Joins the store (bytes) and the books (space and leases).  Calls that concern space and leases alone are
those of `NodeService.books`.  Blocking; any method may be called from any thread.

What fails verification is moved to quarantine at the moment it is noticed, and never served or deleted.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from muniment.errors import RangeOutOfBounds, ShareCorrupt, ShareUnknown, StoreFailed
from muniment.ids import AccountId, ShareKey
from muniment.node.books import Books
from muniment.node.receiving import PutReceiver
from muniment.node.serving import VerifiedShares
from muniment.ports import (
    Clock,
    ForeignObject,
    ReserveOutcome,
    ShareClaim,
    ShareProof,
    ShareStore,
    StoredShare,
)
from muniment.spec.wire import NodeStatus, ScrubStatus

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class NodeService:
    """One running node.

    Args:
        version: of this program, for `info`.
        capacity_bytes: what the operator gives, for `info`.
        books: space and leases.
        store: bytes.
        clock: for `info`.
        record_text: the node's signed record, valid now.

    Attributes:
        reconciled: whether store and ledger have been compared since the start; set by `reconcile`.
        scrub_status: how far the shares have been read again; set by `Scrub`.
    """

    def __init__(
        self,
        version: str,
        capacity_bytes: int,
        books: Books,
        store: ShareStore,
        clock: Clock,
        record_text: Callable[[], str],
    ) -> None:
        self.books = books
        self.reconciled = False
        self.scrub_status: Callable[[], ScrubStatus | None] = lambda: None
        self._version, self._capacity_bytes = version, capacity_bytes
        self._store, self._clock, self._record_text = store, clock, record_text
        self._verified = VerifiedShares(store)

    def info(self) -> NodeStatus:
        """The signed record and the present sums."""
        totals = self.books.totals()
        return NodeStatus(
            record=self._record_text(),
            version=self._version,
            time_s=self._clock.now_s(),
            capacity_bytes=self._capacity_bytes,
            used_bytes=totals.used_bytes,
            reserved_bytes=self.books.reserved_bytes,
            share_count=totals.share_count,
            quarantined_count=totals.quarantined_count,
            reconciled=self.reconciled,
            leased_count=totals.leased_count,
            leased_bytes=totals.leased_bytes,
            scrub=self.scrub_status(),
            draining=self.books.draining,
        )

    def medium_bytes(self) -> int | None:
        """What the disk has room for, None where that is not known."""
        return self._store.free_bytes()

    # --- writing ------------------------------------------------------------------------------

    def reserve(self, account: AccountId, claims: Sequence[ShareClaim]) -> list[ReserveOutcome]:
        """As `Books.reserve`, with what the disk has room for."""
        return self.books.reserve(account, claims, self.medium_bytes())

    def begin_put(self, account: AccountId, count: int, *, reserving: bool = False) -> PutReceiver:
        """Receive the body of one put with `count` shares; the caller must `finish` or `abort` it."""

        def reserve(claim: ShareClaim) -> ReserveOutcome:
            (outcome,) = self.reserve(account, [claim])
            return outcome

        return PutReceiver(
            self.books, self._store, account, count, lambda: self.reconciled, reserve if reserving else None
        )

    # --- reading ------------------------------------------------------------------------------

    def size_bytes(self, key: ShareKey) -> int:
        """The size of a stored record, which is not read.  Raises: ShareUnknown, StoreFailed."""
        return self._verified.size_bytes(key)

    def sizes_bytes(self, keys: Sequence[ShareKey]) -> int:
        """The sum over those of these records that are there.  Raises: StoreFailed."""
        total_bytes = 0
        for key in keys:
            with contextlib.suppress(ShareUnknown):
                total_bytes += self._verified.size_bytes(key)
        return total_bytes

    def get(self, key: ShareKey) -> bytes:
        """A whole record, verified.  Raises: ShareUnknown, ShareCorrupt, StoreFailed."""
        return self._guarded(key, lambda: self._verified.record(key))

    def get_span(self, key: ShareKey, start: int, stop: int | None) -> tuple[bytes, int, int]:
        """Bytes `start` to `stop` (or to the end) of a record, verified.

        A negative start counts from the end; a stop behind the end is the end.

        Returns: the bytes, their offset, and the size of the whole record.
        Raises: RangeOutOfBounds; as `get`.
        """
        size_bytes = self._verified.size_bytes(key)
        first = max(0, size_bytes + start) if start < 0 else start
        last = size_bytes if stop is None else min(stop, size_bytes)
        if first >= last:
            raise RangeOutOfBounds(start=first, stop=last, size_bytes=size_bytes)
        return self._guarded(key, lambda: self._verified.span(key, first, last)), first, size_bytes

    def get_many(self, keys: Sequence[ShareKey]) -> Iterator[bytes | None]:
        """Whole records, verified, one after the other; None for what is not held or damaged."""
        for key in keys:
            try:
                yield self.get(key)
            except (ShareUnknown, ShareCorrupt):
                yield None

    def leaves(self, key: ShareKey, first: int, count: int) -> list[ShareProof]:
        """Leaves `first` to `first + count` with their paths.  Raises: RangeOutOfBounds; as `get`."""
        return self._guarded(key, lambda: self._verified.proofs(key, range(first, first + count)))

    def prove(self, challenges: Sequence[tuple[ShareKey, int]]) -> Iterator[ShareProof | None]:
        """Leaf and path for each challenge; None where share or leaf is not there, or damaged."""
        for key, leaf in challenges:
            try:
                yield self.leaves(key, leaf, 1)[0]
            except (ShareUnknown, ShareCorrupt, RangeOutOfBounds):
                yield None

    # --- background ---------------------------------------------------------------------------

    def adopt(self, share: StoredShare) -> bool:
        """Verify a share found in the store but not in the ledger; take it into the books, or put it into
        quarantine.

        Returns: whether it is good.
        Raises: StoreFailed: it cannot be read now; nothing is changed.
        """
        try:
            size_bytes = self.verify(share.key)
        except (ShareUnknown, ShareCorrupt):
            return False
        self.books.adopt(StoredShare(share.key, size_bytes))
        return True

    def verify(self, key: ShareKey) -> int:
        """Read and verify a whole share, which is put into quarantine if it is damaged; returns its bytes.

        Raises: ShareUnknown; ShareCorrupt: it is in quarantine now; StoreFailed: it cannot be read now.
        """
        return self._guarded(key, lambda: self._verified.check(key))

    def set_aside(self, found: ForeignObject) -> None:
        """Put into quarantine what is not named as a share."""
        _log.warning("%s is not a share (%d bytes): moved to quarantine", found.name, found.size_bytes)
        self._store.quarantine(found)

    def drop_missing(self, keys: Sequence[ShareKey]) -> int:
        """Take out of the books those of these shares that the store really does not have; returns how many.

        Raises: StoreFailed: the store cannot say.
        """
        count = 0
        with self.books.removing(keys) as locked:
            missing = [key for key in locked if self.books.is_held(key) and not self._is_there(key)]
            if missing:
                self.books.lose(missing, "missing from the store")
                count = len(missing)
                _log.warning("%d shares are missing from the store", count)
        return count

    def purge(self) -> int:
        """Delete a batch of shares that nobody has wanted for longer than the grace; returns how many.

        The books forget a share first: a crash in between leaves a file, which the next reconciliation
        adopts.  What the store fails to delete goes back into the books without an owner, so that its bytes
        stay counted and its turn comes again.  Shares that an upload or reservation concerns are left alone.

        Raises: StoreFailed: a share could not be deleted.
        """
        with self.books.removing(self.books.purgeable()) as keys:
            gone = self.books.purge(keys) if keys else []
            for position, share in enumerate(gone):
                try:
                    self._store.delete(share.key)
                except StoreFailed:
                    for kept in gone[position:]:
                        self.books.adopt(kept)
                    raise
        return len(gone)

    # --- quarantine ---------------------------------------------------------------------------

    def _guarded(self, key: ShareKey, read: Callable[[], _T]) -> _T:
        try:
            return read()
        except ShareCorrupt as error:
            self._condemn(key, error)
            raise

    def _condemn(self, key: ShareKey, error: ShareCorrupt) -> None:
        """Put a damaged share into quarantine, unless an upload is just replacing it.

        It is read again while no upload can touch it: since it was first read, another thread may have put
        it into quarantine and its owner a good one in its place.
        """
        with self.books.removing([key]) as locked:
            if not locked:
                return
            try:
                self._verified.check(key)
            except ShareCorrupt:
                _log.error("%s: moved to quarantine", error)
                # Store first: a crash in between leaves a row without a share, which reconciliation notes.
                self._store.quarantine(key)
                self.books.lose([key], error.reason)
            except ShareUnknown:
                pass

    def _is_there(self, key: ShareKey) -> bool:
        try:
            self._verified.size_bytes(key)
        except ShareUnknown:
            return False
        return True

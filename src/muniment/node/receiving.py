"""Shares on their way in: the body of one `put`, taken apart, verified and stored while it arrives.

    body    = share *          each: BlobId (32 bytes), then the share record, which tells its own size

`PutReceiver` has no I/O of its own but the store's and the ledger's: bytes come in with `feed`, and `finish`
or `abort` ends it.  Each share has a fate of its own: held, or refused with the reason.  What follows a
refused share is still read, since its header says where it ends; only a header that cannot be read ends the
request.

Shares are committed in groups, one flush of the store and one of the ledger each, store first: a crash in
between leaves a share on disk that the next reconciliation adopts, never a promise without a share.  Where
only the ledger's medium fails, what the store has taken already is deleted again, but not before the two were
compared since the start: until then it may have been here before, for others (a ledger that is made anew).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Protocol

from muniment.errors import InvalidRequest, MunimentError, ReservationMissing
from muniment.ids import ID_BYTES, AccountId, BlobId, ShareKey
from muniment.merkle.share_tree import ShareReceiver
from muniment.node.reservations import Promise
from muniment.ports import (
    Held,
    PutOutcome,
    Refused,
    ReserveOutcome,
    ShareClaim,
    ShareStore,
    ShareWriter,
    StoredShare,
)
from muniment.spec.share import FIXED_BYTES, decode_fixed

FRAME_BYTES: Final = ID_BYTES + FIXED_BYTES
"""What tells the key and the size of the share that follows."""

_GROUP_SHARES: Final = 128
"""Committed together at most: bounds open files, and what a broken connection loses."""

_log = logging.getLogger(__name__)


class PutBooks(Protocol):
    """What a put needs of the service's books; all atomic by themselves."""

    def take(self, account: AccountId, key: ShareKey, size_bytes: int) -> Promise | None:
        """The promise for this share, handed over."""
        ...

    def finish(self, promises: Sequence[Promise]) -> None:
        """Give taken promises back."""
        ...

    def is_held(self, key: ShareKey) -> bool: ...

    def is_leased(self, account: AccountId, key: ShareKey) -> bool: ...

    def record(self, account: AccountId, stored: Sequence[StoredShare], held: Sequence[ShareKey]) -> None:
        """Durably note shares just stored, and a lease on these and on those held already."""
        ...

    def removing(self, keys: Sequence[ShareKey]) -> AbstractContextManager[list[ShareKey]]:
        """Those of `keys` that no upload concerns, and none will meanwhile."""
        ...


@dataclass(slots=True)
class _Incoming:
    """One share of the body.

    Attributes:
        index: its place in the body.
        promise: its space; None where none was promised.
        writer: where its bytes go; None where they are only skipped.
        receiver: what verifies them; None exactly where `writer` is.
    """

    index: int
    key: ShareKey
    size_bytes: int
    promise: Promise | None
    writer: ShareWriter | None = None
    receiver: ShareReceiver | None = None

    def drop(self) -> None:
        """Throw away what was written; the rest of its bytes are skipped."""
        if self.writer is not None:
            self.writer.abort()
        self.writer = self.receiver = None


class PutReceiver:
    """One put request of one account.

    Not shared: `feed` and `finish` are called one after the other, from any thread; `abort` may come from
    another thread at any time and takes effect when a running `feed` returns.

    Args:
        count: shares that the body is to hold.
        is_reconciled: whether the books know all that the store has.
        reserve: asks for space for a share that has none; None: such a share is refused.
    """

    def __init__(
        self,
        books: PutBooks,
        store: ShareStore,
        account: AccountId,
        count: int,
        is_reconciled: Callable[[], bool],
        reserve: Callable[[ShareClaim], ReserveOutcome] | None = None,
    ) -> None:
        self._books, self._store, self._account = books, store, account
        self._is_reconciled, self._reserve = is_reconciled, reserve
        self._outcomes: list[PutOutcome | None] = [None] * count
        self._begun = 0
        self._frame = bytearray()
        self._current: _Incoming | None = None
        self._left_bytes = 0
        self._group: list[_Incoming] = []
        self._ended = False
        self._lock = threading.Lock()

    def feed(self, pieces: Sequence[bytes | memoryview]) -> None:
        """Take the next bytes of the body.

        Raises:
            MalformedRecord, UnknownVersion: a share's header cannot be read, so its end is not known.
            InvalidRequest: more shares than announced.
        """
        with self._lock:
            if self._ended:
                return
            try:
                for piece in pieces:
                    self._take_in(memoryview(piece))
            except BaseException:
                self._throw_away()
                raise

    def finish(self) -> list[PutOutcome]:
        """End of the body: commit what is complete and right.

        Returns: the fate of each share, in order; `Held` is durable.
        Raises: InvalidRequest: the body ended inside a share or has too few; those in groups committed
            before stay.
        """
        with self._lock:
            try:
                if self._ended or self._current is not None or self._frame:
                    raise InvalidRequest(reason="the body ends inside a share")
                if self._begun != len(self._outcomes):
                    raise InvalidRequest(
                        reason=f"the body has {self._begun} shares, announced were {len(self._outcomes)}"
                    )
                self._commit()
            finally:
                self._throw_away()
        return [outcome for outcome in self._outcomes if outcome is not None]

    def abort(self) -> None:
        """The request failed or its client is gone: nothing stays written or reserved.  Idempotent."""
        with self._lock:
            self._throw_away()

    # --- one share after the other ------------------------------------------------------------

    def _take_in(self, data: memoryview) -> None:
        while len(data):
            if self._current is None:
                wanted = FRAME_BYTES - len(self._frame)
                self._frame += data[:wanted]
                data = data[wanted:]
                if len(self._frame) == FRAME_BYTES:
                    self._begin()
                continue
            piece = data[: self._left_bytes]
            data = data[len(piece) :]
            self._take_piece(self._current, piece)

    def _begin(self) -> None:
        blob, fixed = BlobId(bytes(self._frame[:ID_BYTES])), bytes(self._frame[ID_BYTES:])
        if self._begun == len(self._outcomes):
            raise InvalidRequest(reason=f"the body has more than the {self._begun} shares announced")
        shape, number = decode_fixed(fixed)
        share = _Incoming(self._begun, ShareKey(blob, number), shape.record_bytes, None)
        self._frame.clear()
        self._begun += 1
        self._current, self._left_bytes = share, share.size_bytes
        self._attempt(share, lambda: self._admit(share))
        self._take_piece(share, memoryview(fixed))

    def _admit(self, share: _Incoming) -> None:
        """Decide whether its bytes are stored or skipped."""
        share.promise = self._books.take(self._account, share.key, share.size_bytes)
        if self._is_settled(share):
            return
        if share.promise is None and self._reserve is not None:
            outcome = self._reserve(ShareClaim(share.key, share.size_bytes))
            if isinstance(outcome, Refused):
                raise outcome.error
            share.promise = self._books.take(self._account, share.key, share.size_bytes)
            if self._is_settled(share):
                return
        if share.promise is None:
            raise ReservationMissing(blob=share.key.blob, share=share.key.number)
        receiver = ShareReceiver(share.key, share.size_bytes)
        share.writer = self._store.create(share.key, share.size_bytes)
        share.receiver = receiver

    def _is_settled(self, share: _Incoming) -> bool:
        """Somebody was faster, and this account may have it too: its bytes are skipped, a lease is given."""
        entitled = share.promise is not None or self._books.is_leased(self._account, share.key)
        return entitled and self._books.is_held(share.key)

    def _take_piece(self, share: _Incoming, piece: memoryview) -> None:
        self._attempt(share, lambda: _write(share, piece))
        self._left_bytes -= len(piece)
        if self._left_bytes:
            return
        self._attempt(share, lambda: _complete(share))
        self._current = None
        if self._outcomes[share.index] is None:
            self._group.append(share)
        if len(self._group) == _GROUP_SHARES:
            self._commit()

    def _attempt(self, share: _Incoming, step: Callable[[], None]) -> None:
        """Do one step of one share; if it fails, this share alone is refused and its space given back."""
        if self._outcomes[share.index] is not None:
            return
        try:
            step()
        except MunimentError as error:
            self._refuse(share, error)

    def _refuse(self, share: _Incoming, error: MunimentError) -> None:
        self._outcomes[share.index] = Refused(error)
        share.drop()
        self._give_back([share])

    # --- groups -------------------------------------------------------------------------------

    def _commit(self) -> None:
        group = self._group  # kept until its fate is known, so that any failure gives its space back
        written = [share for share in group if share.writer is not None]
        try:
            self._store.commit([share.writer for share in written if share.writer is not None])
            self._books.record(
                self._account,
                [StoredShare(share.key, share.size_bytes) for share in written],
                [share.key for share in group if share.writer is None],
            )
        except MunimentError as error:
            for share in group:
                self._refuse(share, error)
            self._delete_unrecorded([share.key for share in written])
        else:
            for share in group:
                self._outcomes[share.index] = Held(new=share.writer is not None)
            self._give_back(group)
        self._group = []

    def _delete_unrecorded(self, keys: Sequence[ShareKey]) -> None:
        """Shares that nobody will ever ask for, since the books do not have them."""
        if not self._is_reconciled():
            return
        try:
            with self._books.removing(keys) as locked:
                for key in locked:
                    if not self._books.is_held(key):
                        self._store.delete(key)
        except MunimentError as error:
            _log.warning("shares that were refused stay on disk until the next start: %s", error)

    def _throw_away(self) -> None:
        self._ended = True
        unfinished = self._group if self._current is None else [*self._group, self._current]
        for share in unfinished:
            share.drop()
        self._give_back(unfinished)
        self._group, self._current = [], None

    def _give_back(self, shares: Sequence[_Incoming]) -> None:
        promises = [share.promise for share in shares if share.promise is not None]
        for share in shares:
            share.promise = None
        if promises:
            self._books.finish(promises)


def _write(share: _Incoming, piece: memoryview) -> None:
    if share.writer is not None and share.receiver is not None:
        share.receiver.feed(piece)
        share.writer.write(piece)


def _complete(share: _Incoming) -> None:
    if share.receiver is not None:
        share.receiver.finish()

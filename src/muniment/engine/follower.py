"""What one member knows of a volume: a replica of the log, its members, his keys, and the view.

Everything that comes from the log service is verified here before it is kept: the checkpoint's signature,
that it extends what was kept before, every entry's signature and right to follow, and what its author had
seen.  A log that fails is refused from then on, with evidence where there is some (docs/spec/log.md).

Blocking; used by one thread at a time (`engine.volume` owns it).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from muniment.core.entries import open_transaction
from muniment.core.fold import apply
from muniment.core.history import EntryMeta
from muniment.core.keys import KeyRing
from muniment.core.membership import Membership
from muniment.core.tree_state import Changes, Rejection
from muniment.crypto.checkpoints import open_checkpoint
from muniment.crypto.entries import SignedEntry, known_entry, open_entry
from muniment.crypto.member import ReadSecret, VerifySecret
from muniment.errors import (
    EntryRefused,
    LogForked,
    MalformedRecord,
    NotCapable,
    OperationRejected,
    StoreFailed,
)
from muniment.ids import VolumeId
from muniment.merkle.log_tree import EMPTY_ROOT, Frontier, Subtree, check_consistency
from muniment.ports import LoggedEntry, LogStore, ViewBatch, VolumeView
from muniment.spec.checkpoint import Checkpoint, origin_of
from muniment.spec.limits import MIB

UNREADABLE: Final = "unreadable"
"""Rejection of a transaction that no member can read: its author is to blame."""

_REPLAY_BYTES: Final = 4 * MIB
_FOLD_ENTRIES: Final = 1024
_ROOTS_KEPT: Final = 4096


@dataclass(frozen=True, slots=True)
class Follows:
    """What the log service has beyond the replica: entries `start` to `stop`."""

    checkpoint: Checkpoint
    start: int

    @property
    def stop(self) -> int:
        """Behind the last."""
        return self.checkpoint.size


class Follower:
    """One volume's replica and what follows from it.

    Args:
        volume: whose log it is.
        secret: opens what was granted to the member.
        log_key: Ed25519 key of the log service.
        replica: may be empty.
        view: folds are recorded there; may lag behind the replica.

    Attributes:
        membership: after the replica's entries.
        ring: the member's keys.
        frontier: of the replica.
    """

    def __init__(
        self,
        volume: VolumeId,
        secret: ReadSecret | VerifySecret,
        log_key: bytes,
        replica: LogStore,
        view: VolumeView,
    ) -> None:
        self.volume = volume
        self.replica = replica
        self.view = view
        self.membership = Membership()
        self.ring = KeyRing(secret)
        self._log_key = log_key
        self._roots: OrderedDict[int, bytes] = OrderedDict([(0, EMPTY_ROOT)])
        self.frontier = Frontier.at(replica.size, replica.node)
        self._open()

    def _open(self) -> None:
        """Replay the replica's clear part, and fold what the view has not."""
        if self.view.size > self.replica.size:
            raise StoreFailed(where="the view", reason="it is ahead of the replica; remove it to fold anew")
        for at, entry in enumerate(self._kept(0)):
            try:
                self.membership.admit(entry, at)
            except EntryRefused as error:
                raise StoreFailed(
                    where="the replica", reason=f"entry {at} does not follow: {error}"
                ) from error
            if entry.entry.act is not None:
                self.ring.follow(self.membership)
        self._fold(self._kept(self.view.size))

    def _kept(self, at: int) -> Iterator[SignedEntry]:
        while at < self.replica.size:
            for signed in self.replica.read(at, self.replica.size, bytes_max=_REPLAY_BYTES):
                yield known_entry(signed)
                at += 1

    # --- what the service says ----------------------------------------------------------------

    def open_note(self, note: bytes) -> Checkpoint:
        """A checkpoint of this log, its signature verified.  Raises: MalformedRecord."""
        return open_checkpoint(note, self._log_key, origin=origin_of(self.volume))

    def follows(self, note: bytes) -> Follows:
        """What is to be fetched to reach a checkpoint.

        Raises: MalformedRecord; LogForked: the service has forgotten or changed what it signed before.
        """
        checkpoint = self.open_note(note)
        size = self.frontier.size
        if checkpoint.size < size:
            if checkpoint.root != self.root(checkpoint.size):
                raise self._forked(f"its tree of {checkpoint.size} entries is not the one seen before")
            newest = self.replica.checkpoint()
            if newest and self.open_note(newest).size > checkpoint.size:
                raise self._forked(f"it has {checkpoint.size} entries and had signed for {size}")
        if checkpoint.size == size and checkpoint.root != self.frontier.root():
            raise self._forked(f"it shows two different logs of {size} entries")
        return Follows(checkpoint, size)

    def take(
        self, signed: Sequence[bytes], note: bytes, checkpoint: Checkpoint, proof: Sequence[bytes]
    ) -> None:
        """Verify, keep and fold the entries behind the replica's last; all or none are kept.

        Args:
            signed: in order.
            note: the checkpoint that covers them, signed.
            checkpoint: what it says.
            proof: that it extends the log up to the last of them; empty if they reach it.
        Raises: LogForked: the log is not what its service signed, or holds what may not stand there.
        """
        try:
            entries = [open_entry(one) for one in signed]
        except MalformedRecord as error:
            raise self._forked(f"behind entry {self.frontier.size - 1}: {error}") from error
        frontier, nodes, roots = self.frontier, list[Subtree](), dict[int, bytes]()
        for entry in entries:
            frontier, completed = frontier.append(entry.hash)
            nodes += completed
            roots[frontier.size] = frontier.root()
        try:
            check_consistency(frontier.size, frontier.root(), checkpoint.size, checkpoint.root, proof)
        except MalformedRecord as error:
            raise self._forked("the entries are not those of its checkpoint") from error
        membership = self.membership.copy()
        for at, entry in enumerate(entries, self.frontier.size):
            seen = entry.entry.seen_size
            try:
                membership.admit(entry, at)
            except EntryRefused as error:
                raise self._forked(f"entry {at} may not stand there: {error}") from error
            if seen and (roots.get(seen) or self.root(seen)) != entry.entry.seen_root:
                raise self._forked(f"the author of entry {at} was shown another log of {seen} entries")
            if entry.entry.act is not None:
                self.ring.follow(membership)
        self.replica.append([LoggedEntry(entry.hash, entry.signed) for entry in entries], nodes, note)
        self.membership, self.frontier = membership, frontier
        for size, root in roots.items():
            self._keep_root(size, root)
        behind = self.view.size < self.frontier.size - len(entries)
        self._fold(self._kept(self.view.size) if behind else iter(entries))

    def root(self, size: int) -> bytes:
        """The root of the replica's first `size` entries."""
        root = self._roots.get(size)
        if root is None:
            root = Frontier.at(size, self.replica.node).root()
            self._keep_root(size, root)
        return root

    def _keep_root(self, size: int, root: bytes) -> None:
        self._roots[size] = root
        while len(self._roots) > _ROOTS_KEPT:
            self._roots.popitem(last=False)

    def _forked(self, reason: str) -> LogForked:
        return LogForked(volume=self.volume, reason=reason)

    # --- folding ------------------------------------------------------------------------------

    def _fold(self, entries: Iterator[SignedEntry]) -> None:
        """Record what the view has not, up to the first transaction whose keys the member does not have: they
        may be granted later, and then folding goes on there.
        """
        while group := list(islice(entries, _FOLD_ENTRIES)):
            with self.view.batch() as batch:
                for entry in group:
                    index, one = batch.size, entry.entry
                    try:
                        message, outcome = self._folded(entry, index, batch)
                    except NotCapable:
                        return
                    meta = EntryMeta(entry.hash, one.author, one.time_ns, one.epoch, message)
                    batch.record(index, meta, outcome)

    def _folded(
        self, signed: SignedEntry, index: int, batch: ViewBatch
    ) -> tuple[str, Changes | Rejection | None]:
        entry = signed.entry
        if entry.act is not None:
            return "", None
        try:
            transaction = open_transaction(entry, self.ring)
        except MalformedRecord as error:
            return "", Rejection(UNREADABLE, None, str(error))
        try:
            return transaction.message, apply(batch.state, transaction, index=index, time_ns=entry.time_ns)
        except OperationRejected as error:
            return transaction.message, Rejection.of(error)

"""What one member knows of a volume: a replica of the log, its members, his keys, and the view.

Everything that comes from the log service is verified here before it is kept: the checkpoint's signature,
that it extends what was kept before, every entry's signature and right to follow, and what its author had
seen.  A log against which there is evidence is refused from then on (docs/spec/evidence.md).

Blocking; used by one thread at a time (`engine.volume` owns it).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from muniment.core.beginning import Beginning
from muniment.core.clear_part import dump_clear, frontier_of
from muniment.core.key_ring import KeyRing
from muniment.core.membership import Membership
from muniment.crypto.checkpoints import open_checkpoint
from muniment.crypto.entries import SignedEntry, entry_hash, known_entry
from muniment.crypto.member import ReadSecret, VerifySecret
from muniment.engine.accusing import Suspicion, charge_of
from muniment.engine.evidence import make_evidence, verify_evidence
from muniment.engine.folding import fold
from muniment.engine.kept_clear import KeptClear
from muniment.engine.opening import open_entries
from muniment.errors import (
    EntryRefused,
    InternalError,
    LogForked,
    MalformedRecord,
    StoreFailed,
    UnknownVersion,
)
from muniment.ids import VolumeId
from muniment.merkle.kept_roots import KeptRoots
from muniment.merkle.log_tree import Frontier, NodeReader, check_consistency, inclusion_path
from muniment.ports import CheckpointStore, ClearStore, LoggedEntry, LogStore, VolumeView
from muniment.spec.checkpoint import Checkpoint, decode_checkpoint, decode_note, origin_of
from muniment.spec.evidence import LeafProof
from muniment.spec.limits import MIB

_REPLAY_BYTES: Final = 4 * MIB
_AHEAD_MAX: Final = 1024

EvidenceSink = Callable[[bytes], str]
"""Stores an evidence file durably and returns its name; its owner gives that back as `refused` later."""


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
        checkpoints: keeps every checkpoint that was seen; without one, those ahead of the replica are
            forgotten at the end.
        evidence_sink: takes evidence against the log service.
        refused: the name of the evidence for which this log service is refused already.
        clear: keeps the clear part of the replica, so that opening it need not read all of it; a replica
            that begins with a view snapshot needs it.

    Attributes:
        membership: after the replica's entries.
        ring: the member's keys.
        frontier: of the replica.
        refused: as given, or of the evidence found since; nothing is taken from the service any more.
        suspicion: what the last LogForked without evidence needs to become some; None if nothing can help.
    """

    def __init__(
        self,
        volume: VolumeId,
        secret: ReadSecret | VerifySecret,
        log_key: bytes,
        replica: LogStore,
        view: VolumeView,
        *,
        checkpoints: CheckpointStore | None = None,
        evidence_sink: EvidenceSink | None = None,
        refused: str = "",
        clear: ClearStore | None = None,
    ) -> None:
        self.volume = volume
        self.replica = replica
        self.view = view
        self.membership = Membership()
        self.ring = KeyRing(secret)
        self.refused = refused
        self.suspicion: Suspicion | None = None
        self._log_key = log_key
        self._checkpoints = checkpoints
        self._evidence_sink = evidence_sink
        self._ahead: dict[int, tuple[bytes, bytes]] = {}  # size -> root, note; larger than the replica
        self._roots = KeptRoots(replica.node)
        self.frontier = Frontier.at(replica.size, replica.node)
        self._clear, self._kept_clear = clear, KeptClear(volume, replica, clear)
        self._open()

    def close(self) -> None:
        """Close view, replica and checkpoints."""
        self._kept_clear.keep(self.membership, self.frontier)
        self.view.close()
        self.replica.close()
        if self._checkpoints is not None:
            self._checkpoints.close()

    def _open(self) -> None:
        """Replay the replica's clear part, and fold what the view has not."""
        if self.view.size > self.replica.size:
            raise StoreFailed(where="the view", reason="it is ahead of the replica; remove it to fold anew")
        if self.view.size < self.replica.start:
            raise StoreFailed(
                where="the view",
                reason=f"the replica has nothing before entry {self.replica.start} to fold it anew; "
                "'muni volume fetch VOL' brings the whole log",
            )
        self.membership = self._kept_clear.resume(self.ring.follow)
        for at, entry in enumerate(self._kept(self.membership.size), self.membership.size):
            try:
                self.membership.admit(entry, at)
            except EntryRefused as error:
                raise StoreFailed(
                    where="the replica", reason=f"entry {at} does not follow: {error}"
                ) from error
            if entry.entry.act is not None:
                self.ring.follow(self.membership)
        fold(self.view, self.ring, self._kept(self.view.size))
        for note in self.known_notes(self.frontier.size + 1):
            checkpoint = _of_own(note)
            self._ahead.setdefault(checkpoint.size, (checkpoint.root, note))

    def _kept(self, at: int) -> Iterator[SignedEntry]:
        while at < self.replica.size:
            for signed in self.replica.read(at, self.replica.size, bytes_max=_REPLAY_BYTES):
                yield known_entry(signed)
                at += 1

    # --- what the service says ----------------------------------------------------------------

    def open_note(self, note: bytes) -> Checkpoint:
        """A checkpoint of this log, its signature verified.  Raises: MalformedRecord."""
        return open_checkpoint(note, self._log_key, origin=origin_of(self.volume))

    @property
    def log_key(self) -> bytes:
        """Of the service that is followed."""
        return self._log_key

    @property
    def seen_size(self) -> int:
        """Entries of the largest log that its service is known to have signed for."""
        return max(self.frontier.size, *self._ahead) if self._ahead else self.frontier.size

    def follows(self, note: bytes) -> Follows:
        """What is to be fetched to reach a checkpoint that the service gave as its newest.

        Raises: MalformedRecord; LogForked: the service has forgotten or changed what it signed before.
        """
        checkpoint = self.compare(note)
        if checkpoint.size < self.seen_size:
            # It may have signed this note once, in good faith: no evidence.
            raise self._forked(f"it has {checkpoint.size} entries and had signed for {self.seen_size}")
        return Follows(checkpoint, self.frontier.size)

    def compare(self, note: bytes) -> Checkpoint:
        """Look at a checkpoint that anybody shows, and keep it.

        One of a larger log than the replica is compared when the replica has grown to its size.

        Raises: MalformedRecord: it is not this log's; LogForked: it is of another history, or was refused.
        """
        self._check_refused()
        checkpoint = self.open_note(note)
        size, root = checkpoint.size, checkpoint.root
        if size <= self.frontier.size:
            if self._knows(size) and root != self.root(size):
                self._contradiction(note, checkpoint, f"it shows two different logs of {size} entries")
        elif size in self._ahead and self._ahead[size][0] != root:
            other = self._ahead[size][1]
            reason = f"it signed two different logs of {size} entries"
            raise self._accused(Suspicion(reason, (other, note), size, ()), {})
        self._see(note, checkpoint)
        return checkpoint

    def take_evidence(self, evidence: bytes) -> LogForked:
        """Refuse the log service for what somebody else has evidence of.

        Returns: the error to raise; the evidence is stored.
        Raises: MalformedRecord: it proves nothing, or nothing against this log's service; UnknownVersion.
        """
        self._check_refused()
        verdict = verify_evidence(evidence)
        if (verdict.volume, verdict.log_key) != (self.volume, self._log_key):
            raise MalformedRecord(
                format="evidence", reason="it is not against the log service of this volume"
            )
        return self._convicted(evidence, verdict.says)

    def is_stale(self, note: bytes) -> bool:
        """Whether a larger log than this checkpoint's has been seen.  Raises: MalformedRecord."""
        return self.open_note(note).size < self.seen_size

    def newest_note(self) -> bytes:
        """The checkpoint to show to others: of the largest log seen; empty before the first."""
        if self._ahead:
            return self._ahead[max(self._ahead)][1]
        return self.replica.checkpoint()

    def accept_host(self, note: bytes, new_log_key: bytes, proof: Sequence[bytes] = ()) -> None:
        """Follow another log service from now on, if it continues the log that was seen.

        Args:
            note: the newest checkpoint of the new service.
            new_log_key: its Ed25519 key, learnt from a person or member who is trusted to name it.
            proof: that the checkpoint extends the replica; empty if it is of the same size.
        Raises: MalformedRecord: the note is not signed by this key; LogForked: the new log lacks entries that
            this member has seen (`engine.rehost.resend`), or is another one.
        """
        checkpoint = open_checkpoint(note, new_log_key, origin=origin_of(self.volume))
        size = self.frontier.size
        if checkpoint.size < self.seen_size:
            raise self._forked(
                f"the new service has {checkpoint.size} of {self.seen_size} entries; it lacks what was seen"
            )
        try:
            check_consistency(size, self.frontier.root(), checkpoint.size, checkpoint.root, proof)
        except MalformedRecord as error:
            raise self._forked(f"the new service's log is not that of {size} entries seen before") from error
        if self._ahead.get(checkpoint.size, (checkpoint.root,))[0] != checkpoint.root:
            raise self._forked(f"the new service has another log of {checkpoint.size} entries")
        if checkpoint.size == size:
            self.replica.replace_checkpoint(note)
        self._log_key, self.refused, self.suspicion = new_log_key, "", None
        self._see(note, checkpoint)

    def begin(self, beginning: Beginning, rows: Iterator[bytes], digest: bytes) -> None:
        """Begin with a view snapshot instead of the log's first entry; replica and view are empty.

        Args:
            beginning: that was verified; its note was compared.
            rows: of the snapshot's state.
            digest: what its author signed that it hashes to.
        Raises: MalformedRecord: it is another state, and nothing has changed; StoreFailed, DiskFull.
        """
        self._check_refused()
        if self._clear is None or self.replica.size or self.view.size:
            raise InternalError(reason="a replica begins once, with a place for its clear part")
        self.view.begin(beginning.head.size, beginning.head.time_ns, rows, digest)
        # Before the replica: without it that could not be opened.  Of an empty replica it says nothing.
        self._clear.keep(dump_clear(beginning.part))
        tail = beginning.tail
        logged = [LoggedEntry(entry.hash, entry.signed) for entry in tail]
        self.replica.begin(beginning.head.size, logged, beginning.nodes, beginning.note)
        self._kept_clear.taken(beginning.part)
        self.membership, self.frontier = beginning.membership, frontier_of(beginning.part.head)
        self.ring.follow(self.membership)
        for size in [size for size in self._ahead if size <= self.frontier.size]:
            del self._ahead[size]
        fold(self.view, self.ring, iter(tail))

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
        self._take(signed, note, checkpoint, proof, open_entries)

    def _take(
        self,
        signed: Sequence[bytes],
        note: bytes,
        checkpoint: Checkpoint,
        proof: Sequence[bytes],
        opening: Callable[[Sequence[bytes]], Sequence[SignedEntry | MalformedRecord | UnknownVersion]],
    ) -> None:
        self._check_refused()
        start = self.frontier.size
        frontier, nodes = self.frontier.extend(entry_hash(one) for one in signed)
        known = {(node.level, node.index): node.hash for node in nodes}
        roots = {frontier.size: frontier.root()}

        def root(size: int) -> bytes:
            if size <= start:
                return self.root(size)
            if size not in roots:
                roots[size] = Frontier.at(size, self._nodes(known)).root()
            return roots[size]

        try:
            check_consistency(frontier.size, frontier.root(), checkpoint.size, checkpoint.root, proof)
        except MalformedRecord as error:
            self._not_its_entries(note, checkpoint, error)
        passed = sorted(size for size in self._ahead if size <= frontier.size)
        for size in passed:
            if self._ahead[size][0] != root(size):
                reason = f"it had signed for another log of {size} entries"
                pair = (self._ahead[size][1], note)
                raise self._accused(Suspicion(reason, pair, checkpoint.size, (size - 1,)), known)
        entries: list[SignedEntry] = []
        membership, ring = self.membership.copy(), self.ring.copy()
        for at, (one, entry) in enumerate(zip(signed, opening(signed), strict=True), start):
            try:
                if not isinstance(entry, SignedEntry):
                    raise entry
                entries.append(entry)
                membership.admit(entry, at)
            except MalformedRecord as error:
                reason = f"entry {at} is signed by nobody: {error}"
                raise self._accused(
                    Suspicion.of_entry(reason, note, checkpoint.size, at, one), known
                ) from error
            except EntryRefused as error:
                before = list(signed[: at - start + 1])
                reason = f"entry {at} may not stand there: {error}"
                suspicion = Suspicion.of_history(reason, note, checkpoint.size, at, before)
                raise self._accused(suspicion, known) from error
            seen = entry.entry.seen_size
            if seen and self._knows(seen) and root(seen) != entry.entry.seen_root:
                reason = f"the author of entry {at} was shown another log of {seen} entries"
                raise self._accused(Suspicion.of_entry(reason, note, checkpoint.size, at, one, seen), known)
            if entry.entry.act is not None:
                ring.follow(membership)
        self.replica.append([LoggedEntry(entry.hash, entry.signed) for entry in entries], nodes, note)
        self.membership, self.ring, self.frontier = membership, ring, frontier
        for size in sorted(roots):
            self._roots.keep(size, roots[size])
        for size in passed:
            del self._ahead[size]
        behind = self.view.size < self.frontier.size - len(entries)
        fold(self.view, self.ring, self._kept(self.view.size) if behind else iter(entries))

    def take_own(self, signed: bytes, index: int, note: bytes) -> bool:
        """Take an entry that was sent from here, as `take`, if it is all that the service has beyond the
        replica: its checkpoint shows that this entry and no other stands there, so none need be fetched.

        Args:
            index: where it has put the entry.
            note: its newest checkpoint.
        Returns: whether that is so; if not, nothing was taken.
        Raises: as `follows`, `take`.
        """
        follows = self.follows(note)
        if (follows.start, follows.stop) != (index, index + 1):
            return False
        if self.frontier.append(entry_hash(signed))[0].root() != follows.checkpoint.root:
            return False  # whoever fetches what it has put there sees why
        # Its signature is of this process: to check it would be a quarter of the work here.
        self._take([signed], note, follows.checkpoint, (), lambda own: [known_entry(one) for one in own])
        return True

    def root(self, size: int) -> bytes:
        """The root of the replica's first `size` entries."""
        return self._roots.root(size)

    def _knows(self, size: int) -> bool:
        """Whether the tree of the first entries is known: not of so few that they came before a snapshot."""
        return size == 0 or size >= self.replica.start

    # --- what it signed -----------------------------------------------------------------------

    def _see(self, note: bytes, checkpoint: Checkpoint) -> None:
        if self._checkpoints is not None:
            self._checkpoints.keep(checkpoint.size, note)
        if checkpoint.size > self.frontier.size and len(self._ahead) < _AHEAD_MAX:
            self._ahead[checkpoint.size] = checkpoint.root, note

    def known_notes(self, start: int = 0) -> Iterator[bytes]:
        """Every checkpoint that was seen, of at least `start` entries; the replica's own comes first."""
        own = self.replica.checkpoint()
        if own and _of_own(own).size >= start:
            yield own
        if self._checkpoints is not None:
            yield from self._checkpoints.notes(start)

    def _contradiction(self, note: bytes, checkpoint: Checkpoint, reason: str) -> None:
        """It signed a note for another past than the replica's; what it signed of that one contradicts it."""
        largest = None
        for other in self.known_notes(checkpoint.size):
            largest, size = other, _of_own(other).size
            if size <= self.frontier.size:
                raise self._accused(Suspicion(reason, (note, other), size, (checkpoint.size - 1,)), {})
        if largest is None:
            raise self._forked(reason)
        size = _of_own(largest).size
        raise self._accused(Suspicion(reason, (note, largest), size, (checkpoint.size - 1,)), None)

    def _not_its_entries(self, note: bytes, checkpoint: Checkpoint, error: MalformedRecord) -> None:
        """What it sent is not what it signed.  If it can show what it signed, that may be another log."""
        reason = "the entries are not those of its checkpoint"
        known = [other for other in self.known_notes(1) if _of_own(other).size <= self.frontier.size]
        if not known:
            raise self._forked(reason) from error
        own = max(known, key=lambda other: _of_own(other).size)
        last = _of_own(own).size - 1
        raise self._accused(Suspicion(reason, (own, note), checkpoint.size, (last,)), None) from error

    def _accused(self, suspicion: Suspicion, known: dict[tuple[int, int], bytes] | None) -> LogForked:
        """The error, with evidence if the proofs for it can be made here.

        Args:
            suspicion: what is wrong.
            known: complete subtrees behind the replica's of the tree that the proofs are of; None if that
                tree is not the replica's.
        """
        if known is None:
            return self._suspected(suspicion)
        node = self._nodes(known)
        try:
            proofs = [
                LeafProof(node(0, at), inclusion_path(at, suspicion.size, node)) for at in suspicion.asks
            ]
        except StoreFailed:  # the checkpoint is of more entries than are here
            return self._suspected(suspicion)
        return self.convict(suspicion, proofs)

    def _nodes(self, known: dict[tuple[int, int], bytes]) -> NodeReader:
        """The tree of the replica and of complete subtrees behind it."""
        return lambda level, index: known.get((level, index)) or self.replica.node(level, index)

    def _suspected(self, suspicion: Suspicion) -> LogForked:
        """The service may give the proofs."""
        forked = self._forked(suspicion.reason)
        self.suspicion = suspicion
        return forked

    def convict(self, suspicion: Suspicion, proofs: Sequence[LeafProof]) -> LogForked:
        """Make evidence of a suspicion.

        Args:
            suspicion: of this follower.
            proofs: of the entries it asks for, in order, from anybody.
        Returns: the error to raise.  If there is evidence, it is stored, and the service is refused from now.
        """
        try:
            charge = charge_of(suspicion, proofs, self._prefix)
            evidence = make_evidence(self.volume, self._log_key, charge)
        except (MalformedRecord, StoreFailed):
            return self._forked(suspicion.reason)
        return self._convicted(evidence, suspicion.reason)

    def _convicted(self, evidence: bytes, reason: str) -> LogForked:
        """With evidence that was verified; the service is refused from now on."""
        self.refused = self._evidence_sink(evidence) if self._evidence_sink else "not kept"
        return self._forked(f"{reason}; evidence: {self.refused}")

    def _prefix(self, bytes_max: int) -> list[bytes]:
        """All entries of the replica, for a history that is evidence.  Raises: MalformedRecord: too long."""
        if self.replica.start:
            raise MalformedRecord(format="evidence", reason="the replica does not have the whole history")
        found: list[bytes] = []
        while len(found) < self.replica.size:
            part = self.replica.read(len(found), self.replica.size, bytes_max=_REPLAY_BYTES)
            bytes_max -= sum(map(len, part))
            if bytes_max < 0:
                raise MalformedRecord(format="evidence", reason="the history is too long")
            found += part
        return found

    def _check_refused(self) -> None:
        if self.refused:
            raise self._forked(f"it was refused before; evidence: {self.refused}")

    def _forked(self, reason: str) -> LogForked:
        """One that no proof can make evidence of."""
        self.suspicion = None
        if self.replica.start:
            reason += "; or the view snapshot is wrong that this replica begins with: 'muni volume fetch VOL'"
        return LogForked(volume=self.volume, reason=reason)


def _of_own(note: bytes) -> Checkpoint:
    """What a note of one's own store says; its signature was verified when it came."""
    return decode_checkpoint(decode_note(note).text)

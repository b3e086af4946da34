"""The audit of a log: every entry, every stored hash, every checkpoint and cosignature (docs/audit.md 3).

Reads the log once, from its first entry to its last, in constant memory.  Two things are told apart:

- Damage: bytes that do not fit the hashes stored with them, or that no signature covers.
- Forgery: entries that verify and may not stand where they stand, a tree that the log's key signed and that
  is not that of its entries, entries that do not verify and are signed for all the same.

Behind an entry that does not verify nobody's rights can be judged, since that entry may have changed them;
signatures, hashes and checkpoints are checked to the end.

Source: docs/spec/entry.md section 1, docs/spec/checkpoint.md.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Final

from muniment.audit.report import AuditReport
from muniment.core.membership import Membership
from muniment.crypto.checkpoints import key_id, open_checkpoint
from muniment.crypto.entries import SignedEntry, entry_hash, known_entry, open_entry
from muniment.crypto.identity import verify_signature
from muniment.errors import EntryRefused, IntegrityError, MalformedRecord, StoreFailed, UnknownVersion
from muniment.ids import EntryHash, VolumeId
from muniment.merkle.log_tree import HASH_BYTES, Frontier
from muniment.ports import AuditedLog
from muniment.spec.checkpoint import (
    COSIGNATURE_V1,
    ED25519,
    Checkpoint,
    cosigned_message,
    decode_cosignature,
    decode_note,
    origin_of,
    witness_of,
)
from muniment.spec.entry import decode_payload, split_signed
from muniment.spec.limits import MIB

_READ_BYTES: Final = MIB
_READ_ENTRIES: Final = 512
_GAP_MAX: Final = 4096
"""Entries missing one behind the other; then the rest is not looked for one by one."""

_FRONTIERS_KEPT: Final = 4096
"""Sizes whose root is known without the stored tree: almost all authors have seen one of them."""

_FETCH: Final = "fetch it again from the log service, another member or a backup"

Opened = SignedEntry | str
"""A verified entry, or why it does not verify."""


@dataclass(frozen=True, slots=True)
class _Note:
    """A checkpoint to be held against the tree when that has its size."""

    place: str
    note: bytes
    checkpoint: Checkpoint


class LogAudit:
    """One log under audit.

    Args:
        store: the log.
        volume: that it must be of.
        log_keys: Ed25519 keys of its service, the present one first, and of those that had it before.
        notes: further signed checkpoints of it that the holder has seen.
        report: what is found goes there.
        executor: verifies signatures besides, in other processes; None: here.

    Attributes:
        membership: after the entries that were judged.
        whole: nothing was found up to now that keeps rights from being judged.
    """

    def __init__(
        self,
        store: AuditedLog,
        volume: VolumeId,
        log_keys: Sequence[bytes],
        notes: Sequence[bytes],
        report: AuditReport,
        executor: Executor | None = None,
    ) -> None:
        self.membership = Membership()
        self.whole = True
        self._store = store
        self._volume = volume
        self._log_keys = log_keys
        self._given = notes
        self._report = report
        self._executor = executor
        self._size = store.size
        self._frontier = Frontier()
        self._frontiers: OrderedDict[int, Frontier] = OrderedDict()
        self._known_root: tuple[int, bytes] = (0, self._frontier.root())
        self._sound = True  # no entry is damaged: what does not fit a signed root is a forgery
        self._leaves_whole = True  # no leaf hash had to be made up
        self._nodes_whole = True
        self._doubtful: list[tuple[int, str, bool]] = []
        self._vouched = 0  # entries that a signed checkpoint of this very tree covers
        self._waiting: dict[int, list[_Note]] = {}

    def walk(self) -> Iterator[SignedEntry | None]:
        """Check everything; yields each entry in order, or None from the first one on that cannot be judged
        or whose author had no right to write it there.
        """
        report = self._report
        report.entries = self._size
        for line in self._guarded("the log's file", self._store.inspect) or ():
            report.damaged("the log's file", line, f"parts of the log may be lost or misread; {_FETCH}")
        self._take_notes()
        self._judge_notes()
        for at, signed, opened, leaf in self._entries():
            entry = self._check_entry(at, signed, opened, leaf)
            self._judge_notes()
            yield entry
        self._end()

    # --- reading ------------------------------------------------------------------------------

    def _entries(self) -> Iterator[tuple[int, bytes | None, Opened, bytes | None]]:
        """Place, bytes, what they open to, and stored leaf hash of every entry; bytes are None if missing."""
        at = gap = 0
        ahead = self._fetch(at)
        while at < self._size:
            batch, ahead = ahead, None
            signed = batch.signed if batch is not None else []
            if signed:
                ahead = self._fetch(at + len(signed))
            begun = at
            for one, opened in zip(signed, batch.opened() if batch is not None else (), strict=True):
                leaf = self._node(0, at)
                if leaf is None:
                    break  # this row is missing, and what was read in its place is another
                yield at, one, opened, leaf
                at, gap = at + 1, 0
            if at == begun + len(signed) and signed:
                continue
            yield at, None, "it is missing", None
            at, gap = at + 1, gap + 1
            if gap == _GAP_MAX:
                self._report.damaged(
                    f"entries {at} to {self._size - 1}", "they are not looked for", f"lost; {_FETCH}"
                )
                return
            ahead = self._fetch(at)

    def _fetch(self, at: int) -> _Batch | None:
        """Read some entries and begin to verify them; None if there are none, or they cannot be read."""
        stop = min(at + _READ_ENTRIES, self._size)
        if at >= stop:
            return None
        try:
            signed = self._store.read(at, stop, bytes_max=_READ_BYTES)[: stop - at]
        except StoreFailed:
            try:
                signed = self._store.read(at, at + 1, bytes_max=1)[:1]
            except StoreFailed:
                return None
        return _Batch(signed, self._executor)

    def _node(self, level: int, index: int) -> bytes | None:
        try:
            return self._store.node(level, index)
        except StoreFailed:
            return None

    def _guarded(self, place: str, work: Callable[[], Sequence[str]]) -> Sequence[str] | None:
        try:
            return work()
        except StoreFailed as error:
            self._report.damaged(place, str(error), f"it cannot be checked; {_FETCH}")
            return None

    # --- entries ------------------------------------------------------------------------------

    def _check_entry(
        self, at: int, signed: bytes | None, opened: Opened, leaf: bytes | None
    ) -> SignedEntry | None:
        """Check one entry and put it into the tree; returns it if all rights up to it are in order."""
        place, report = f"entry {at}", self._report
        if isinstance(opened, SignedEntry):
            report.signatures += 1
            report.nodes += 1
            if leaf != opened.hash:
                report.damaged(
                    f"leaf hash of entry {at}",
                    "it is not that of the entry, which is whole",
                    "proofs made of this file fail and the entry is not found by its hash",
                )
            self._grow(opened.hash)
            return opened if self._judge(at, opened) else None
        found = entry_hash(signed) if signed is not None else None
        if found is not None and found == leaf:
            # Whoever wrote it down wrote it like this: if the log's signature covers it, it is a forgery.
            if len(self._doubtful) < _GAP_MAX:
                self._doubtful.append((at, opened, _is_newer(signed)))
        else:
            self._sound = False
            report.damaged(
                place,
                opened,
                f"what its author wrote is lost here, and rights behind it are unknown; {_FETCH}",
            )
        self._stop_judging(at)
        if leaf is None or len(leaf) != HASH_BYTES:
            self._leaves_whole = False
            leaf = found or bytes(HASH_BYTES)
        self._grow(EntryHash(leaf))
        return None

    def _stop_judging(self, at: int) -> None:
        if self.whole:
            self.whole = False
            self._report.content = f"rights and content from entry {at} on cannot be judged"

    def _grow(self, leaf: EntryHash) -> None:
        """Append to the tree, and compare the subtrees that become complete with those that are stored."""
        self._frontier, completed = self._frontier.append(leaf)
        for node in completed[1:]:
            self._report.nodes += 1
            if self._node(node.level, node.index) != node.hash:
                self._nodes_whole = False
                if self._leaves_whole:
                    self._report.damaged(
                        f"tree node {node.level}/{node.index}",
                        "it is missing, or not the hash of the entries below it",
                        "proofs made of this file fail; the entries are not concerned",
                    )
        self._frontiers[self._frontier.size] = self._frontier
        if len(self._frontiers) > _FRONTIERS_KEPT:
            self._frontiers.popitem(last=False)

    def _judge(self, at: int, entry: SignedEntry) -> bool:
        """Whether rights are in order up to this entry, its own included."""
        if not self.whole:
            return False
        try:
            self.membership.admit(entry, at)
        except EntryRefused as error:
            self._report.forged(
                f"entry {at}",
                f"it may not stand there: {error}",
                "the log service has ordered what it had to refuse, or dropped, moved or put in entries; "
                "trust nothing from here on and keep this log as evidence",
            )
            self._stop_judging(at)
            return False
        if at == 0 and self.membership.volume != self._volume:
            self._report.forged(
                "entry 0",
                "it founds another volume",
                "this is the log of another volume in the place of this one; trust nothing of it",
            )
            self._stop_judging(at)
            return False
        seen, root = entry.entry.seen_size, entry.entry.seen_root
        if 0 < seen <= at and self._sound and self._root(seen) not in (root, None):
            self._report.forged(
                f"entry {at}",
                f"its author was shown another log of {seen} entries",
                "the log service keeps several logs of this volume, or the author lies; compare with others",
            )
        self._report.judged += 1
        return True

    def _root(self, size: int) -> bytes | None:
        """The root of the first entries; None if the stored tree would be needed and is damaged."""
        if self._known_root[0] == size:
            return self._known_root[1]
        frontier = self._frontiers.get(size)
        if frontier is None:
            if not self._nodes_whole:
                return None
            try:
                frontier = Frontier.at(size, self._store.node)
            except (StoreFailed, MalformedRecord):
                return None
        self._known_root = size, frontier.root()
        return self._known_root[1]

    # --- checkpoints --------------------------------------------------------------------------

    def _take_notes(self) -> None:
        """Verify the signatures of all notes, and have them wait for their sizes."""
        place = "the stored checkpoint"
        try:
            stored = self._store.checkpoint()
        except StoreFailed as error:
            self._report.damaged(place, str(error), "nothing in this file shows what the service signed")
        else:
            self._take_note(place, stored, stored=True)
        for number, note in enumerate(self._given):
            self._take_note(f"note {number}", note, stored=False)

    def _take_note(self, place: str, note: bytes, *, stored: bool) -> None:
        report, origin = self._report, origin_of(self._volume)
        try:
            checkpoint = self._opened_note(note)
        except MalformedRecord as error:
            report.damaged(place, str(error), f"nobody vouches for it; {_FETCH}")
            return
        if checkpoint.origin != origin:
            report.forged(
                place,
                f"the log's key signed it for {checkpoint.origin}",
                "a checkpoint of another log stands in the place of this one's",
            )
            return
        if checkpoint.size > self._size:
            report.damaged(
                place,
                f"the log's service signed for {checkpoint.size} entries, and {self._size} are here",
                f"entries {self._size} to {checkpoint.size - 1} are missing; if the service has no more "
                "either, it has dropped them, and this note is the evidence",
            )
            return
        if stored and checkpoint.size < self._size:
            report.damaged(
                place,
                f"it is for {checkpoint.size} entries, and {self._size} are here",
                f"nobody vouches for the place of entries {checkpoint.size} to {self._size - 1}",
            )
        self._waiting.setdefault(checkpoint.size, []).append(_Note(place, note, checkpoint))

    def _opened_note(self, note: bytes) -> Checkpoint:
        """A checkpoint that a service of this log signed.  Raises: MalformedRecord."""
        for former in self._log_keys[1:]:
            try:
                return open_checkpoint(note, former)
            except MalformedRecord:
                continue
        return open_checkpoint(note, self._log_keys[0])

    def _judge_notes(self) -> None:
        """Hold the notes of the present size against the tree."""
        size = self._frontier.size
        for one in self._waiting.pop(size, ()):
            self._report.notes += 1
            if one.checkpoint.root == self._frontier.root():
                self._vouched = size
                self._check_cosignatures(one)
            elif self._sound:
                self._report.forged(
                    one.place,
                    f"the log's key signed another log of {size} entries",
                    "its service keeps several logs of this volume; keep this note and this log as evidence",
                )
            else:
                self._report.damaged(
                    one.place,
                    f"it is not of the {size} entries that are here",
                    "the damage that was found explains it, or there is more; repair and audit again",
                )

    def _check_cosignatures(self, one: _Note) -> None:
        """Every signature on a note is the log's or a member's, and verifies."""
        report = self._report
        origin = one.checkpoint.origin
        services = {(origin, key_id(origin, ED25519, key)) for key in self._log_keys}
        witnesses = {}
        for member in self.membership.members:
            name = witness_of(member)
            witnesses[name, key_id(name, COSIGNATURE_V1, member)] = member
        note = decode_note(one.note)
        for line in note.signatures:
            if (line.name, line.key_id) in services:
                continue  # verified when the note was taken
            witness = witnesses.get((line.name, line.key_id))
            if witness is None:
                # Services and members keep the cosignatures of members only, so it was one once.
                if self.whole:
                    report.damaged(
                        one.place,
                        f"a signature by {line.name} is of no member's key",
                        "it says nothing; a witness may have to cosign again",
                    )
                continue
            try:
                time_s, signature = decode_cosignature(line.signature)
                verify_signature(witness, signature, cosigned_message(note.text, time_s))
            except MalformedRecord as error:
                report.damaged(
                    one.place, f"the cosignature of {line.name}: {error}", "this witness has to cosign again"
                )
            else:
                report.cosignatures += 1

    def _end(self) -> None:
        if self._size == 0:
            self._report.damaged("the log", "it has no entries", f"everything is missing; {_FETCH}")
        for at, reason, newer in self._doubtful:
            if at < self._vouched and not newer:
                self._report.forged(
                    f"entry {at}",
                    f"no author signed it ({reason}), and the log's key signed for it",
                    "the log service has put it in; trust nothing from here on and keep this log as evidence",
                )
            else:
                self._report.damaged(f"entry {at}", reason, f"rights behind it are unknown; {_FETCH}")


class _Batch:
    """Entries that were read, being verified."""

    def __init__(self, signed: Sequence[bytes], executor: Executor | None) -> None:
        self.signed = signed
        self._reasons: Future[list[str]] | None = None
        if executor is not None:
            self._reasons = executor.submit(unverified, signed)

    def opened(self) -> Iterator[Opened]:
        """What each entry opens to."""
        if self._reasons is None:
            yield from map(_opened, self.signed)
            return
        for signed, reason in zip(self.signed, self._reasons.result(), strict=True):
            yield reason or known_entry(signed)


def unverified(signed: Sequence[bytes]) -> list[str]:
    """Why each of some entries does not verify; empty where it does.  For other processes."""
    return [opened if isinstance(opened := _opened(one), str) else "" for one in signed]


def _is_newer(signed: bytes | None) -> bool:
    """Whether a later program may be able to read an entry."""
    try:
        decode_payload(split_signed(signed or b"")[0])
    except UnknownVersion:
        return True
    except MalformedRecord:
        pass
    return False


def _opened(signed: bytes) -> Opened:
    try:
        return open_entry(signed)
    except IntegrityError as error:
        return str(error)

"""Beginning a replica with a view snapshot: what must fit together before anything of it is believed.

    head      of the log at the snapshot's size, from the snapshot, whose author signed it
    part      the clear part at the log's end, from the log service, whose checkpoint covers it
    tail      all entries in between, from the log service

The tail must lead from the one to the other: the tree, the authors, the times and the members.  So to deceive
a newcomer about who the members are takes a writer and the log service together, and an audit of the whole
log shows it.  Source: docs/spec/view_snapshot.md section 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from muniment.core.clear_part import frontier_of, head_of, proven_nodes, replayed, resumed
from muniment.core.membership import Membership
from muniment.crypto.entries import SignedEntry, known_entry, open_entry
from muniment.errors import EntryRefused, MalformedRecord
from muniment.ids import VolumeId
from muniment.merkle.log_tree import Frontier, Subtree
from muniment.spec.clear_part import ClearHead, ClearPart


@dataclass(frozen=True, slots=True)
class ClearEnd:
    """The clear part at a log's end, verified.

    Attributes:
        note: the signed checkpoint that covers it.
        membership: that it leads to.
    """

    note: bytes
    part: ClearPart
    membership: Membership = field(repr=False)


@dataclass(frozen=True, slots=True)
class Beginning:
    """All that a replica begins with.

    Attributes:
        head: at the snapshot's size: the replica's first entry.
        part: at the log's end.
        note: the checkpoint there.
        tail: the entries in between, their signatures and rights verified.
        nodes: of the tree: what the replica needs besides its entries.
        membership: at the log's end.
    """

    head: ClearHead
    part: ClearPart
    note: bytes
    tail: tuple[SignedEntry, ...]
    nodes: tuple[Subtree, ...]
    membership: Membership = field(repr=False)


def clear_end(
    note: bytes,
    size: int,
    root: bytes,
    part: ClearPart,
    volume: VolumeId,
    follow: Callable[[Membership], None] = lambda membership: None,
) -> ClearEnd:
    """Verify the clear part at a log's end.

    Args:
        note: of a checkpoint that was verified.
        size, root: what it says.
        follow: called after each act.
    Raises: MalformedRecord, UnknownVersion: it is of another log or size.
    Cost: one signature check for each act.
    """
    if part.head.size != size or frontier_of(part.head).root() != root:
        raise _malformed("the clear part is not that of its checkpoint")
    return ClearEnd(note, part, resumed(part, volume, open_entry, follow))


def checked_beginning(head: ClearHead, end: ClearEnd, tail: Iterable[bytes]) -> Beginning:
    """Verify that the tail leads from a snapshot to the log's end.

    Args:
        head: from the snapshot.
        end: of the log.
        tail: the entries from `head.size` on, from anybody.
    Raises: MalformedRecord, UnknownVersion: something does not fit.
    Cost: one signature check for each entry of the tail.
    """
    final, volume = end.part.head, end.membership.volume
    if head.volume != volume or head.size >= final.size:
        raise _malformed("the snapshot is of another volume, or of a later state")
    entries = tuple(map(open_entry, tail))
    before = frontier_of(head)
    after, completed = before.extend(entry.hash for entry in entries)
    if after != frontier_of(final):
        raise _malformed("the entries behind the snapshot do not lead to the log's checkpoint")
    hashes = [place.hash for place in end.membership.acts]
    known = {(node.level, node.index): node for node in _peaks(before)}
    known |= {(node.level, node.index): node for node in proven_nodes(end.part, head.size, hashes)}
    known |= {(node.level, node.index): node for node in completed}
    acts = [(act, known_entry(act.signed)) for act in end.part.acts if act.index < head.size]
    membership = replayed(head, volume, acts)
    for at, entry in enumerate(entries, head.size):
        try:
            membership.admit(entry, at)
        except EntryRefused as error:
            raise _malformed(f"entry {at} may not follow the snapshot: {error}") from error
        seen = entry.entry.seen_size
        if seen >= head.size and entry.entry.seen_root != _root(seen, known):
            raise _malformed(f"the author of entry {at} was shown another log")
    if head_of(membership, after) != final:
        raise _malformed("it does not lead to the clear part at the log's end")
    return Beginning(head, end.part, end.note, entries, tuple(known.values()), membership)


def _root(size: int, known: dict[tuple[int, int], Subtree]) -> bytes:
    return Frontier.at(size, lambda level, index: known[level, index].hash).root()


def _peaks(frontier: Frontier) -> list[Subtree]:
    """The frontier's subtrees by name."""
    levels = (level for level in reversed(range(frontier.size.bit_length())) if frontier.size >> level & 1)
    return [
        Subtree(level, (frontier.size >> level) - 1, node)
        for level, node in zip(levels, frontier.hashes, strict=True)
    ]


def _malformed(reason: str) -> MalformedRecord:
    return MalformedRecord(format="view snapshot", reason=reason)

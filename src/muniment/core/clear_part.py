"""The clear part of a log in short: made by who knows all of it, verified and taken over by who does not.

    clear_part(membership, frontier, node, signed)   at the end of a log
    resumed(part, open_entry, follow)                the same membership, from the acts alone

What is proved: the acts are in the tree of `frontier`, which the caller compares with a signed checkpoint;
they follow the rules of membership one after the other; the rest adds up.  What is believed: that no act was
left out, and the times of the log between them.  Whoever gives such a part therefore stands for it: a log
service for what it ordered, a store of one's own for what was verified before.
Source: docs/spec/view_snapshot.md section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from muniment.core.membership import ActPlace, AuthorTail, Membership
from muniment.crypto.entries import SignedEntry
from muniment.crypto.hashing import derive
from muniment.errors import EntryRefused, MalformedRecord
from muniment.ids import EntryHash, VolumeId
from muniment.merkle.log_tree import Frontier, NodeReader, Subtree, check_inclusion, inclusion_path
from muniment.spec.clear_part import (
    HASH_BYTES,
    ClearAct,
    ClearHead,
    ClearPart,
    ClearTail,
    decode_clear,
    encode_clear,
)
from muniment.spec.tags import CLEAR_ACTS, CLEAR_PART

_FORMAT: Final = "clear part"
_NUMBER_BYTES: Final = 8


def head_of(membership: Membership, frontier: Frontier) -> ClearHead:
    """The head at the end of the log that `membership` has folded."""
    tails = membership.tails()
    return ClearHead(
        membership.volume,
        membership.size,
        membership.time_ns,
        frontier.hashes,
        tuple(ClearTail(author, tails[author].sequence, tails[author].previous) for author in sorted(tails)),
        len(membership.acts),
        _acts_hash(membership.acts),
    )


def clear_part(
    membership: Membership, frontier: Frontier, node: NodeReader, signed: Callable[[int], bytes]
) -> ClearPart:
    """Head and acts at the end of the log that `membership` has folded.

    Args:
        frontier: of that log.
        node: its tree's complete subtrees.
        signed: gives the entry in a place.
    Cost: O(acts), with O(log size) look-ups for each.
    """
    acts = []
    for place in membership.acts:
        level, first = _peak(place.index, frontier.size)

        def below(at: int, index: int, start: int = first) -> bytes:
            return node(at, index + (start >> at))

        path = inclusion_path(place.index - first, 1 << level, below)
        acts.append(ClearAct(place.index, place.time_ns, signed(place.index), path))
    return ClearPart(head_of(membership, frontier), tuple(acts))


def dump_clear(part: ClearPart) -> bytes:
    """The encoding with its hash."""
    body = b"".join(encode_clear(part))
    return body + derive(CLEAR_PART, body)


def load_clear(data: bytes) -> ClearPart:
    """Read what `dump_clear` made.  Raises: MalformedRecord: other bytes; UnknownVersion."""
    body = memoryview(data)[:-HASH_BYTES]
    if len(data) <= HASH_BYTES or derive(CLEAR_PART, body) != data[-HASH_BYTES:]:
        raise MalformedRecord(format=_FORMAT, reason="its hash is another one")
    return decode_clear(bytes(body))


def frontier_of(head: ClearHead) -> Frontier:
    """Of the log's tree at the head's size."""
    return Frontier(head.size, head.frontier)


def resumed(
    part: ClearPart,
    volume: VolumeId,
    open_entry: Callable[[bytes], SignedEntry],
    follow: Callable[[Membership], None] = lambda membership: None,
) -> Membership:
    """The membership after `part.head.size` entries.

    Args:
        part: from anybody; its frontier is checked by the caller.
        volume: that it must be of.
        open_entry: verifies an act's signature, or trusts a store of one's own.
        follow: called after each act.
    Raises: MalformedRecord, UnknownVersion: it is not the clear part of a log with this frontier.
    Cost: O(acts), one signature check for each.
    """
    frontier, entries = frontier_of(part.head), []
    for act in part.acts:
        if act.index >= part.head.size:
            raise _malformed(f"an act at {act.index} of {part.head.size}")
        entry = open_entry(act.signed)
        level, first = _peak(act.index, frontier.size)
        top = frontier.hashes[_peaks_before(level, frontier.size)]
        check_inclusion(entry.hash, act.index - first, 1 << level, act.path, top)
        entries.append((act, entry))
    return replayed(part.head, volume, entries, follow)


def replayed(
    head: ClearHead,
    volume: VolumeId,
    acts: Iterable[tuple[ClearAct, SignedEntry]],
    follow: Callable[[Membership], None] = lambda membership: None,
) -> Membership:
    """As `resumed`, with acts that were found in the log before.  Raises: MalformedRecord."""
    membership = Membership()
    try:
        for act, entry in acts:
            if entry.entry.act is None:
                raise _malformed(f"entry {act.index} is no act")
            tail = AuthorTail(entry.entry.sequence, entry.entry.previous)
            passed = {} if tail == membership.tail(entry.entry.author) else {entry.entry.author: tail}
            membership.pass_over(act.index, act.time_ns, passed)
            membership.admit(entry, act.index)
            follow(membership)
        tails = {tail.author: AuthorTail(tail.sequence, tail.previous) for tail in head.tails}
        membership.pass_over(head.size, head.time_ns, tails)
    except EntryRefused as error:
        raise _malformed(str(error)) from error
    if membership.volume != volume or head_of(membership, frontier_of(head)) != replace(head, volume=volume):
        raise _malformed("the acts do not lead to its head")
    return membership


def proven_nodes(part: ClearPart, below: int, hashes: Sequence[EntryHash]) -> list[Subtree]:
    """The subtrees that the acts before `below` prove: with them their paths can be given again.

    Args:
        hashes: of the acts' entries, in order.
    """
    found = {}
    for act, leaf in zip(part.acts, hashes, strict=True):
        if act.index >= below:
            break
        found[0, act.index] = bytes(leaf)
        for level, sibling in enumerate(act.path):
            found[level, act.index >> level ^ 1] = sibling
    return [Subtree(level, index, node) for (level, index), node in found.items()]


def _peak(index: int, size: int) -> tuple[int, int]:
    """Level and first entry of the frontier's subtree that an entry is in."""
    first = 0
    for level in reversed(range(size.bit_length())):
        if size >> level & 1:
            if index < first + (1 << level):
                return level, first
            first += 1 << level
    raise _malformed(f"no entry {index} of {size}")


def _peaks_before(level: int, size: int) -> int:
    """How many of the frontier's subtrees are larger than that of this level."""
    return (size >> (level + 1)).bit_count()


def _acts_hash(acts: Sequence[ActPlace]) -> bytes:
    numbers = (
        act.index.to_bytes(_NUMBER_BYTES, "big") + act.time_ns.to_bytes(_NUMBER_BYTES, "big") + act.hash
        for act in acts
    )
    return derive(CLEAR_ACTS, b"".join(numbers))


def _malformed(reason: str) -> MalformedRecord:
    return MalformedRecord(format=_FORMAT, reason=reason)

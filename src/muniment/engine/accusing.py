"""From a suspicion against a log service to evidence: which proofs are missing, and asking for them.

A member sees that something cannot be before he can show it to others: the proof is a path in the tree of a
checkpoint of which he may not have all entries.  The service is asked for it; one that forked and runs honest
code gives it away, and one that does not answer is refused for this time only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from muniment.crypto.entries import entry_hash
from muniment.errors import MalformedRecord
from muniment.ports import LogClient
from muniment.spec.checkpoint import decode_checkpoint, decode_note
from muniment.spec.evidence import (
    EVIDENCE_BYTES_MAX,
    Charge,
    Contradiction,
    LeafProof,
    WrongEntry,
    WrongHistory,
)


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Something cannot be.

    Attributes:
        reason: for people.
        notes: two that contradict each other, or the one under which the entries stand.
        size: of the tree that the proofs are of.
        asks: entries whose inclusion proofs in this tree make evidence of it.
        entries: the wrong entry, or those behind the replica up to it.
        history: whether the entries before it are needed too.
    """

    reason: str
    notes: tuple[bytes, ...]
    size: int
    asks: tuple[int, ...]
    entries: tuple[bytes, ...] = field(default=(), repr=False)
    history: bool = False

    @classmethod
    def of_entry(
        cls, reason: str, note: bytes, size: int, index: int, signed: bytes, seen_size: int = 0
    ) -> Suspicion:
        """An entry that is wrong whatever else is there; `seen_size` if it is what its author saw."""
        asks = (index, seen_size - 1) if seen_size else (index,)
        return cls(reason, (note,), size, asks, (signed,))

    @classmethod
    def of_history(
        cls, reason: str, note: bytes, size: int, index: int, entries: Sequence[bytes]
    ) -> Suspicion:
        """An entry that may not follow what is before it; `entries` are those behind the replica up to it."""
        return cls(reason, (note,), size, (index,), tuple(entries), history=True)


def charge_of(
    suspicion: Suspicion, proofs: Sequence[LeafProof], prefix: Callable[[int], list[bytes]]
) -> Charge:
    """What is to be verified.

    Args:
        suspicion: what is wrong.
        proofs: of what it asks for, in order.
        prefix: gives the replica's entries if they have at most so many bytes.
    Raises: MalformedRecord: the history is too long.
    """
    if suspicion.history:
        room = EVIDENCE_BYTES_MAX - sum(map(len, suspicion.entries))
        entries = (*prefix(room), *suspicion.entries)
        return WrongHistory(suspicion.notes[0], entries, proofs[0].path)
    if suspicion.entries:
        seen = proofs[1] if len(proofs) > 1 else None
        return WrongEntry(suspicion.notes[0], suspicion.asks[0], suspicion.entries[0], proofs[0].path, seen)
    older, newer = sorted(suspicion.notes, key=_size)
    return Contradiction(older, newer, proofs[0] if proofs and _size(older) < _size(newer) else None)


async def gather(suspicion: Suspicion, log: LogClient) -> list[LeafProof]:
    """Ask the service itself for the proofs.  Raises: as `LogClient`; MalformedRecord: it has none."""
    proofs = []
    for index in suspicion.asks:
        signed = await log.entries(index, index + 1)
        path = await log.inclusion(index, suspicion.size)
        if len(signed) != 1:
            raise MalformedRecord(format="evidence", reason="no entry where one was asked for")
        proofs.append(LeafProof(entry_hash(signed[0]), path))
    return proofs


def _size(note: bytes) -> int:
    return decode_checkpoint(decode_note(note).text).size

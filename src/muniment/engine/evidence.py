"""Evidence that a log service broke its word, for people who trust neither side (docs/spec/evidence.md).

Who has it verifies it with nothing but the file and SHA-256, Ed25519: the two things that it says cannot both
be true are signed by the log's key.  What is made here is verified before it is given away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from muniment.core.membership import Membership
from muniment.crypto.checkpoints import open_checkpoint
from muniment.crypto.entries import entry_hash, open_entry, volume_id
from muniment.errors import EntryRefused, MalformedRecord, UnknownVersion
from muniment.ids import VolumeId
from muniment.merkle.log_tree import Frontier, check_inclusion, prefix_root
from muniment.spec.checkpoint import Checkpoint, origin_of
from muniment.spec.entry import NO_VOLUME
from muniment.spec.evidence import (
    FORMAT,
    Charge,
    Contradiction,
    Evidence,
    LeafProof,
    WrongEntry,
    WrongHistory,
    decode_evidence,
    encode_evidence,
)

_NOTHING: Final = "it proves nothing: "


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an evidence file proves.

    Attributes:
        volume: whose log it is.
        log_key: Ed25519 key of the log service that did it.
        says: what it did, in a sentence.
    """

    volume: VolumeId
    log_key: bytes
    says: str


def verify_evidence(data: bytes) -> Verdict:
    """Find out what a file proves; needs nothing else, and no network.

    Raises: MalformedRecord: it is no evidence, or proves nothing; UnknownVersion.
    Cost: a few signatures; for a history, one for each entry in it.
    """
    evidence = decode_evidence(data)
    match evidence.charge:
        case Contradiction():
            says = _contradiction(evidence, evidence.charge)
        case WrongEntry():
            says = _wrong_entry(evidence, evidence.charge)
        case WrongHistory():
            says = _wrong_history(evidence, evidence.charge)
    return Verdict(evidence.volume, evidence.log_key, says)


def make_evidence(volume: VolumeId, log_key: bytes, charge: Charge) -> bytes:
    """The file, verified.  Raises: MalformedRecord: it would prove nothing, or be too long."""
    data = encode_evidence(Evidence(volume, log_key, charge))
    verify_evidence(data)
    return data


def contradiction(
    log_key: bytes, volume: VolumeId, notes: tuple[bytes, bytes], last: LeafProof | None
) -> bytes:
    """Evidence of two notes in any order.

    Args:
        log_key: that signed both.
        volume: whose log it is.
        notes: two checkpoints.
        last: of the smaller's last entry in the tree of the larger; ignored for equal sizes.
    Raises: MalformedRecord: they do not contradict each other, or the proof does not show it.
    """
    older, newer = sorted(notes, key=lambda note: _opened(volume, log_key, note).size)
    if _opened(volume, log_key, older).size == _opened(volume, log_key, newer).size:
        last = None
    return make_evidence(volume, log_key, Contradiction(older, newer, last))


# --- what each kind must show ---------------------------------------------------------------------


def _opened(volume: VolumeId, log_key: bytes, note: bytes) -> Checkpoint:
    return open_checkpoint(note, log_key, origin=origin_of(volume))


def _contradiction(evidence: Evidence, charge: Contradiction) -> str:
    older = _opened(evidence.volume, evidence.log_key, charge.older)
    newer = _opened(evidence.volume, evidence.log_key, charge.newer)
    if older.size == newer.size and charge.last is None:
        if older.root == newer.root:
            raise _proves_nothing("both checkpoints say the same")
        return f"it signed two different logs of {older.size} entries"
    if not 0 < older.size < newer.size or charge.last is None:
        raise _proves_nothing("sizes and proof do not fit")
    if _root_at(newer, older.size, charge.last) == older.root:
        raise _proves_nothing("the larger log extends the smaller")
    return (
        f"it signed a log of {newer.size} entries that does not begin with the {older.size} it had signed for"
    )


def _wrong_entry(evidence: Evidence, charge: WrongEntry) -> str:
    log = _opened(evidence.volume, evidence.log_key, charge.note)
    check_inclusion(entry_hash(charge.signed), charge.index, log.size, charge.path, log.root)
    where = f"it signed a log in which entry {charge.index}"
    try:
        entry = open_entry(charge.signed).entry
    except UnknownVersion as error:
        raise _proves_nothing("the entry is of a later version") from error
    except MalformedRecord as error:
        return f"{where} was signed by nobody: {error}"
    if charge.index == 0:
        if entry.volume == NO_VOLUME and volume_id(charge.signed) == evidence.volume:
            raise _proves_nothing("the entry founds the volume")
        return f"{where} does not found the volume"
    if entry.volume != evidence.volume:
        return f"{where} is of another volume"
    if entry.seen_size > charge.index:
        return f"{where} has seen {entry.seen_size} entries"
    if entry.seen_size == 0 or charge.seen is None:
        raise _proves_nothing("the entry may stand there")
    if _root_at(log, entry.seen_size, charge.seen) == entry.seen_root:
        raise _proves_nothing("the author has seen this log")
    return f"{where} is by one whom it had shown another log of {entry.seen_size} entries"


def _wrong_history(evidence: Evidence, charge: WrongHistory) -> str:
    log = _opened(evidence.volume, evidence.log_key, charge.note)
    frontier, _ = Frontier().extend(entry_hash(signed) for signed in charge.entries)
    last = LeafProof(entry_hash(charge.entries[-1]), charge.path)
    if _root_at(log, frontier.size, last) != frontier.root():
        raise _proves_nothing("the entries are not those of the checkpoint")
    return f"it signed a log in which entry {frontier.size - 1} may not stand: {_refusal(charge.entries)}"


def _refusal(entries: Sequence[bytes]) -> str:
    """Why the last of them may not follow."""
    membership = Membership()
    try:
        for at, signed in enumerate(entries):
            entry = open_entry(signed)
            if at == len(entries) - 1:
                break
            membership.admit(entry, at)
    except UnknownVersion as error:
        raise _proves_nothing("an entry is of a later version") from error
    except EntryRefused as error:
        raise _proves_nothing(f"an entry before the last is refused: {error}") from error
    try:
        membership.admit(entry, len(entries) - 1)
    except EntryRefused as error:
        return str(error)
    raise _proves_nothing("the entries may stand there")


def _root_at(log: Checkpoint, size: int, last: LeafProof) -> bytes:
    """The root of the first `size` entries of this log."""
    check_inclusion(last.leaf, size - 1, log.size, last.path, log.root)
    return prefix_root(last.leaf, size, log.size, last.path)


def _proves_nothing(reason: str) -> MalformedRecord:
    return MalformedRecord(format=FORMAT, reason=_NOTHING + reason)

"""Evidence against a log service: what it signed and cannot both be true (docs/spec/evidence.md).

A file is the magic and canonical CBOR; everything that is needed to verify it is in it.  Pure layout:
`engine.evidence` makes and verifies it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from muniment.errors import MalformedRecord, UnknownVersion
from muniment.ids import VolumeId
from muniment.spec.canonical import dump, load
from muniment.spec.checkpoint import NOTE_BYTES_MAX, ROOT_BYTES
from muniment.spec.entry import ENTRY_BYTES_MAX
from muniment.spec.limits import LOG_SIZE_MAX, MIB
from muniment.spec.tags import EVIDENCE_MAGIC

EVIDENCE_BYTES_MAX: Final = 32 * MIB
"""A history is evidence up to this length; what needs a longer one is refused without."""

FORMAT: Final = "evidence"
PATH_HASHES_MAX: Final = 64

_VERSION: Final = 1
_CONTRADICTION: Final = 1
_ENTRY: Final = 2
_HISTORY: Final = 3


@dataclass(frozen=True, slots=True)
class LeafProof:
    """An inclusion proof of one leaf hash; who uses it knows index, size and root.

    Attributes:
        leaf: its hash.
        path: from the bottom up.
    """

    leaf: bytes
    path: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if len(self.path) > PATH_HASHES_MAX or any(len(h) != ROOT_BYTES for h in (self.leaf, *self.path)):
            raise MalformedRecord(format=FORMAT, reason="a path that is none")


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two checkpoints, of which the larger does not extend the smaller.

    Attributes:
        older: signed note of the smaller log.
        newer: signed note of the larger one, or of one of the same size.
        last: of the entry at `older.size - 1` in the tree of `newer`; None for equal sizes.
    """

    older: bytes
    newer: bytes
    last: LeafProof | None


@dataclass(frozen=True, slots=True)
class WrongEntry:
    """An entry that stands in the log and had to be refused whatever else is there.

    Attributes:
        note: signed note of the log.
        index: of the entry.
        signed: its bytes.
        path: its inclusion proof.
        seen: of the entry at `seen_size - 1`, if that its author saw another log is what is wrong.
    """

    note: bytes
    index: int
    signed: bytes
    path: tuple[bytes, ...]
    seen: LeafProof | None


@dataclass(frozen=True, slots=True)
class WrongHistory:
    """The first entries of the log, of which the last may not follow those before it.

    Attributes:
        note: signed note of the log.
        entries: from the first on.
        path: inclusion proof of the last.
    """

    note: bytes
    entries: tuple[bytes, ...]
    path: tuple[bytes, ...]


Charge = Contradiction | WrongEntry | WrongHistory


@dataclass(frozen=True, slots=True)
class Evidence:
    """Whom it is against, and what shows it.

    Attributes:
        volume: whose log it is.
        log_key: Ed25519 key that signed the notes.
        charge: what it did.
    """

    volume: VolumeId
    log_key: bytes
    charge: Charge

    def __post_init__(self) -> None:
        if len(self.volume) != ROOT_BYTES or len(self.log_key) != ROOT_BYTES:
            raise MalformedRecord(format=FORMAT, reason="a volume or key of wrong length")


def encode_evidence(evidence: Evidence) -> bytes:
    """The file.  Raises: MalformedRecord: longer than a reader takes."""
    fields: list[object]
    match evidence.charge:
        case Contradiction(older, newer, last):
            kind, fields = _CONTRADICTION, [older, newer, _listed(last)]
        case WrongEntry(note, index, signed, path, seen):
            kind, fields = _ENTRY, [note, index, signed, list(path), _listed(seen)]
        case WrongHistory(note, entries, path):
            kind, fields = _HISTORY, [note, list(entries), list(path)]
    data = EVIDENCE_MAGIC + dump([_VERSION, evidence.volume, evidence.log_key, kind, *fields])
    if len(data) > EVIDENCE_BYTES_MAX:
        raise MalformedRecord(format=FORMAT, reason=f"{len(data)} bytes")
    return data


def decode_evidence(data: bytes) -> Evidence:
    """Read a file; nothing is verified here.

    Raises: MalformedRecord: for anything that `encode_evidence` did not make; UnknownVersion.
    """
    if len(data) > EVIDENCE_BYTES_MAX or not data.startswith(EVIDENCE_MAGIC):
        raise MalformedRecord(format=FORMAT, reason="too long, or no evidence file")
    match load(data[len(EVIDENCE_MAGIC) :], format=FORMAT):
        case [int() as version, *_] if version > _VERSION:
            raise UnknownVersion(format=FORMAT, version=version)
        case [1, bytes() as volume, bytes() as log_key, int() as kind, *fields]:
            return Evidence(VolumeId(volume), log_key, _charge(kind, fields))
        case _:
            raise MalformedRecord(format=FORMAT, reason="not its fields")


def _charge(kind: int, fields: list[object]) -> Charge:
    match kind, fields:
        case 1, [bytes() as older, bytes() as newer, last]:
            return Contradiction(_note(older), _note(newer), _leaf_proof(last))
        case 2, [bytes() as note, int() as index, bytes() as signed, path, seen] if (
            0 <= index < LOG_SIZE_MAX and len(signed) <= ENTRY_BYTES_MAX
        ):
            return WrongEntry(_note(note), index, signed, _path(path), _leaf_proof(seen))
        case 3, [bytes() as note, list() as entries, path] if entries:
            return WrongHistory(_note(note), _byte_strings(entries), _path(path))
        case _:
            raise MalformedRecord(format=FORMAT, reason="of no known kind, or not its fields")


def _listed(proof: LeafProof | None) -> list[object]:
    return [] if proof is None else [proof.leaf, list(proof.path)]


def _leaf_proof(value: object) -> LeafProof | None:
    match value:
        case []:
            return None
        case [bytes() as leaf, path]:
            return LeafProof(leaf, _path(path))
        case _:
            raise MalformedRecord(format=FORMAT, reason="a proof that is none")


def _path(value: object) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > PATH_HASHES_MAX:
        raise MalformedRecord(format=FORMAT, reason="a path that is none")
    return _byte_strings(value)


def _byte_strings(values: list[object]) -> tuple[bytes, ...]:
    found = tuple(value for value in values if isinstance(value, bytes))
    if len(found) != len(values):
        raise MalformedRecord(format=FORMAT, reason="something else than bytes in a list of them")
    return found


def _note(note: bytes) -> bytes:
    if len(note) > NOTE_BYTES_MAX:
        raise MalformedRecord(format=FORMAT, reason="a note that is too long")
    return note

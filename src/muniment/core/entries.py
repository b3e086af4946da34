"""Transactions in entries: sealed by writers, opened by members (docs/spec/entry.md section 4).

    transaction -> verify half    -> AES-256-GCM under the author's names key         -> blobs
                -> the rest, zstd -> AES-256-GCM under the author's transaction key   -> sealed

`blobs` is bound to the rest of the envelope, `sealed` to that and to `blobs`: neither opens elsewhere.
Because all members of an epoch have the same keys (`core.keys` saw to that), what does not open or decode
does so for none of them, and their folds agree on it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import zstandard

from muniment.core.key_ring import KeyRing
from muniment.core.keys import EpochKeys
from muniment.core.membership import Membership
from muniment.crypto.cipher import DoesNotOpen
from muniment.crypto.messages import open_message, seal_message
from muniment.errors import InternalError, InvalidRequest, MalformedRecord
from muniment.ids import EntryHash, MemberId, VolumeId
from muniment.spec.act import Act, Prune
from muniment.spec.blob import BlobName
from muniment.spec.entry import Entry
from muniment.spec.statement import decode_pruned
from muniment.spec.transaction import (
    PLAIN_BYTES_MAX,
    Transaction,
    decode_names,
    decode_transaction,
    encode_transaction,
)

_ZSTD_LEVEL: Final = 3
_STORED: Final = b"\0"
_ZSTD: Final = b"\1"
_FORMAT: Final = "transaction"


@dataclass(frozen=True, slots=True)
class Place:
    """Where an entry joins on: all of its envelope that says nothing about its content.

    Attributes:
        volume, epoch, author, sequence, previous, seen_size, seen_root, time_ns: as in `spec.entry.Entry`.
    """

    volume: VolumeId
    epoch: int
    author: MemberId
    sequence: int
    previous: EntryHash
    seen_size: int
    seen_root: bytes
    time_ns: int

    @classmethod
    def next(
        cls, membership: Membership, author: MemberId, *, seen_size: int, seen_root: bytes, now_ns: int
    ) -> Place:
        """The place of the next entry of `author` in the log that `membership` has folded.

        Args:
            seen_size: of the largest checkpoint the author has verified.
            seen_root: of the same.
            now_ns: the author's clock; where it is behind the log's time, that is taken.
        """
        tail = membership.tail(author)
        return cls(
            membership.volume,
            membership.epoch,
            author,
            tail.sequence,
            tail.previous,
            seen_size,
            seen_root,
            max(now_ns, membership.time_ns),
        )

    def after(self, previous: EntryHash) -> Place:
        """The place behind an entry that stands at this one, which the log may not have answered yet."""
        return replace(self, sequence=self.sequence + 1, previous=previous)

    def entry(self, act: Act | None, sealed: bytes = b"", blobs: bytes = b"") -> Entry:
        """An entry at this place."""
        return Entry(
            self.volume,
            self.epoch,
            self.author,
            self.sequence,
            self.previous,
            self.seen_size,
            self.seen_root,
            self.time_ns,
            act,
            sealed,
            blobs,
        )


def seal_transaction(
    place: Place, transaction: Transaction, keys: EpochKeys, entropy: Callable[[int], bytes]
) -> Entry:
    """Encrypt a transaction into an entry that is ready to be signed.

    Args:
        keys: both of the place's epoch.
        entropy: gives unpredictable bytes, for nonces.

    Raises:
        InvalidRequest: more than PLAIN_BYTES_MAX bytes; make several transactions.
        NotCapable: `keys` has no read key.
    Cost: O(bytes); zstd at some 300 MB/s.
    """
    if keys.epoch != place.epoch:
        raise InternalError(reason=f"keys of epoch {keys.epoch} for an entry of epoch {place.epoch}")
    plain, names = encode_transaction(transaction)
    if len(plain) > PLAIN_BYTES_MAX:
        raise InvalidRequest(reason=f"a transaction of {len(plain)} bytes; make several smaller changes")
    key, author = keys.transaction_key(place.author), place.author
    entry = place.entry(None, _STORED)
    if names:
        blobs = seal_message(keys.names_key(author), names, entry.bound_blobs(), entropy)
        entry = replace(entry, blobs=blobs)
    return replace(entry, sealed=seal_message(key, _packed(plain), entry.bound(), entropy))


def open_transaction(entry: Entry, ring: KeyRing) -> Transaction:
    """What a transaction's author sealed.

    Raises:
        MalformedRecord: no member can open or read it; the fold rejects it.
        NotCapable: the ring lacks the keys (it only verifies, or its member was not granted this epoch).
    """
    return decode_transaction(*unsealed(entry, ring))


def unsealed(entry: Entry, ring: KeyRing) -> tuple[bytes, bytes]:
    """The plaintexts of a transaction and of its blobs' names: what `decode_transaction` takes.

    Raises: MalformedRecord, NotCapable: as `open_transaction`.
    """
    keys = ring.keys(entry.epoch)
    key = keys.transaction_key(entry.author)
    names = _opened_names(entry, keys)
    return _unpacked(_opened(key, _sealed(entry), entry.bound())), names


def open_names(entry: Entry, ring: KeyRing) -> tuple[BlobName, ...]:
    """The blobs a transaction refers to, for who may verify.

    Raises: MalformedRecord, NotCapable: as `open_transaction`.
    """
    _sealed(entry)
    return decode_names(_opened_names(entry, ring.keys(entry.epoch)))


def seal_statement(
    place: Place, act: Act, statement: bytes, keys: EpochKeys, entropy: Callable[[int], bytes]
) -> Entry:
    """Encrypt the statement of an act that has one into an entry that is ready to be signed.

    Args:
        keys: of the place's epoch; the verify key is enough.
        entropy: gives unpredictable bytes, for the nonce.
    """
    if keys.epoch != place.epoch:
        raise InternalError(reason=f"keys of epoch {keys.epoch} for an entry of epoch {place.epoch}")
    entry = place.entry(act, blobs=_STORED)
    return replace(
        entry, blobs=seal_message(keys.names_key(place.author), statement, entry.bound_blobs(), entropy)
    )


def open_statement(entry: Entry, ring: KeyRing) -> bytes:
    """The statement of an act that has one, for who may verify.

    Raises: MalformedRecord: it opens for no member, and is void; NotCapable: the ring lacks the keys.
    """
    if entry.act is None:
        raise InternalError(reason="a transaction has no statement")
    return _opened_names(entry, ring.keys(entry.epoch))


def open_pruned(entry: Entry, ring: KeyRing) -> tuple[BlobName, ...]:
    """The blobs that a prune gives up; none if its statement is not what it says in clear.

    Raises: NotCapable: the ring lacks the keys.
    """
    try:
        names = decode_pruned(open_statement(entry, ring))
    except MalformedRecord:
        return ()
    return names if isinstance(entry.act, Prune) and len(names) == entry.act.count else ()


def _opened_names(entry: Entry, keys: EpochKeys) -> bytes:
    if not entry.blobs:
        return b""
    return _opened(keys.names_key(entry.author), entry.blobs, entry.bound_blobs())


def _sealed(entry: Entry) -> bytes:
    if entry.act is not None:
        raise InternalError(reason="a membership act is not a transaction")
    return entry.sealed


def _opened(key: bytes, sealed: bytes, bound: bytes) -> bytes:
    try:
        return open_message(key, sealed, bound)
    except DoesNotOpen as error:
        raise MalformedRecord(format=_FORMAT, reason="it does not open with its epoch's key") from error


def _packed(plain: bytes) -> bytes:
    smaller = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(plain)
    return _ZSTD + smaller if len(smaller) < len(plain) else _STORED + plain


def _unpacked(packed: bytes) -> bytes:
    """The plaintext.  What the frame says of its size is checked first: so much would be allocated."""
    how, body = packed[:1], packed[1:]
    if how == _STORED and len(body) <= PLAIN_BYTES_MAX:
        return body
    if how != _ZSTD:
        raise MalformedRecord(format=_FORMAT, reason="neither stored nor compressed")
    try:
        stated = zstandard.get_frame_parameters(body).content_size
        if not 0 < stated <= PLAIN_BYTES_MAX:
            raise MalformedRecord(format=_FORMAT, reason=f"{stated} bytes")
        plain = zstandard.ZstdDecompressor().decompress(body, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise MalformedRecord(format=_FORMAT, reason="it does not decompress") from error
    if len(plain) != stated:
        raise MalformedRecord(format=_FORMAT, reason="it is not as long as it says")
    return plain

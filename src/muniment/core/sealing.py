"""Sealing: plaintext to the n shares of a self-certifying blob, and back (docs/spec/share.md section 4).

    plaintext -> zstd if smaller -> key from exactly those bytes -> AES-256-GCM -> k equal parts -> n shares

Everything is computed in buffers that are used again for the next blob: fresh memory costs more here than
the arithmetic (page faults), so `BlobBuffers` and `OpenBuffers` belong to one blob in flight at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import zstandard

from muniment.crypto.cipher import TAG_BYTES, DoesNotOpen, decrypt_into, encrypt_into
from muniment.crypto.hashing import derive
from muniment.erasure.codec import Coding, codec_for
from muniment.errors import BlobCorrupt, BlobInconsistent, MalformedRecord
from muniment.ids import ShareNumber
from muniment.merkle.share_tree import blob_id, leaf_hashes
from muniment.merkle.tree import tree_root
from muniment.spec import manifest as spec
from muniment.spec.blob import BlobName, BlobRef, Compression
from muniment.spec.limits import CHUNK_BYTES_DEFAULT, KIB, MIB
from muniment.spec.manifest import Manifest, VerifyHalf
from muniment.spec.share import FIXED_BYTES, HASH_BYTES, BlobShape, CodecId, ShareHeader, decode_header
from muniment.spec.tags import CONTENT_KEY, MANIFEST_KEY, VERIFY_KEY

_ZSTD_LEVEL: Final = 1
_PROBED_FROM_BYTES: Final = 1 * MIB
_PROBE_BYTES: Final = 4 * KIB
_PROBES: Final = 16
"""Content from that size on is compressed only where one of so many pieces of it shrinks."""

_READ_HALF_BYTES_MAX: Final = 64 << 20
_PARAMETERS: Final = struct.Struct(">BHHBI")


@dataclass(frozen=True, slots=True)
class SealedBlob:
    """A blob ready to be sent; views point into its BlobBuffers until those are used again.

    Attributes:
        ref: names and opens it.
        roots: n * 32 bytes.
        leaves: each share's leaf hashes.
        shares: each share's data.
    """

    ref: BlobRef
    roots: bytes
    leaves: tuple[bytes, ...]
    shares: tuple[memoryview, ...]

    @property
    def name(self) -> BlobName:
        """The verifier's half of the reference."""
        return self.ref.name

    def parts(self, number: int) -> tuple[bytes | memoryview, ...]:
        """The whole share record as scattered parts: header and roots with leaf hashes, then the data."""
        return _parts(self.name, self.roots, number, self.leaves[number], self.shares[number])


@dataclass(frozen=True, slots=True)
class CodedShares:
    """All or some shares of a blob that was not opened here, ready to be sent; views as in `SealedBlob`.

    Attributes:
        name: of the blob.
        roots: n * 32 bytes.
        leaves: leaf hashes of each share that is here.
        shares: its data.
    """

    name: BlobName
    roots: bytes
    leaves: Mapping[int, bytes]
    shares: Mapping[int, memoryview]

    def parts(self, number: int) -> tuple[bytes | memoryview, ...]:
        """As `SealedBlob.parts`, of a share that is here."""
        return _parts(self.name, self.roots, number, self.leaves[number], self.shares[number])


def _parts(
    name: BlobName, roots: bytes, number: int, leaves: bytes, share: memoryview
) -> tuple[bytes | memoryview, ...]:
    return ShareHeader(name.shape, ShareNumber(number), roots).encode() + leaves, share


class BlobBuffers:
    """Memory for the shares of one blob in flight: n / k times the chunk; grows when it must.

    Args:
        coding: of the blobs.
        chunk_bytes: largest plaintext expected.
    """

    def __init__(self, coding: Coding, chunk_bytes: int = CHUNK_BYTES_DEFAULT) -> None:
        self.coding = coding
        self._area = memoryview(bytearray())
        self._grow(BlobShape(coding.codec, coding.k, coding.n, chunk_bytes + TAG_BYTES))

    def _grow(self, shape: BlobShape) -> None:
        copies = 1 if shape.codec is CodecId.REP else shape.n
        if len(self._area) < copies * shape.share_bytes:
            self._area = memoryview(bytearray(copies * shape.share_bytes))

    def shares(self, shape: BlobShape) -> tuple[memoryview, tuple[memoryview, ...]]:
        """Contiguous room for the sealed bytes (padding zeroed), and each share's data in it.

        All copies of a replicated blob are one and the same memory.
        """
        self._grow(shape)
        size = shape.share_bytes
        padded = shape.k * size
        self._area[shape.length : padded] = bytes(padded - shape.length)
        if shape.codec is CodecId.REP:
            return self._area[: shape.length], (self._area[:size],) * shape.n
        views = tuple(self._area[at : at + size] for at in range(0, shape.n * size, size))
        return self._area[: shape.length], views


class Sealer:
    """Seals blobs under one convergence secret and coding.  Not thread-safe: one for each kernel thread.

    Args:
        secret: the convergence secret; equal plaintext gives equal blobs under the same secret only.
        coding: codec, k and n of the blobs.
        compress: whether to try zstd on what seems compressible.
    """

    def __init__(self, secret: bytes, coding: Coding, *, compress: bool = True) -> None:
        self._secret = secret
        self._coding = coding
        self._zstd = zstandard.ZstdCompressor(level=_ZSTD_LEVEL) if compress else None

    def __repr__(self) -> str:
        return f"<Sealer {self._coding.text}>"

    def seal(self, plain: memoryview, buffers: BlobBuffers) -> SealedBlob:
        """Seal 1 to CHUNK_BYTES_MAX bytes.

        Returns: the blob; its views are valid until `buffers` is used again.
        Cost: one pass each of zstd, BLAKE3, AES and Reed-Solomon, and BLAKE3 over all n shares.
        """
        payload: bytes | memoryview = plain
        compression = Compression.NONE
        if self._zstd is not None and _seems_compressible(self._zstd, plain):
            smaller = self._zstd.compress(plain)
            if len(smaller) < len(plain):
                payload, compression = smaller, Compression.ZSTD
        # The key comes from the bytes that are encrypted, not from the text before compression: two
        # versions of a compressor would give two payloads for one text, and one key must never meet two.
        key = derive(CONTENT_KEY, self._secret, self._parameters(compression, len(plain)), payload)
        shape = self._shape(len(payload) + TAG_BYTES)
        area, shares = buffers.shares(shape)
        encrypt_into(key, payload, area)
        return _referred(shape, shares, key, len(plain), compression)

    def seal_manifest(self, manifest: Manifest, buffers: BlobBuffers) -> SealedBlob:
        """Seal a manifest; the result's key is its read key, from which the verify key derives."""
        verify, read = spec.encode_verify_half(manifest), spec.encode_read_half(manifest)
        read = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compress(read)
        parameters = self._parameters(Compression.NONE, len(verify))
        read_key = derive(MANIFEST_KEY, self._secret, parameters, verify, read)
        head = spec.pack_sealed_head(len(verify) + TAG_BYTES)
        cut = len(head) + len(verify) + TAG_BYTES
        shape = self._shape(cut + len(read) + TAG_BYTES)
        area, shares = buffers.shares(shape)
        area[: len(head)] = head
        encrypt_into(verify_key(read_key), verify, area[len(head) : cut])
        encrypt_into(read_key, read, area[cut:])
        return _referred(shape, shares, read_key, shape.length, Compression.NONE)

    def _parameters(self, compression: Compression, plain_bytes: int) -> bytes:
        coding = self._coding
        return _PARAMETERS.pack(coding.codec, coding.k, coding.n, compression, plain_bytes)

    def _shape(self, length: int) -> BlobShape:
        return BlobShape(self._coding.codec, self._coding.k, self._coding.n, length)


def _seems_compressible(zstd: zstandard.ZstdCompressor, plain: memoryview) -> bool:
    """Whether one of a few pieces, always the same ones, shrinks by a sixteenth; small content always does.

    A trial of random bytes or media takes a quarter of their sealing.  What is missed: a few compressible
    places in a large chunk that is otherwise not, and repetitions of what is not compressible itself.
    """
    if len(plain) < _PROBED_FROM_BYTES:
        return True
    most = _PROBE_BYTES - _PROBE_BYTES // 16
    starts = range(0, len(plain) - _PROBE_BYTES + 1, len(plain) // _PROBES)
    return any(len(zstd.compress(plain[at : at + _PROBE_BYTES])) <= most for at in starts)


def _referred(
    shape: BlobShape,
    shares: tuple[memoryview, ...],
    key: bytes,
    plain_bytes: int,
    compression: Compression,
) -> SealedBlob:
    name, roots, leaves = _coded(shape, shares)
    return SealedBlob(BlobRef(name, key, plain_bytes, compression), roots, leaves, shares)


def code_sealed(sealed: bytes, coding: Coding, buffers: BlobBuffers) -> CodedShares:
    """Code bytes that are encrypted already: for blobs that describe themselves (`core.keeping.tiles`).

    Args:
        sealed: 1 to SEALED_BYTES_MAX bytes.
    Returns: all shares; their views are valid until `buffers` is used again.
    """
    shape = BlobShape(coding.codec, coding.k, coding.n, len(sealed))
    area, shares = buffers.shares(shape)
    area[:] = sealed
    name, roots, leaves = _coded(shape, shares)
    return CodedShares(name, roots, dict(enumerate(leaves)), dict(enumerate(shares)))


def _coded(shape: BlobShape, shares: tuple[memoryview, ...]) -> tuple[BlobName, bytes, tuple[bytes, ...]]:
    """Parity for the sealed bytes that lie in the first k shares; their name, roots and leaf hashes."""
    if shape.codec is CodecId.REP:
        leaves = (leaf_hashes(shares[0]),) * shape.n
        roots = tree_root(leaves[0]) * shape.n
    else:
        parity = [(number, shares[number]) for number in range(shape.k, shape.n)]
        codec_for(coding_of(shape)).encode(shares[: shape.k], parity)
        leaves = tuple(leaf_hashes(share) for share in shares)
        roots = b"".join(tree_root(list_) for list_ in leaves)
    return BlobName(blob_id(shape, roots), shape), roots, leaves


def verify_key(read_key: bytes) -> bytes:
    """The key of a manifest's verify half; there is no way back to the read key."""
    return derive(VERIFY_KEY, read_key)


class OpenBuffers:
    """Memory for the shares of one blob on their way in; data shares land where they are decrypted from.

    Call `begin` for each blob, receive shares into `head(number)` and `data(number)`, check them, then
    `open_blob`.  A share that was asked for but not used may still be arriving (it lost a race): its memory
    is never touched again, neither by decoding nor by the next blob.
    """

    def __init__(self) -> None:
        self._shape: BlobShape | None = None
        self._area = memoryview(bytearray())
        self._plain = memoryview(bytearray())
        self._heads: dict[int, memoryview] = {}
        self._datas: dict[int, memoryview] = {}
        self._stray = False
        self._whole: tuple[bytes, memoryview] | None = None

    def begin(self, shape: BlobShape) -> None:
        """Make room for a blob; everything handed out before is given up."""
        size = shape.k * shape.share_bytes
        if self._stray or len(self._area) < size:
            self._area = memoryview(bytearray(max(size, 0 if self._stray else len(self._area))))
        # Until all that is handed out has been used, a late writer may hold it.
        self._stray = False
        self._heads.clear()
        self._datas.clear()
        self._whole = None
        self._shape = shape

    def head(self, number: int) -> memoryview:
        """Where header, roots and leaf hashes of a share go."""
        assert self._shape is not None
        if number not in self._heads:
            self._heads[number] = memoryview(bytearray(self._shape.head_bytes))
        return self._heads[number]

    def data(self, number: int) -> memoryview:
        """Where the data of a share goes: a data share into its place, another into memory of its own."""
        assert self._shape is not None
        self._stray = True
        if number not in self._datas:
            size = self._shape.share_bytes
            if number < self._shape.k:
                self._datas[number] = self._area[number * size : (number + 1) * size]
            else:
                self._datas[number] = memoryview(bytearray(size))
        return self._datas[number]

    def room_for_whole(self) -> tuple[memoryview, memoryview]:
        """Where the two parts of a whole blob go (docs/spec/share.md section 6), instead of single shares."""
        assert self._shape is not None
        for number in range(self._shape.k):
            self.data(number)
        head = self.head(0)[: FIXED_BYTES + self._shape.roots_bytes]
        return head, self._area[: self._shape.k * self._shape.share_bytes]

    @property
    def whole(self) -> tuple[bytes, memoryview]:
        """The two parts of the whole blob that was assembled; valid as long as what was opened from it."""
        assert self._whole is not None
        return self._whole

    def checked(self, numbers: Sequence[int]) -> list[memoryview]:
        """The data of these shares, which nobody writes to any more; all others may still be arriving."""
        self._stray = not set(self._datas) <= set(numbers)
        return [self._datas[number] for number in numbers]

    def assemble(self, name: BlobName, numbers: Sequence[int]) -> memoryview:
        """The sealed bytes from k checked shares; decodes what is missing.

        What is decoded must be the data shares that the name commits to as well.  Each share verifies alone,
        so without this a blob whose shares are of two contents would be one thing to one reader and another
        to the next.

        Args:
            name: of the shape that was begun.
            numbers: the k shares.
        Raises: BlobInconsistent: the shares are not those of one coding.
        Cost: nothing if no data share is missing; else one pass of BLAKE3 over what is decoded.
        """
        shape = name.shape
        size = shape.share_bytes
        given = self.checked(numbers)
        roots = decode_header(self._heads[numbers[0]]).roots
        head = ShareHeader(shape, ShareNumber(0), roots).encode()
        if shape.codec is CodecId.REP:
            check_copies(name, roots)
            self._whole = head, given[0]
            return given[0][: shape.length]
        missing = [number for number in range(shape.k) if number not in numbers]
        area = self._area
        if any(number in self._datas for number in missing):
            # A loser of a race may still be writing into the place of a missing share.
            area = memoryview(bytearray(shape.k * size))
            for number in numbers:
                if number < shape.k:
                    area[number * size : (number + 1) * size] = self._datas[number]
        if missing:
            targets = [(number, area[number * size : (number + 1) * size]) for number in missing]
            codec_for(coding_of(shape)).decode(given, list(numbers), targets)
            for number, data in targets:
                check_computed(name, roots, number, leaf_hashes(data))
        self._whole = head, area[: shape.k * size]
        return area[: shape.length]

    def plain(self, size: int) -> memoryview:
        """Room for `size` bytes of plaintext, used again for the next blob."""
        if len(self._plain) < size:
            self._plain = memoryview(bytearray(size))
        return self._plain[:size]


def open_blob(ref: BlobRef, numbers: Sequence[int], buffers: OpenBuffers) -> memoryview:
    """The plaintext of a blob from k checked shares.

    Args:
        ref: the blob.
        numbers: the k shares in `buffers` that `merkle.share_tree.check_share` has passed.
        buffers: begun with this blob's shape.

    Returns: `ref.plain_bytes` bytes, valid until `buffers` begins another blob.
    Raises: BlobCorrupt: the key does not open it, or what is inside is not what the reference says;
        BlobInconsistent: its shares are not those of one content.
    """
    return _opened(ref, numbers, buffers, buffers.plain)


def open_apart(ref: BlobRef, numbers: Sequence[int], buffers: OpenBuffers) -> memoryview:
    """As `open_blob`, into memory of its own: for those who keep the plaintext, `buffers` is free at once."""
    compressed = ref.compression is Compression.ZSTD
    return _opened(ref, numbers, buffers, buffers.plain if compressed else _own_memory).toreadonly()


def _own_memory(size: int) -> memoryview:
    return memoryview(bytearray(size))


def _opened(
    ref: BlobRef, numbers: Sequence[int], buffers: OpenBuffers, room: Callable[[int], memoryview]
) -> memoryview:
    """See `open_blob`; what is inflated has memory of its own, all else is where `room` says."""
    sealed = buffers.assemble(ref.name, numbers)
    corrupt = BlobCorrupt(blob=ref.name.blob)
    if len(sealed) < TAG_BYTES:
        raise corrupt
    payload = room(len(sealed) - TAG_BYTES)
    try:
        decrypt_into(ref.key, sealed, payload)
    except DoesNotOpen as error:
        raise corrupt from error
    if ref.compression is Compression.ZSTD:
        payload = memoryview(_inflate(payload, ref.plain_bytes, corrupt))
    if len(payload) != ref.plain_bytes:
        raise corrupt
    return payload


def open_manifest(ref: BlobRef, numbers: Sequence[int], buffers: OpenBuffers) -> Manifest:
    """Both halves of a manifest.

    Raises: BlobCorrupt, BlobInconsistent, MalformedRecord, UnknownVersion: it was made wrong, or newer.
    """
    verify_sealed, read_sealed = spec.split_sealed(buffers.assemble(ref.name, numbers))
    verify = spec.decode_verify_half(_decrypted(ref.name, verify_key(ref.key), verify_sealed))
    read = _decrypted(ref.name, ref.key, read_sealed)
    return spec.decode_read_half(
        _inflate(read, _READ_HALF_BYTES_MAX, BlobCorrupt(blob=ref.name.blob), exact=False), verify
    )


def open_verify_half(name: BlobName, key: bytes, numbers: Sequence[int], buffers: OpenBuffers) -> VerifyHalf:
    """The verify half of a manifest, for who has the verify right only.

    Raises: BlobCorrupt, MalformedRecord, UnknownVersion.
    """
    verify_sealed, _ = spec.split_sealed(buffers.assemble(name, numbers))
    return spec.decode_verify_half(_decrypted(name, key, verify_sealed))


def check_computed(name: BlobName, roots: bytes, number: int, leaves: bytes) -> None:
    """Hold a share that was computed from others against the root that the blob's name commits to.

    Raises: BlobInconsistent: those it was computed from verify, and are not of one content with it.
    """
    if tree_root(leaves) != ShareHeader(name.shape, ShareNumber(number), roots).root:
        raise BlobInconsistent(blob=name.blob)


def check_copies(name: BlobName, roots: bytes) -> None:
    """Whether all shares of a replicated blob are the same.  Raises: BlobInconsistent."""
    if roots != roots[:HASH_BYTES] * name.shape.n:
        raise BlobInconsistent(blob=name.blob)


def coding_of(shape: BlobShape) -> Coding:
    """How the blob is coded."""
    return Coding(shape.codec, shape.k, shape.n)


def _decrypted(name: BlobName, key: bytes, sealed: memoryview) -> bytes:
    plain = bytearray(max(0, len(sealed) - TAG_BYTES))
    try:
        decrypt_into(key, sealed, plain)
    except DoesNotOpen as error:
        raise BlobCorrupt(blob=name.blob) from error
    return bytes(plain)


def _inflate(packed: bytes | memoryview, limit: int, corrupt: BlobCorrupt, *, exact: bool = True) -> bytes:
    """Decompress one frame of at most `limit` bytes.

    The size stated in the frame is checked first: the decompressor would allocate whatever it says.
    """
    try:
        stated = zstandard.get_frame_parameters(packed).content_size
        if stated > limit or (exact and stated != limit):
            raise corrupt
        plain = zstandard.ZstdDecompressor().decompress(packed)
    except zstandard.ZstdError as error:
        raise corrupt from error
    if len(plain) != stated:
        raise MalformedRecord(format="compressed chunk", reason="it is not as long as it says")
    return plain

"""Hypothesis strategies: any act, operation, transaction and entry that can be made."""

from __future__ import annotations

from hypothesis import strategies as st

from muniment.ids import BlobId, EntryHash, MemberId, VolumeId
from muniment.spec import act as acts
from muniment.spec import operation as ops
from muniment.spec.blob import BlobName, BlobRef, Compression
from muniment.spec.entry import COUNT_MAX, NO_ENTRY, NO_VOLUME, Entry
from muniment.spec.limits import LOG_SIZE_MAX
from muniment.spec.share import BlobShape, CodecId
from muniment.spec.transaction import Transaction

KEYS = st.binary(min_size=32, max_size=32)
MEMBERS = KEYS.map(MemberId)
COUNTS = st.integers(0, COUNT_MAX - 1)
_SHOWABLE = st.characters(categories=["L", "N", "P", "S", "Zs"])
NAMES = st.text(_SHOWABLE, min_size=1, max_size=acts.NAME_CHARS_MAX)

# --- acts -------------------------------------------------------------------------------------------

ROLES = st.sampled_from(acts.Role)
CARDS = st.builds(acts.Card, MEMBERS, KEYS, KEYS, NAMES)
_WRAPPED = st.just(b"") | st.binary(min_size=acts.WRAPPED_BYTES, max_size=acts.WRAPPED_BYTES)
GRANTS = st.builds(acts.Grant, MEMBERS, _WRAPPED, _WRAPPED)
_CHAINS = st.binary(min_size=acts.CHAIN_BYTES, max_size=acts.CHAIN_BYTES)
_MENDED = st.binary(min_size=acts.MENDED_BYTES, max_size=acts.MENDED_BYTES)
_GRANT_LISTS = st.lists(GRANTS, min_size=1, max_size=4, unique_by=lambda grant: grant.member).map(
    lambda grants: tuple(sorted(grants, key=lambda grant: grant.member))
)
ROTATIONS = st.builds(acts.Rotation, _GRANT_LISTS, KEYS, _CHAINS, _CHAINS)
POLICIES = st.builds(
    acts.VolumePolicy,
    st.sampled_from(acts.Quorum),
    st.integers(1, acts.LIFETIME_S_MAX),
    st.text(_SHOWABLE, min_size=1, max_size=32),
    st.integers(1, 256),
    st.integers(64 << 10, 16 << 20),
)


@st.composite
def founds(draw: st.DrawFn) -> acts.Found:
    card = draw(CARDS)
    granted = acts.Grant(card.member, draw(_WRAPPED), draw(_WRAPPED))
    nonce = draw(st.binary(min_size=acts.NONCE_BYTES, max_size=acts.NONCE_BYTES))
    return acts.Found(draw(NAMES), nonce, draw(POLICIES), card, draw(KEYS), (granted,))


_LATER_ACTS: st.SearchStrategy[acts.Act] = st.one_of(
    st.builds(acts.Join, CARDS, ROLES, st.text(_SHOWABLE, max_size=acts.NOTE_CHARS_MAX)),
    st.builds(lambda grant, role: acts.Accept(grant.member, role, grant), GRANTS, ROLES),
    st.builds(acts.Kick, MEMBERS, ROTATIONS),
    st.just(acts.Leave()),
    st.builds(acts.Rotate, ROTATIONS),
    st.builds(acts.ChangePolicy, POLICIES),
    st.builds(acts.Mend, st.integers(0, COUNT_MAX - 1), _MENDED, _MENDED),
    st.builds(acts.Report, st.booleans()),
    st.builds(
        acts.Retain,
        st.integers(1, ops.INODE_MAX - 1),
        st.none() | st.integers(acts.FOR_EVER_S, acts.KEEP_S_MAX),
    ),
    st.builds(acts.Hold, st.integers(1, ops.INODE_MAX - 1), st.booleans()),
    st.builds(
        acts.Prune,
        st.integers(1, LOG_SIZE_MAX),
        st.integers(0, (1 << 63) - 1),
        st.integers(1, acts.PRUNED_MAX),
    ),
)
ACTS = _LATER_ACTS | founds()


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    act = draw(st.none() | ACTS)
    founding = isinstance(act, acts.Found)
    sequence = draw(st.just(0) | COUNTS)
    return Entry(
        NO_VOLUME if founding else VolumeId(draw(KEYS.filter(any))),
        draw(COUNTS),
        draw(MEMBERS),
        sequence,
        EntryHash(draw(KEYS.filter(any))) if sequence else NO_ENTRY,
        draw(COUNTS),
        draw(KEYS),
        draw(st.integers(0, (1 << 63) - 1)),
        act,
        b"" if act is not None else draw(st.binary(min_size=1, max_size=50)),
        draw(st.binary(min_size=int(act is not None), max_size=50))
        if act is None or acts.statement_bytes_max(act)
        else b"",
    )


# --- operations -------------------------------------------------------------------------------------

_NAMES = st.binary(min_size=1, max_size=255).map(
    lambda name: name.replace(b"/", b"-").replace(b"\0", b"-") if name not in (b".", b"..") else b"dots"
)
_INODES = st.integers(1, ops.INODE_MAX - 1)
_NS = st.integers(-(1 << 63), (1 << 63) - 1)
_MODES = st.integers(0, 0o7777)
_UIDS = st.integers(0, (1 << 32) - 1)
_SIZES = st.integers(0, ops.SIZE_MAX)
_VERSIONS = st.none() | st.integers(0, LOG_SIZE_MAX)
_VALUES = st.binary(max_size=100)
_XATTRS = st.dictionaries(_NAMES, _VALUES, max_size=3).map(lambda pairs: tuple(sorted(pairs.items())))


@st.composite
def contents(draw: st.DrawFn, blobs: int, plain_bytes: int) -> ops.Content:
    """Extents whose sources exist in a table of so many blobs of so many bytes each."""
    extents, offset = [], 0
    for _ in range(draw(st.integers(0, 4))):
        offset += draw(st.integers(0, 1 << 40))
        source = draw(st.none() | st.binary(min_size=1, max_size=50) | st.integers(0, max(0, blobs - 1)))
        if isinstance(source, bytes):
            extents.append(ops.Extent(offset, len(source), source))
        elif source is not None and blobs:
            start = draw(st.integers(0, plain_bytes - 1))
            extents.append(ops.Extent(offset, draw(st.integers(1, plain_bytes - start)), source, start))
        else:
            extents.append(ops.Extent(offset, draw(st.integers(1, 1 << 40)), None))
        offset = extents[-1].stop
    return tuple(extents)


@st.composite
def makes(draw: st.DrawFn, blobs: int, plain_bytes: int) -> ops.Make:
    kind = draw(st.sampled_from(ops.Kind))
    content: ops.Content = ()
    if kind is ops.Kind.FILE:
        content = draw(contents(blobs, plain_bytes))
    elif kind is ops.Kind.SYMLINK:
        target = draw(st.binary(min_size=1, max_size=50)).replace(b"\0", b"-")
        content = ops.inline_content(target * draw(st.sampled_from((1, 81))))
    size = content[-1].stop if content else 0
    if kind is ops.Kind.FILE:
        size += draw(st.integers(0, 1 << 40))
    return ops.Make(
        draw(_INODES),
        draw(_NAMES),
        kind,
        draw(_MODES),
        draw(_UIDS),
        draw(_UIDS),
        draw(_NS),
        draw(st.integers(0, (1 << 64) - 1)),
        content,
        size,
        draw(_XATTRS),
    )


def operations(blobs: int = 0, plain_bytes: int = 1) -> st.SearchStrategy[ops.Operation]:
    """Any operation but those on what another one makes."""
    writes = st.builds(
        ops.Write, _INODES, _VERSIONS, contents(blobs, plain_bytes).filter(lambda content: len(content) > 0)
    )
    renames = st.builds(ops.Rename, _INODES, _NAMES, _INODES, _INODES, _NAMES, st.just(0) | _INODES)
    exchanges = st.builds(
        ops.Rename, _INODES, _NAMES, _INODES, _INODES, _NAMES, _INODES, exchange=st.booleans()
    )
    maybe = st.none
    return st.one_of(
        makes(blobs, plain_bytes),
        writes,
        renames,
        exchanges,
        st.builds(ops.Link, _INODES, _INODES, _NAMES),
        st.builds(ops.Unlink, _INODES, _NAMES, _INODES),
        st.builds(ops.Rmdir, _INODES, _NAMES, _INODES),
        st.builds(ops.RemoveTree, _INODES, _NAMES, _INODES),
        st.builds(
            ops.SetAttributes,
            _INODES,
            maybe() | _MODES,
            maybe() | _UIDS,
            maybe() | _UIDS,
            maybe() | _NS,
            maybe() | _NS,
        ),
        st.builds(ops.SetXattr, _INODES, _NAMES, _VALUES, st.sampled_from(ops.XattrMode)),
        st.builds(ops.RemoveXattr, _INODES, _NAMES),
        st.builds(ops.Truncate, _INODES, _VERSIONS, _SIZES),
        st.builds(ops.Snapshot, _NAMES),
    )


@st.composite
def view_snapshots(draw: st.DrawFn, blobs: int, plain_bytes: int) -> ops.ViewSnapshot:
    """Content without a hole, of any source there is."""
    extents, offset = [], 0
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.none() | st.integers(0, blobs - 1)) if blobs else None
        source = draw(st.binary(min_size=1, max_size=50)) if row is None else row
        length = len(source) if isinstance(source, bytes) else draw(st.integers(1, plain_bytes))
        extents.append(ops.Extent(offset, length, source))
        offset += length
    return ops.ViewSnapshot(draw(st.integers(1, LOG_SIZE_MAX)), draw(KEYS), tuple(extents))


_PLAIN_BYTES = 1000
_BLOBS = st.tuples(KEYS, KEYS, st.sampled_from(Compression), st.integers(3, 4))


def _blob(values: tuple[bytes, bytes, Compression, int]) -> BlobRef:
    shape = BlobShape(CodecId.RS, values[3], 6, _PLAIN_BYTES + 16)
    return BlobRef(BlobName(BlobId(values[0]), shape), values[1], _PLAIN_BYTES, values[2])


@st.composite
def transactions(draw: st.DrawFn) -> Transaction:
    blobs = tuple(map(_blob, draw(st.lists(_BLOBS, max_size=4))))
    some = st.lists(operations(len(blobs), _PLAIN_BYTES), min_size=1, max_size=5)
    if len({ref.name.shape.k for ref in blobs}) < 2:  # a view snapshot is stored under one coding
        some |= view_snapshots(len(blobs), _PLAIN_BYTES).map(lambda op: [op])
    made = tuple(draw(some))
    return Transaction(made, blobs, draw(st.text(max_size=50)))


# --- nearly right -----------------------------------------------------------------------------------

JUNK = st.recursive(
    st.none() | st.integers(-(1 << 64), (1 << 64) - 1) | st.binary(max_size=80) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=12,
)
"""Any value that canonical CBOR can hold."""


@st.composite
def damaged(draw: st.DrawFn, values: st.SearchStrategy[list[object]]) -> object:
    """A packed value in which one item, at any depth, is replaced, dropped or doubled."""
    whole = draw(values)
    spots: list[tuple[list[object], int]] = []
    stack = [whole]
    while stack:
        items = stack.pop()
        for at, item in enumerate(items):
            spots.append((items, at))
            if isinstance(item, list):
                stack.append(item)
    items, at = draw(st.sampled_from(spots))
    match draw(st.sampled_from(["replace", "drop", "double"])):
        case "replace":
            items[at] = draw(JUNK)
        case "drop":
            del items[at]
        case _:
            items.insert(at, items[at])
    return whole

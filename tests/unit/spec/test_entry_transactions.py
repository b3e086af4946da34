"""Transactions and operations: packed and unpacked, bounded, and refused in one way."""

from __future__ import annotations

import dataclasses
from typing import Any

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thoroughness import times
from tests.unit.spec.entry_strategies import JUNK, damaged, operations, transactions

from muniment.errors import IntegrityError, MalformedRecord
from muniment.ids import BlobId
from muniment.spec import operation as ops
from muniment.spec.blob import BlobName, BlobRef, Compression
from muniment.spec.canonical import dump, load
from muniment.spec.manifest import (
    ROWS_MAX,
    Manifest,
    ManifestKind,
    Row,
    encode_read_half,
    encode_verify_half,
)
from muniment.spec.operation import (
    Extent,
    Kind,
    Operation,
    inline_content,
    inodes_of,
    pack_operation,
    unpack_operation,
)
from muniment.spec.share import BlobShape, CodecId
from muniment.spec.transaction import (
    TRANSACTION_EXTENTS_MAX,
    Transaction,
    decode_names,
    decode_transaction,
    encode_transaction,
)

SNAPSHOT = ops.Snapshot(b"s")


def ref(seed: int = 1, k: int = 4) -> BlobRef:
    shape = BlobShape(CodecId.RS, k, 6, 1016)
    return BlobRef(BlobName(BlobId(bytes([seed]) * 32), shape), b"k" * 32, 1000, Compression.NONE)


VIEW_SNAPSHOT = ops.ViewSnapshot(1, b"h" * 32, (Extent(0, 1000, 0),))
MAKE = ops.Make(1, b"f", Kind.FILE, 0o644, content=(Extent(0, 1000, 0),), size=1000)


@given(transactions())
def test_a_transaction_survives_its_halves(transaction: Transaction) -> None:
    plain, names = encode_transaction(transaction)
    assert decode_transaction(plain, names) == transaction
    assert decode_names(names) == tuple(blob.name for blob in transaction.blobs)


@given(operations())
def test_an_operation_survives_its_encoding(op: Operation) -> None:
    assert unpack_operation(load(dump(pack_operation(op)), format="operation")) == op
    assert all(inodes_of(op)) or isinstance(op, ops.Rename)


@given(JUNK)
def test_any_value_is_an_operation_or_refused(value: object) -> None:
    try:
        op = unpack_operation(value)
    except MalformedRecord:
        return
    assert pack_operation(op) == value


@settings(max_examples=times(100))
@given(damaged(operations(3, 1000).map(pack_operation)))
def test_a_damaged_operation_is_an_operation_or_refused(value: object) -> None:
    try:
        op = unpack_operation(value)
    except MalformedRecord:
        return
    assert pack_operation(op) == value


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_bytes_are_refused_in_one_way(plain: bytes, names: bytes) -> None:
    with pytest.raises(IntegrityError):
        decode_transaction(plain, names)
    if names:
        with pytest.raises(MalformedRecord):
            decode_names(names)


def _unpacked(transaction: Transaction) -> list[object]:
    """Both halves as values, the read half unpacked too."""
    plain_bytes, names = encode_transaction(transaction)
    plain = cbor2.loads(plain_bytes)
    one_table = names and isinstance(plain[1], bytes)
    return [plain, cbor2.loads(plain[1]) if one_table else None, cbor2.loads(names) if names else None]


@settings(max_examples=times(50))
@given(damaged(transactions().map(_unpacked)))
def test_a_damaged_transaction_is_a_transaction_or_refused(value: Any) -> None:
    plain, read_half, names = (*value, None, None, None)[:3]
    if isinstance(plain, list) and len(plain) > 1 and read_half is not None:
        plain[1] = dump(read_half)
    names_bytes = b"" if names is None else dump(names)
    try:
        transaction = decode_transaction(dump(plain), names_bytes)
    except IntegrityError:
        return
    assert encode_transaction(transaction) == (dump(plain), names_bytes)


def test_names_betray_no_key() -> None:
    names = encode_transaction(Transaction((MAKE,), (ref(),)))[1]
    assert bytes(ref().name.blob) in names
    assert ref().key not in names


def test_halves_of_different_transactions_do_not_join() -> None:
    one, other = Transaction((MAKE,), (ref(),)), Transaction((MAKE,), (ref(), ref(2)))
    without = Transaction((SNAPSHOT,))
    for plain_of, names_of in ((one, other), (other, one), (one, without), (without, one)):
        plain, names = encode_transaction(plain_of)[0], encode_transaction(names_of)[1]
        with pytest.raises(MalformedRecord):
            decode_transaction(plain, names)


def test_cut_and_continued_transactions_are_refused() -> None:
    plain, names = encode_transaction(Transaction((MAKE,), (ref(),), "why"))
    for wrong in (*(plain[:cut] for cut in range(len(plain))), plain + b"\0", plain + plain):
        with pytest.raises(MalformedRecord):
            decode_transaction(wrong, names)
    for wrong in (*(names[:cut] for cut in range(len(names))), names + b"\0"):
        with pytest.raises(MalformedRecord):
            decode_transaction(plain, wrong)
        if wrong:
            with pytest.raises(MalformedRecord):
                decode_names(wrong)


def test_a_flipped_bit_is_another_transaction_or_refused() -> None:
    transaction = Transaction((MAKE,), (ref(),), "why")
    plain, names = encode_transaction(transaction)
    for at in range(8 * len(plain)):
        changed = bytearray(plain)
        changed[at // 8] ^= 1 << at % 8
        try:
            assert decode_transaction(bytes(changed), names) != transaction
        except IntegrityError:
            pass


def test_so_many_pieces_in_all() -> None:
    write = ops.Write(1, None, tuple(Extent(2 * at, 1, None) for at in range(ops.EXTENTS_MAX)))
    most = Transaction((write,) * (TRANSACTION_EXTENTS_MAX // ops.EXTENTS_MAX))
    with pytest.raises(MalformedRecord, match="too many extents"):
        Transaction((*most.operations, ops.Write(1, None, (Extent(0, 1, None),))))


@pytest.mark.parametrize("version", [-1, 0, 3, 99, 1 << 63])
def test_a_version_that_no_entry_can_hold_is_malformed(version: int) -> None:
    plain, names = encode_transaction(Transaction((MAKE,), (ref(),)))
    assert plain[1] == 1
    with pytest.raises(MalformedRecord):
        decode_transaction(plain[:1] + dump(version) + plain[2:], names)
    with pytest.raises(MalformedRecord):
        decode_transaction(dump([version, "all different"]), b"")


def test_view_snapshots_are_of_version_2_and_nothing_else_is() -> None:
    snapshot = ops.ViewSnapshot(7, b"h" * 32, (Extent(0, 3, b"abc"), Extent(3, 1000, 0)))
    plain, names = encode_transaction(Transaction((snapshot,), (ref(),)))
    assert plain[1] == 2
    assert decode_transaction(plain, names).operations == (snapshot,)
    with pytest.raises(MalformedRecord):  # a program of version 1 would have called it damaged
        decode_transaction(plain[:1] + b"\x01" + plain[2:], names)
    plain, names = encode_transaction(Transaction((MAKE,), (ref(),)))
    with pytest.raises(MalformedRecord):
        decode_transaction(plain[:1] + b"\x02" + plain[2:], names)
    with pytest.raises(MalformedRecord):
        Transaction((snapshot, MAKE), (ref(),))


@pytest.mark.parametrize(
    "content",
    [
        (),
        (Extent(1, 1, b"a"),),
        (Extent(0, 1, b"a"), Extent(2, 1, b"b")),
        (Extent(0, 1, b"a"), Extent(1, 1, None)),
    ],
)
def test_a_view_snapshot_is_content_without_holes(content: ops.Content) -> None:
    with pytest.raises(MalformedRecord):
        ops.ViewSnapshot(1, b"h" * 32, content)


def test_a_table_of_blobs_is_plain() -> None:
    operation = [pack_operation(SNAPSHOT)]
    row = Row(ref(), 1000)
    for manifest in (
        Manifest(ManifestKind.FILE, (row,)),
        Manifest(ManifestKind.TREE, (dataclasses.replace(row, verify_key=b"v" * 32),)),
        Manifest(ManifestKind.TREE, ()),
    ):
        plain = dump([1, encode_read_half(manifest), operation, ""])
        with pytest.raises(MalformedRecord):
            decode_transaction(plain, encode_verify_half(manifest))


def _many(blobs: int) -> dict[str, object]:
    return {"blobs": (ref(),) * blobs}


@pytest.mark.parametrize(
    "values",
    [
        {"operations": ()},
        {"operations": (SNAPSHOT,) * (ops.OPERATIONS_MAX + 1)},
        {"message": "x" * 4097},
        {"message": "\ud800"},
        _many(ROWS_MAX + 1),
        {"operations": (VIEW_SNAPSHOT,), "blobs": (ref(), ref(2, k=3))},
        {"blobs": ()},
        {"operations": (dataclasses.replace(MAKE, content=(Extent(0, 1000, 1),)),)},
        {"operations": (dataclasses.replace(MAKE, content=(Extent(0, 1000, 0, 1),)),)},
        {"operations": (ops.Write(1, None, (Extent(0, 1001, 0),)),)},
        {"operations": (ops.Unlink(-1, b"f", 2), MAKE)},
        {"operations": (MAKE, ops.Unlink(1, b"f", -2))},
        {"operations": (dataclasses.replace(MAKE, parent=-1),)},
        {"operations": (ops.Rename(1, b"a", 2, 1, b"b", -1),)},
    ],
    ids="-".join,
)
def test_a_transaction_that_does_not_hold_together_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(MalformedRecord):
        Transaction(**{"operations": (MAKE,), "blobs": (ref(),), **values})


def test_blobs_of_several_codings_are_in_a_table_each() -> None:
    blobs = (ref(), ref(2), ref(3, k=3), ref(4))
    transaction = Transaction((MAKE,), blobs)
    plain, names = encode_transaction(transaction)
    assert decode_transaction(plain, names) == transaction
    assert decode_names(names) == tuple(blob.name for blob in blobs)
    version, read_halves, operations, message = cbor2.loads(plain)
    verify_halves = cbor2.loads(names)
    assert (version, len(read_halves), len(verify_halves)) == (3, 3, 3)

    def table(*refs: BlobRef) -> tuple[bytes, bytes]:
        manifest = Manifest(ManifestKind.TREE, tuple(Row(one, one.plain_bytes) for one in refs))
        return encode_read_half(manifest), encode_verify_half(manifest)

    one, two = table(ref()), table(ref(2))
    wrong: list[tuple[int, object, object]] = [
        (3, [one[0], two[0]], [one[1], two[1]]),  # could be one table
        (3, [one[0]], [one[1]]),
        (3, one[0], one[1]),
        (3, [], []),
        (1, read_halves, verify_halves),
        (2, read_halves, verify_halves),
        (3, read_halves[:2], verify_halves),
        (3, read_halves[::-1], verify_halves),
        (3, [*read_halves[:2], b""], verify_halves),
        (3, [*read_halves[:2], 7], verify_halves),
        (4, read_halves, verify_halves),
    ]
    for number, read, verify in wrong:
        verify_plain = verify if isinstance(verify, bytes) else dump(verify)
        with pytest.raises(IntegrityError):
            decode_transaction(dump([number, read, operations, message]), verify_plain)


def test_what_an_operation_makes_is_named_by_those_behind_it() -> None:
    folder = ops.Make(1, b"d", Kind.FOLDER, 0o755)
    file = ops.Make(-1, b"f", Kind.FILE, 0o644)
    transaction = Transaction((folder, file, ops.Link(-2, -1, b"g"), ops.SetXattr(-2, b"user.x", b"")))
    assert decode_transaction(*encode_transaction(transaction)) == transaction


XATTRS = ((b"b", b""), (b"a", b""))


@pytest.mark.parametrize(
    ("op", "changes"),
    [
        *((MAKE, {"name": name}) for name in (b"", b".", b"..", b"a/b", b"a\0", b"x" * 256)),
        *((MAKE, {"parent": parent}) for parent in (0, 1 << 53, -(1 << 16) - 1)),
        (MAKE, {"mode": 0o10000}),
        (MAKE, {"uid": -1}),
        (MAKE, {"gid": 1 << 32}),
        (MAKE, {"mtime_ns": 1 << 63}),
        (MAKE, {"rdev": 1 << 64}),
        (MAKE, {"size": 999}),
        (MAKE, {"size": -1}),
        (MAKE, {"size": (1 << 62) + 1}),
        (MAKE, {"kind": Kind.FOLDER}),
        (MAKE, {"kind": Kind.FIFO, "content": ()}),
        (MAKE, {"kind": Kind.SYMLINK}),
        (MAKE, {"kind": Kind.SYMLINK, "content": (Extent(0, 2, b"a\0"),), "size": 2}),
        (MAKE, {"kind": Kind.SYMLINK, "content": (Extent(0, 2, b"ab"),), "size": 3}),
        (MAKE, {"kind": Kind.SYMLINK, "content": (Extent(0, 1, b"a"), Extent(2, 1, b"b")), "size": 3}),
        (MAKE, {"kind": Kind.SYMLINK, "content": (Extent(0, 1, b"a"), Extent(1, 1, None)), "size": 2}),
        (MAKE, {"kind": Kind.SYMLINK, "content": inline_content(b"a" * 4096), "size": 4096}),
        (MAKE, {"content": (Extent(5, 5, None), Extent(0, 5, None))}),
        (MAKE, {"content": (Extent(0, 5, None), Extent(4, 5, None))}),
        (MAKE, {"xattrs": XATTRS}),
        (MAKE, {"xattrs": (XATTRS[0], XATTRS[0])}),
        (MAKE, {"xattrs": ((b"", b""),)}),
        (MAKE, {"xattrs": ((b"a", bytes(65537)),)}),
        (ops.Link(2, 1, b"f"), {"inode": 0}),
        (ops.Rename(1, b"a", 2, 1, b"b"), {"new_parent": 0}),
        (ops.Rename(1, b"a", 2, 1, b"b"), {"new_name": b".."}),
        (ops.Rename(1, b"a", 2, 1, b"b"), {"exchange": True}),
        (ops.Unlink(1, b"f", 2), {"name": b""}),
        (ops.Rmdir(1, b"f", 2), {"inode": 1 << 53}),
        (ops.RemoveTree(1, b"f", 2), {"parent": 0}),
        (ops.SetAttributes(2), {"atime_ns": -(1 << 63) - 1}),
        (ops.SetAttributes(2), {"mode": -1}),
        (ops.SetXattr(2, b"a", b""), {"name": b"x" * 256}),
        (ops.RemoveXattr(2, b"a"), {"name": b"a\0"}),
        (ops.Write(2, None, (Extent(0, 1, b"a"),)), {"content": ()}),
        (ops.Write(2, None, (Extent(0, 1, b"a"),)), {"version": -1}),
        (ops.Truncate(2, None, 0), {"size": -1}),
        (ops.Truncate(2, None, 0), {"version": 1 << 63}),
        (SNAPSHOT, {"name": b"a/b"}),
        (Extent(0, 1, None), {"length": 0}),
        (Extent(0, 1, None), {"offset": -1}),
        (Extent(0, 1, None), {"offset": 1 << 62}),
        (Extent(0, 1, None), {"source_offset": 1}),
        (Extent(0, 1, b"a"), {"length": 2}),
        (Extent(0, 1, b"a"), {"source_offset": 1}),
        (Extent(0, 1, b"a"), {"source": bytes(2049), "length": 2049}),
        (Extent(0, 1, 0), {"source": -1}),
        (Extent(0, 1, 0), {"source_offset": -1}),
    ],
    ids=repr,
)
def test_an_operation_out_of_limits_is_refused(op: Operation, changes: dict[str, Any]) -> None:
    with pytest.raises(MalformedRecord):
        dataclasses.replace(op, **changes)

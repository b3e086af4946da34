"""What goes over /dev/fuse: layouts as the kernel has them, and nothing read that is not there."""

from __future__ import annotations

from struct import Struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.mount.wire import asked, request

from muniment.errors import InvalidRequest
from muniment.gateways.mount import protocol
from muniment.gateways.mount.protocol import Opcode

SIZES = {  # sizeof of each struct in linux/fuse.h
    protocol.IN_HEADER: 40,
    protocol.OUT_HEADER: 16,
    protocol.INIT_OUT: 64,
    protocol.ENTRY: 128,
    protocol.ATTRIBUTES: 104,
    protocol.SETATTR: 88,
    protocol.MKNOD: 16,
    protocol.MKDIR: 8,
    protocol.RENAME2: 16,
    protocol.OPEN: 8,
    protocol.CREATE: 16,
    protocol.OPEN_OUT: 16,
    protocol.RELEASE: 24,
    protocol.FLUSH: 24,
    protocol.READ: 40,
    protocol.WRITE: 40,
    protocol.WRITE_OUT: 8,
    protocol.STATFS_OUT: 80,
    protocol.FSYNC: 16,
    protocol.SETXATTR: 8,
    protocol.SETXATTR_EXT: 16,
    protocol.GETXATTR: 8,
    protocol.LOCK: 48,
    protocol.LOCK_OUT: 24,
    protocol.FALLOCATE: 32,
    protocol.LSEEK: 24,
    protocol.DIRENT: 24,
    protocol.INVAL_INODE: 24,
    protocol.INVAL_ENTRY: 16,
}


def test_layouts_are_as_long_as_the_kernels() -> None:
    assert {layout.format: layout.size for layout in SIZES} == {
        layout.format: size for layout, size in SIZES.items()
    }


def test_a_request_is_taken_apart() -> None:
    body = protocol.RENAME2.pack(9, protocol.RENAME_EXCHANGE) + b"old\0new\0"
    got = protocol.request_of(memoryview(asked(Opcode.RENAME2, body, node=5, unique=11, pid=4)))
    assert (got.opcode, got.unique, got.node, got.uid, got.gid, got.pid) == (45, 11, 5, 1000, 100, 4)
    assert got.fields(protocol.RENAME2) == (9, 2)
    assert got.names(protocol.RENAME2, 2) == [b"old", b"new"]


def test_what_is_kept_does_not_change_with_the_buffer() -> None:
    buffer = bytearray(asked(Opcode.LOOKUP, b"name\0"))
    got = protocol.request_of(memoryview(buffer))
    kept = got.kept()
    buffer[-5:] = b"lost\0"
    assert got.names(None, 1) == [b"lost"]
    assert kept.names(None, 1) == [b"name"]


def test_extensions_behind_a_request_are_left_out() -> None:
    whole = asked(Opcode.LOOKUP, b"name\0" + bytes(11))
    header = protocol.IN_HEADER.pack(len(whole), Opcode.LOOKUP, 1, 1, 0, 0, 0, 1, 0)
    got = protocol.request_of(memoryview(header + whole[40:]))
    assert bytes(got.body) == b"name\0" + bytes(3)


@pytest.mark.parametrize("cut", range(40))
def test_a_part_of_a_header_is_refused(cut: int) -> None:
    with pytest.raises(InvalidRequest, match="header"):
        protocol.request_of(memoryview(asked(Opcode.GETATTR)[:cut]))


@pytest.mark.parametrize(
    ("length", "extensions"), [(39, 0), (41, 0), (0, 0), (1 << 31, 0), (40, 1), (40, 0xFFFF)]
)
def test_a_length_that_cannot_be_is_refused(length: int, extensions: int) -> None:
    header = protocol.IN_HEADER.pack(length, Opcode.GETATTR, 1, 1, 0, 0, 0, extensions, 0)
    with pytest.raises(InvalidRequest, match="length"):
        protocol.request_of(memoryview(header))


@pytest.mark.parametrize("layout", SIZES)
def test_fields_that_are_not_all_there_are_refused(layout: Struct) -> None:
    whole = bytes(layout.size)
    request(Opcode.READ, whole).fields(layout)
    with pytest.raises(InvalidRequest, match="too short"):
        request(Opcode.READ, whole[:-1]).fields(layout)


@pytest.mark.parametrize("body", [b"", b"name", b"name\0other\0", b"name\0x"])
def test_names_that_do_not_end_or_are_too_many_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match="names"):
        request(Opcode.LOOKUP, body).names(None, 1)


def test_data_that_is_not_all_there_is_refused() -> None:
    got = request(Opcode.WRITE, bytes(45))
    assert len(got.data(40, 5)) == 5
    with pytest.raises(InvalidRequest, match="data"):
        got.data(40, 6)


@given(st.binary(max_size=120), st.integers(0, 4))
def test_any_bytes_are_a_request_or_refused(received: bytes, count: int) -> None:
    try:
        got = protocol.request_of(memoryview(received))
        got.fields(protocol.CREATE)
        assert len(got.names(protocol.CREATE, count)) == count
    except InvalidRequest:
        pass


def test_what_is_told_says_how_long_it_is() -> None:
    assert protocol.header(9, 2, 100) == protocol.OUT_HEADER.pack(116, -2, 9)
    told = protocol.notification(protocol.NOTIFY_INVAL_ENTRY, b"body")
    assert told == protocol.OUT_HEADER.pack(20, 3, 0) + b"body"

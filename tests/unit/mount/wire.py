"""Requests as the kernel lays them out, and answers taken apart."""

from __future__ import annotations

import struct

from muniment.gateways.mount import protocol


def asked(opcode: int, body: bytes = b"", *, node: int = 1, unique: int = 7, pid: int = 0) -> bytes:
    """The bytes of one request, by user 1000 and group 100."""
    size = protocol.IN_HEADER.size + len(body)
    return protocol.IN_HEADER.pack(size, opcode, unique, node, 1000, 100, pid, 0, 0) + body


def request(opcode: int, body: bytes = b"", *, node: int = 1) -> protocol.Request:
    """The same, read."""
    return protocol.request_of(memoryview(asked(opcode, body, node=node)))


def answered(answer: bytes) -> tuple[int, int, bytes]:
    """To which request, with which error, and what follows."""
    length, error, unique = struct.unpack_from("=IiQ", answer)
    assert length == len(answer)
    return unique, -error, answer[16:]

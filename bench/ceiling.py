"""What the machine could do at best: the bare kernels and a bare TLS transfer of the same bytes.

No file format, no HTTP, no disk, no placement: only what no implementation of this design can leave out.
`kernels` runs every hash, cipher and code step on reused buffers, client's and nodes' share of the work
alike, on as many threads as there are cores; `tls` moves the wire bytes between two processes over
loopback with blocking sockets.  A transfer cannot be faster than the sum, since both need the same cores.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from muniment.crypto.identity import Identity
from muniment.erasure.codec import Coding, codec_for
from muniment.merkle.share_tree import leaf_hashes
from muniment.net.tls import client_context, server_files

CHUNK: Final = 4 << 20
MESSAGE: Final = 1 << 20
TAG: Final = 16


@dataclass(frozen=True)
class Ceiling:
    """Seconds for the same user bytes, up and down."""

    kernels_up_s: float
    kernels_down_s: float
    tls_up_s: float
    tls_down_s: float

    @property
    def up_s(self) -> float:
        return self.kernels_up_s + self.tls_up_s

    @property
    def down_s(self) -> float:
        return self.kernels_down_s + self.tls_down_s


def measure(coding: Coding, total_bytes: int, work: Path, *, cores: int) -> Ceiling:
    """Run all four parts over `total_bytes` of user data."""
    chunks = total_bytes // CHUNK
    return Ceiling(
        kernels_up_s=_in_threads(_seal_chunks, coding, chunks, cores),
        kernels_down_s=_in_threads(_open_chunks, coding, chunks, cores),
        tls_up_s=_tls(work, total_bytes * coding.n // coding.k, upload=True),
        tls_down_s=_tls(work, total_bytes, upload=False),
    )


def _in_threads(work: object, coding: Coding, chunks: int, threads: int) -> float:
    assert callable(work)
    workers = [threading.Thread(target=work, args=(coding, chunks // threads)) for _ in range(threads)]
    started = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - started


class _Buffers:
    def __init__(self, coding: Coding) -> None:
        self.part_bytes = -(-(CHUNK + TAG) // coding.k)
        self.plain = memoryview(bytearray(os.urandom(CHUNK)))
        self.area = memoryview(bytearray(self.part_bytes * coding.n))
        self.shares = [self.area[i * self.part_bytes :][: self.part_bytes] for i in range(coding.n)]
        self.cipher = AESGCM(bytes(32))


def _seal_chunks(coding: Coding, chunks: int) -> None:
    buffers, codec = _Buffers(coding), codec_for(coding)
    data, parity = buffers.shares[: coding.k], range(coding.k, coding.n)
    compress = zstandard.ZstdCompressor(level=1)
    for _ in range(chunks):
        compress.compress(buffers.plain)
        blake3(buffers.plain).digest()
        buffers.cipher.encrypt_into(bytes(12), buffers.plain, None, buffers.area[: CHUNK + TAG])
        codec.encode(data, [(number, buffers.shares[number]) for number in parity])
        for share in buffers.shares:
            leaf_hashes(share)  # the client's
            leaf_hashes(share)  # the node's


def _open_chunks(coding: Coding, chunks: int) -> None:
    buffers = _Buffers(coding)
    sealed = buffers.area[: CHUNK + TAG]
    buffers.cipher.encrypt_into(bytes(12), buffers.plain, None, sealed)
    for _ in range(chunks):
        for share in buffers.shares[: coding.k]:
            leaf_hashes(share)  # the node's, before it serves
            leaf_hashes(share)  # the client's
        buffers.cipher.decrypt_into(bytes(12), sealed, None, buffers.plain)


def _tls(work: Path, wire_bytes: int, *, upload: bool) -> float:
    """Seconds to move `wire_bytes` in messages of 1 MiB, each answered by one byte."""
    cert, key = server_files(Identity.from_seed(bytes(32)), work)
    listener = socket.create_server(("127.0.0.1", 0))
    messages = max(1, wire_bytes // MESSAGE)
    server = multiprocessing.get_context("fork").Process(
        target=_tls_server, args=(listener, str(cert), str(key), messages, upload), daemon=True
    )
    server.start()
    buffer = memoryview(bytearray(MESSAGE))
    with (
        socket.create_connection(listener.getsockname()) as raw,
        client_context().wrap_socket(raw, server_hostname="localhost") as conn,
    ):
        conn.recv_into(buffer[:1])  # the handshake is over on both sides
        started = time.perf_counter()
        for _ in range(messages):
            _exchange(conn, buffer, send=upload)
        elapsed = time.perf_counter() - started
    server.join()
    listener.close()
    return elapsed


def _tls_server(listener: socket.socket, cert: str, key: str, messages: int, upload: bool) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(cert, key)
    raw, _ = listener.accept()
    buffer = memoryview(bytearray(MESSAGE))
    with context.wrap_socket(raw, server_side=True) as conn:
        conn.sendall(b"!")
        for _ in range(messages):
            _exchange(conn, buffer, send=not upload)


def _exchange(conn: ssl.SSLSocket, buffer: memoryview, *, send: bool) -> None:
    """One message one way and one byte back."""
    if send:
        conn.sendall(buffer)
        conn.recv_into(buffer[:1])
        return
    got = 0
    while got < len(buffer):
        got += conn.recv_into(buffer[got:])
    conn.sendall(b"!")

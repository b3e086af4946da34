"""What the kernel is told to forget, over a socket in place of /dev/fuse."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from pathlib import Path

import pytest
from tests.unit.mount.wire import answered

from muniment.gateways.mount import protocol
from muniment.gateways.mount.notices import Notices


async def heard(end: socket.socket) -> tuple[int, bytes]:
    """What the next notice is about, and its body."""
    unique, code, body = answered(await asyncio.get_running_loop().sock_recv(end, 1000))
    assert unique == 0
    return -code, body


async def test_names_and_attributes_are_told_to_be_forgotten_and_nothing_after_the_end() -> None:
    kernel, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel, ours:
        kernel.setblocking(False)
        notices = Notices()
        notices.attributes_changed(3)  # before the mount is there
        notices.begin(ours.fileno())
        notices.attributes_changed(4)
        assert await heard(kernel) == (protocol.NOTIFY_INVAL_INODE, protocol.INVAL_INODE.pack(4, -1, 0))
        notices.names_changed([(1, b"one"), (5, b"\xff")])
        notices.names_changed([])
        notices.names_changed([(6, b"last")])
        for node, name in ((1, b"one"), (5, b"\xff"), (6, b"last")):
            body = protocol.INVAL_ENTRY.pack(node, len(name), 0) + name + b"\0"
            assert await heard(kernel) == (protocol.NOTIFY_INVAL_ENTRY, body)
        await notices.aclose()
        notices.attributes_changed(4)
        notices.names_changed([(1, b"one")])
        with pytest.raises(BlockingIOError):
            kernel.recv(1000)


async def test_a_notice_that_is_held_up_goes_to_no_other_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("muniment.gateways.mount.notices._END_S", 0.01)
    kernel, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with kernel:
        notices = Notices()
        notices.begin(ours.fileno())
        full = [(1, b"name")] * 10_000  # more than the kernel takes before anybody reads
        notices.names_changed(full)
        await notices.aclose()
        number = ours.fileno()
        ours.close()
        with (tmp_path / "file").open("w+b") as file:
            assert file.fileno() == number
            await asyncio.to_thread(lambda: list(iter(lambda: kernel.recv(1000), b"")))
            await asyncio.to_thread(notices._thread.shutdown)  # waits until it has said all
        assert not (tmp_path / "file").read_bytes()


async def test_what_the_kernel_never_knew_or_cannot_hear_any_more_harms_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[bytes] = []

    def refuse(_: int, message: bytes) -> int:
        told.append(message)
        raise OSError(errno.ENOENT if len(told) % 2 else errno.ENODEV, "")

    monkeypatch.setattr(os, "write", refuse)  # patched: a socket takes every notice
    notices = Notices()
    notices.begin(1)
    notices.attributes_changed(4)
    notices.names_changed([(1, b"one"), (1, b"two")])
    await notices.aclose()
    assert len(told) == 3

"""Reading requests and answering them, over a socket that keeps packets apart as /dev/fuse does."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Mapping

import pytest
from tests.unit.mount.wire import answered, asked

from muniment.errors import ConfigInvalid, FileRefused, NodeUnreachable
from muniment.fs.errnos import Because
from muniment.gateways.mount import protocol
from muniment.gateways.mount.protocol import Answer, AtOnce, InitFlag, InTask, Opcode, Request
from muniment.gateways.mount.session import Session, _is_dying

WANTED = InitFlag.BIG_WRITES | InitFlag.POSIX_LOCKS


class Kernel:
    """The other end: asks, and hears answers."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    def ask(self, opcode: int, body: bytes = b"", *, unique: int, pid: int = 0) -> None:
        self._end.send(asked(opcode, body, unique=unique, pid=pid))

    def init(self, minor: int = 38, flags: int = 0xFFFF) -> None:
        self.ask(Opcode.INIT, protocol.INIT_IN.pack(7, minor, 1 << 17, flags) + bytes(48), unique=1)

    async def heard(self) -> tuple[int, int, bytes]:
        """The next answer."""
        return answered(await asyncio.get_running_loop().sock_recv(self._end, 1 << 20))

    def heard_now(self) -> list[tuple[int, int, bytes]]:
        """All answers that are there."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(answered(self._end.recv(1 << 20)))
        return found


@contextlib.asynccontextmanager
async def serving(
    at_once: Mapping[int, AtOnce] | None = None, in_task: Mapping[int, InTask] | None = None
) -> AsyncIterator[Kernel]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        ours.setblocking(False)
        theirs.setblocking(False)
        agreed: list[InitFlag] = []
        session = Session(theirs.detach(), at_once or {}, in_task or {}, WANTED, agreed.append)
        kernel = Kernel(ours)
        kernel.init()
        try:
            await session.start()
            assert agreed == [WANTED & 0xFFFF]
            assert (await kernel.heard())[:2] == (1, 0)
            yield kernel
        finally:
            await session.aclose()


async def turns(count: int = 20) -> None:
    """Let the loop do what there is to do."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_both_sides_agree_on_what_both_can() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        theirs.setblocking(False)
        session = Session(theirs.detach(), {}, {}, WANTED, lambda _: None)
        kernel = Kernel(ours)
        kernel.init(minor=45, flags=InitFlag.POSIX_LOCKS | InitFlag.ASYNC_READ)
        await session.start()
        _, error, body = answered(ours.recv(1000))
        major, minor, ahead, flags, _, _, write, gran, pages, _, _ = protocol.INIT_OUT.unpack(body)
        assert (error, major, minor, ahead, flags) == (0, 7, 38, 1 << 17, InitFlag.POSIX_LOCKS)
        assert (write, gran, pages) == (1 << 20, 1, 256)
        await session.aclose()


async def test_a_kernel_that_is_too_old_is_told_so() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        theirs.setblocking(False)
        session = Session(theirs.detach(), {}, {}, WANTED, lambda _: None)
        Kernel(ours).init(minor=30)
        with pytest.raises(ConfigInvalid, match=r"7\.30"):
            await session.start()
        assert answered(ours.recv(1000))[:2] == (1, errno.EPROTO)
        await session.aclose()


async def test_what_is_not_known_is_refused_so_that_the_kernel_does_without() -> None:
    async with serving() as kernel:
        kernel.ask(Opcode.LSEEK, unique=2)
        assert await kernel.heard() == (2, errno.ENOSYS, b"")


async def test_answers_come_at_once_or_from_a_task() -> None:
    def now(request: Request) -> Answer:
        return (bytes(request.body), b"!")

    async def later(request: Request) -> Answer:
        await asyncio.sleep(0)
        return (memoryview(bytes(request.body)),)

    async with serving({Opcode.LOOKUP: now, Opcode.FORGET: now}, {Opcode.OPEN: later}) as kernel:
        kernel.ask(Opcode.FORGET, unique=2)  # which nobody answers
        kernel.ask(Opcode.LOOKUP, b"a", unique=3)
        kernel.ask(Opcode.OPEN, b"b", unique=4)
        kernel.ask(Opcode.LOOKUP, b"c", unique=5)
        found = [await kernel.heard() for _ in range(3)]
        assert found == [(3, 0, b"a!"), (5, 0, b"c!"), (4, 0, b"b")]


async def test_errors_are_numbers_and_bugs_are_told(caplog: pytest.LogCaptureFixture) -> None:
    def now(request: Request) -> Answer:
        raise FileRefused(why=Because.READ_ONLY, reason="no")

    async def later(request: Request) -> Answer:
        raise ZeroDivisionError

    async with serving({Opcode.LOOKUP: now}, {Opcode.OPEN: later}) as kernel:
        kernel.ask(Opcode.LOOKUP, unique=2)
        assert await kernel.heard() == (2, errno.EROFS, b"")
        assert not caplog.records
        kernel.ask(Opcode.OPEN, unique=3)
        assert await kernel.heard() == (3, errno.EIO, b"")
        assert [one.levelno for one in caplog.records] == [logging.ERROR]
        assert "ZeroDivisionError" in caplog.text


async def test_who_waits_for_an_answer_that_cannot_be_given_is_told(caplog: pytest.LogCaptureFixture) -> None:
    def now(request: Request) -> Answer:
        return (bytes(64 << 20),)  # more than the socket takes

    async with serving({Opcode.LOOKUP: now}) as kernel:
        kernel.ask(Opcode.LOOKUP, unique=2)
        assert await kernel.heard() == (2, errno.EIO, b"")
        assert "does not take an answer" in caplog.text


async def test_the_same_trouble_is_told_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    def now(request: Request) -> Answer:
        raise NodeUnreachable(node=b"", reason="no power")

    async with serving({Opcode.READ: now, Opcode.LOOKUP: now}) as kernel:
        for unique in range(2, 22):
            kernel.ask(Opcode.READ, unique=unique)
        kernel.ask(Opcode.LOOKUP, unique=22)
        assert [(await kernel.heard())[1] for _ in range(21)] == [errno.EIO] * 21
    assert [one.getMessage().split(":")[0] for one in caplog.records] == ["read", "lookup"]


async def test_a_request_that_makes_no_sense_is_told_and_the_next_one_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def now(request: Request) -> Answer:
        request.fields(protocol.READ)
        return ()

    async with serving({Opcode.READDIR: now}) as kernel:
        kernel._end.send(b"short")
        kernel.ask(Opcode.READDIR, b"short", unique=2)
        kernel.ask(Opcode.READDIR, bytes(40), unique=3)
        assert [await kernel.heard() for _ in range(2)] == [(2, errno.EINVAL, b""), (3, 0, b"")]
        assert "no whole header" in caplog.text


async def test_what_is_written_stays_until_it_was_taken() -> None:
    go = asyncio.Event()

    async def write(request: Request) -> Answer:
        await go.wait()
        return (bytes(request.body),)

    async with serving(in_task={Opcode.WRITE: write, Opcode.OPEN: write}) as kernel:
        asks = {unique: bytes([unique]) * 1000 for unique in range(2, 30)}
        for unique, body in asks.items():
            kernel.ask(Opcode.WRITE if unique % 2 else Opcode.OPEN, body, unique=unique)
        await turns()
        go.set()
        found = [await kernel.heard() for _ in asks]
        assert {unique: body for unique, _, body in found} == asks


async def test_only_so_many_are_under_way_and_who_waits_for_a_lock_is_not_counted() -> None:
    begun, go, unlocked = [], asyncio.Event(), asyncio.Event()

    async def call(request: Request) -> Answer:
        begun.append(request.unique)
        await go.wait()
        return ()

    async def lock(request: Request) -> Answer:
        await unlocked.wait()
        return ()

    def unlock(request: Request) -> Answer:
        unlocked.set()
        return ()

    tasks: dict[int, InTask] = {Opcode.READ: call, Opcode.SETLKW: lock}
    async with serving({Opcode.GETLK: unlock}, tasks) as kernel:
        for unique in range(100, 300):
            kernel.ask(Opcode.SETLKW, unique=unique)
            await turns(2)
        for unique in range(2, 72):
            kernel.ask(Opcode.READ, unique=unique)
        await turns()
        assert begun == list(range(2, 66))
        go.set()
        assert sorted([(await kernel.heard())[0] for _ in range(70)]) == list(range(2, 72))
        kernel.ask(Opcode.GETLK, unique=400)
        assert (await kernel.heard())[0] == 400
        assert len([await kernel.heard() for _ in range(200)]) == 200


async def test_who_waits_until_all_is_durable_holds_up_nobody_and_no_signal_breaks_it_off() -> None:
    durable = asyncio.Event()

    async def flush(request: Request) -> Answer:
        await durable.wait()
        return ()

    async def read(request: Request) -> Answer:
        return (b"data",)

    async with serving(in_task={Opcode.FLUSH: flush, Opcode.READ: read}) as kernel:
        for unique in range(100, 200):
            kernel.ask(Opcode.FLUSH, unique=unique, pid=os.getpid())
            await turns(2)
        kernel.ask(Opcode.INTERRUPT, protocol.INTERRUPT.pack(100), unique=3)
        kernel.ask(Opcode.READ, unique=2)
        assert await kernel.heard() == (2, 0, b"data")
        assert kernel.heard_now() == []
        durable.set()
        assert sorted([await kernel.heard() for _ in range(100)]) == [(at, 0, b"") for at in range(100, 200)]


async def test_a_signal_ends_the_wait_for_a_lock_and_no_other_call_of_who_lives_on() -> None:
    go = asyncio.Event()

    async def call(request: Request) -> Answer:
        await go.wait()
        return (b"done",)

    async with serving(in_task={Opcode.SETLKW: call, Opcode.READ: call}) as kernel:
        kernel.ask(Opcode.SETLKW, unique=2, pid=os.getpid())
        kernel.ask(Opcode.READ, unique=4, pid=os.getpid())
        for unique in (2, 4, 6):
            kernel.ask(Opcode.INTERRUPT, protocol.INTERRUPT.pack(unique), unique=unique + 1)
        assert await kernel.heard() == (2, errno.EINTR, b"")
        await turns()
        assert kernel.heard_now() == []
        go.set()
        assert await kernel.heard() == (4, 0, b"done")


def test_who_lives_is_not_dying_and_who_is_gone_neither() -> None:
    with subprocess.Popen(["true"]) as ended:
        pass
    assert not _is_dying(os.getpid())
    assert not _is_dying(ended.pid)
    assert not _is_dying(0)


async def test_what_is_under_way_at_the_end_is_broken_off_and_answered() -> None:
    cleaned = []

    async def call(request: Request) -> Answer:
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append(request.unique)
        return ()

    async with serving(in_task={Opcode.READ: call}) as kernel:
        kernel.ask(Opcode.READ, unique=2)
        kernel.ask(Opcode.READ, unique=3)
        await turns()
    assert cleaned == [2, 3]

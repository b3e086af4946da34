"""Serving a mount: requests of the kernel in, answers out, in the engine's loop.

What needs no await is answered where it was read; for all else there is a task, which the session owns.
At most `_UNDER_WAY` are under way, then nothing is read until one has ended.  Who waits for a lock, or until
all is durable, is not counted: nobody could read how the lock is let go, nor go on while nodes are away.

The kernel asks for a call to be broken off at any signal to the one who waits, and hands the answer on as it
is: who got EINTR from `open` because a timer rang would fail.  So it is broken off only if it waits for a
lock, or if whoever waits is being killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from muniment.errors import ConfigInvalid, InternalError, InvalidRequest, MunimentError
from muniment.fs.errnos import errno_of
from muniment.gateways.mount import protocol
from muniment.gateways.mount.protocol import Answer, AtOnce, InitFlag, InTask, Opcode, Request

_UNDER_WAY: Final = 64
_WAITERS: Final = 1024
_BATCH: Final = 16
"""Requests that are read before others in the loop have their turn."""

_BUFFERS_KEPT: Final = 4
_BACKGROUND: Final = 64
_CONGESTED: Final = 48
_READY_S: Final = 30.0
_PENDING: Final = re.compile(rb"^SigPnd:\s*([0-9a-f]+)", re.MULTILINE)
_SIGKILL: Final = 1 << 8
_PATIENT: Final = frozenset(
    (Opcode.SETLKW, Opcode.FLUSH, Opcode.FSYNC, Opcode.FSYNCDIR, Opcode.SYNCFS, Opcode.RELEASE)
)
_UNANSWERED: Final = frozenset((Opcode.FORGET, Opcode.BATCH_FORGET))
_GONE: Final = frozenset((errno.ENODEV, errno.ECONNABORTED))
_TOLD: Final = frozenset((errno.EIO, errno.ETIMEDOUT, errno.ENOSPC, errno.ESTALE))
"""What is nobody's own fault is logged."""

_QUIET_S: Final = 1.0
_NOTHING: Final[Answer] = ()
_log = logging.getLogger(__name__)


class Session:
    """See the module.

    Args:
        device: /dev/fuse of one mount, which does not block; closed by `aclose`.
        at_once: what answers each opcode where it was read.
        in_task: what answers each other opcode; what is in neither is refused with ENOSYS.
        wanted: what the kernel may do, where it can.
        agree: told what it will do, before the first request.

    Attributes:
        ended: done when it is unmounted and nobody uses it; failed if the device did.
    """

    def __init__(
        self,
        device: int,
        at_once: Mapping[int, AtOnce],
        in_task: Mapping[int, InTask],
        wanted: InitFlag,
        agree: Callable[[InitFlag], None],
    ) -> None:
        self._device, self._at_once, self._in_task = device, at_once, in_task
        self._wanted, self._agree = wanted, agree
        self._loop = asyncio.get_running_loop()
        self._buffer = bytearray(protocol.REQUEST_BYTES_MAX)
        self._free: list[bytearray] = []
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._requests: dict[int, Request] = {}  # of these tasks
        self._waiters: set[int] = set()  # those that are not counted
        self._told_s: dict[tuple[int, int], float] = {}  # when, by opcode and number
        self._reading = False
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self.ended: asyncio.Future[None] = self._loop.create_future()

    async def start(self) -> None:
        """Begin to serve; returns when the kernel has begun too.  Raises: ConfigInvalid: it is too old."""
        self._read()
        either: list[asyncio.Future[Any]] = [self._ready, self.ended]
        await asyncio.wait(either, timeout=_READY_S, return_when=asyncio.FIRST_COMPLETED)
        if self.ended.done():
            self.ended.result()
        if not self._ready.done():
            raise ConfigInvalid(where="FUSE", reason="the kernel does not speak to a mount that it has made")

    async def aclose(self) -> None:
        """End: what is under way is broken off, and the device closed; a mount that is left is dead then."""
        self._end(None)
        await asyncio.sleep(0)  # who is cancelled before he begins would not answer
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())
        os.close(self._device)

    # --- requests in --------------------------------------------------------------------------

    def _read(self) -> None:
        if not self._reading and not self.ended.done():
            self._reading = True
            self._loop.add_reader(self._device, self._readable)

    def _pause(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._device)

    def _end(self, error: Exception | None) -> None:
        self._pause()
        if not self.ended.done():
            if error is None:
                self.ended.set_result(None)
            else:
                self.ended.set_exception(error)

    def _readable(self) -> None:
        for _ in range(_BATCH):
            if len(self._tasks) - len(self._waiters) >= _UNDER_WAY:
                self._pause()
                return
            try:
                size = os.readv(self._device, (self._buffer,))
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EINTR, errno.ENOENT):  # broken off before it was read
                    continue
                self._end(None if error.errno in _GONE else error)
                return
            try:
                self._take(protocol.request_of(memoryview(self._buffer)[:size]))
            except InvalidRequest as error:
                _log.error("%s", error)
            if not self._reading:
                return

    def _take(self, request: Request) -> None:
        opcode = request.opcode
        if (now := self._at_once.get(opcode)) is not None:
            try:
                answer = now(request)
            except Exception as error:  # noqa: BLE001 - each becomes a number
                number, answer = self._number(request, error), _NOTHING
            else:
                number = 0
            if opcode not in _UNANSWERED:
                self._answer(request.unique, number, answer)
        elif (later := self._in_task.get(opcode)) is not None:
            self._begin(request, later)
        elif opcode == Opcode.INIT:
            self._greet(request)
        elif opcode == Opcode.INTERRUPT:
            self._interrupt(request)
        elif opcode != Opcode.DESTROY:
            self._answer(request.unique, errno.ENOSYS, ())

    def _begin(self, request: Request, call: InTask) -> None:
        buffer = None
        if request.opcode == Opcode.WRITE:  # its data stays where it was read until it was taken
            buffer = self._buffer
            self._buffer = self._free.pop() if self._free else bytearray(protocol.REQUEST_BYTES_MAX)
        else:
            request = request.kept()
        if len(self._waiters) < _WAITERS:
            if request.opcode in _PATIENT:
                self._waiters.add(request.unique)
        elif request.opcode == Opcode.SETLKW:
            self._answer(request.unique, errno.ENOLCK, ())
            return
        self._requests[request.unique] = request
        self._tasks[request.unique] = self._loop.create_task(self._finish(request, call, buffer))

    async def _finish(self, request: Request, call: InTask, buffer: bytearray | None) -> None:
        """Answer one request, whatever becomes of it."""
        number, answer = errno.EINTR, _NOTHING  # broken off by `aclose`, or for the kernel
        try:
            answer = await call(request)
            number = 0
        except Exception as error:  # noqa: BLE001 - each becomes a number
            number = self._number(request, error)
        finally:
            self._answer(request.unique, number, answer)
            del self._tasks[request.unique], self._requests[request.unique]
            self._waiters.discard(request.unique)
            if buffer is not None and len(self._free) < _BUFFERS_KEPT:
                self._free.append(buffer)
            self._read()

    def _greet(self, request: Request) -> None:
        major, minor, ahead, flags = request.fields(protocol.INIT_IN)
        if (major, minor) < (protocol.MAJOR, protocol.MINOR_MIN):
            self._answer(request.unique, errno.EPROTO, ())
            reason = f"mounts need Linux 5.4 or later (FUSE 7.31); this kernel speaks {major}.{minor}"
            self._end(ConfigInvalid(where="FUSE", reason=reason))
            return
        agreed = InitFlag(flags) & self._wanted
        if not self._ready.done() and major == protocol.MAJOR:  # to another one this is a proposal
            self._agree(agreed)
            self._ready.set_result(None)
        out = protocol.INIT_OUT.pack(
            protocol.MAJOR,
            protocol.MINOR,
            ahead,
            agreed,
            _BACKGROUND,
            _CONGESTED,
            protocol.WRITE_BYTES_MAX,
            1,  # times are as precise as a nanosecond
            protocol.PAGES_MAX,
            0,
            0,
        )
        self._answer(request.unique, 0, (out,))

    def _interrupt(self, request: Request) -> None:
        (unique,) = request.fields(protocol.INTERRUPT)
        asked = self._requests.get(unique)
        if asked is not None and (asked.opcode == Opcode.SETLKW or _is_dying(asked.pid)):
            # Not before it has begun, or nobody would answer.
            self._loop.call_soon(self._tasks[unique].cancel)

    # --- answers out --------------------------------------------------------------------------

    def _answer(self, unique: int, number: int, answer: Answer) -> None:
        header = protocol.header(unique, number, sum(map(len, answer)))
        try:
            os.writev(self._device, (header, *answer))
        except OSError as error:
            if error.errno in (errno.ENOENT, *_GONE):  # nobody waits for it any more
                return
            _log.error("bug: the kernel does not take an answer of %d pieces: %s", len(answer), error)
            if not number:  # whoever waits must not wait forever
                self._answer(unique, errno.EIO, ())

    def _number(self, request: Request, error: Exception) -> int:
        """What the caller is told; what is not his own fault is logged, the same once in a while."""
        if not isinstance(error, MunimentError):
            _log.error("bug: a request of the kernel (opcode %d) failed", request.opcode, exc_info=error)
            return errno.EIO
        number, now_s = errno_of(error), self._loop.time()
        if number in _TOLD and now_s >= self._told_s.get((request.opcode, number), float("-inf")) + _QUIET_S:
            name = Opcode(request.opcode).name.lower()
            _log.warning("%s: %s", name, error, exc_info=error if isinstance(error, InternalError) else None)
            self._told_s[request.opcode, number] = now_s
        return number


def _is_dying(thread: int) -> bool:
    """Whether a thread is being killed: whatever the signal was, the kernel leaves it SIGKILL."""
    with contextlib.suppress(OSError):
        pending = _PENDING.search(Path(f"/proc/{thread}/status").read_bytes())
        return pending is not None and bool(int(pending[1], 16) & _SIGKILL)
    return False

"""A writer or a reader of the drill: a member with a home of its own, in a process of its own.

    python -m tests.drill.client writer NAME HOME ROSTER JOURNAL SEED WRITERS PAUSE_S

A writer notes durably what it is about to write, and then what was acknowledged, and as which entry.  A
reader notes when it began to read, and what it got.  Errors are noted and survived.  SIGTERM ends both after
the operation under way.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop
from tests.drill.content import Register, fingerprint, registers
from tests.drill.journal import Journal, read_journal

from muniment.engine.opened import OpenVolume
from muniment.engine.volume_files import VolumeFiles
from muniment.errors import MunimentError, PathUnknown
from muniment.node import volumes

VOLUME: Final = "drill"
OPERATION_S: Final = 180.0
"""Longer than anything may take whatever happens to the grid: what takes longer hangs."""

_RETRY_S: Final = 0.2
_LOOK_EVERY: Final = 8


class Target:
    """Takes what is read."""

    def __init__(self) -> None:
        self.data = bytearray()

    def write(self, data: bytes | memoryview) -> int:
        self.data += data
        return len(data)


@dataclass
class Client:
    """One open volume, and what is noted about it."""

    name: str
    scratch: Path
    journal: Journal
    opened: OpenVolume
    files: VolumeFiles
    chance: random.Random
    pause_s: float
    stopping: asyncio.Event

    async def write(self, register: Register, version: int) -> None:
        """One write, noted before and after."""
        parts = register.content(version)
        self.journal.add(
            "begin",
            register=register.name,
            version=version,
            print=fingerprint(parts),
            size=sum(map(len, parts)),
        )

        async def put() -> int:
            if len(parts) == 1:
                return (await self.files.put(parts[0], register.files[0])).committed.index
            names = {}
            for path, part in zip(register.files, parts, strict=True):
                name = path.rpartition(b"/")[2]
                names[name] = self.scratch / name.decode()
                await asyncio.to_thread(names[name].write_bytes, part)
            return (await self.files.put_files(names, register.writer.encode())).committed.index

        await self._noted("write", put, register=register.name, version=version)

    async def read(self, register: Register, *, past: bool) -> None:
        """One read of all files of a register in one state: the newest, or one of long ago."""

        async def get() -> tuple[int, str]:
            size = await self.opened.volume.sync()
            at = self.chance.randrange(1, size) if past else size - 1
            parts = []
            for path in register.files:
                target = Target()
                try:
                    await self.files.get(path, target, at=at)
                except PathUnknown:
                    continue
                parts.append(bytes(target.data))
            return at, fingerprint(parts)

        await self._noted("past" if past else "read", get, register=register.name)

    async def look(self) -> None:
        """Note the state that the log folds to here, and the newest checkpoint seen."""
        volume = self.opened.volume

        def state() -> tuple[int, str, str]:
            view = volume.view
            return view.size, view.state_hash().digest().hex(), volume.follower.newest_note().decode()

        size, digest, note = await volume.run(state)
        self.journal.add("state", size=size, digest=digest, note=note)

    async def _noted(self, what: str, work: Callable[[], Awaitable[object]], **facts: object) -> None:
        began_s = self.journal.add(f"{what} begins", **facts)
        try:
            async with asyncio.timeout(OPERATION_S):
                result = await work()
        except TimeoutError:
            self.journal.add("error", doing=what, code="hangs", began_s=began_s, **facts)
        except MunimentError as error:
            self.journal.add(
                "error", doing=what, code=error.code, text=str(error)[:300], began_s=began_s, **facts
            )
            await asyncio.sleep(_RETRY_S)
        else:
            self.journal.add(what, result=result, began_s=began_s, **facts)


async def _write_on(client: Client, own: list[Register], done: dict[str, int]) -> None:
    while not client.stopping.is_set():
        register = client.chance.choice(own)
        done[register.name] = done.get(register.name, 0) + 1
        await client.write(register, done[register.name])
        if client.chance.random() < 1 / _LOOK_EVERY:
            await client.look()
        await _pause(client)


async def _read_on(client: Client, every: list[Register]) -> None:
    while not client.stopping.is_set():
        await client.read(client.chance.choice(every), past=client.chance.random() < 0.2)
        if client.chance.random() < 1 / _LOOK_EVERY:
            await client.look()
        await _pause(client)


async def _pause(client: Client) -> None:
    pause_s = client.chance.uniform(0, 2 * client.pause_s)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(client.stopping.wait(), pause_s)


@contextlib.asynccontextmanager
async def _open(
    home: Path, roster: str, journal: Journal, stopping: asyncio.Event
) -> AsyncIterator[tuple[OpenVolume, VolumeFiles] | None]:
    """The volume, as soon as it can be opened; None if there is an end before."""
    async with contextlib.AsyncExitStack() as stack:
        while not stopping.is_set():
            opening = volumes.open_files(home, VOLUME, roster, lambda: "")
            try:
                yield await stack.enter_async_context(opening)
            except MunimentError as error:
                journal.add("error", doing="open", code=error.code, text=str(error)[:300])
                await asyncio.sleep(_RETRY_S)
            else:
                return
        yield None


async def main() -> None:
    role, name, home, roster, path, seed, writers, pause_s = sys.argv[1:]
    lines = read_journal(Path(path))
    journal = Journal(Path(path))
    starts = sum(line["what"] == "start" for line in lines)
    journal.add("start")
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    print("serving", flush=True)
    chance = random.Random(f"{seed} {name} {starts}")
    every = registers(writers.split(","))
    scratch = Path(home).parent / f"{name}.scratch"
    scratch.mkdir(exist_ok=True)
    async with _open(Path(home), roster, journal, stopping) as opened:
        if opened is not None:
            client = Client(name, scratch, journal, *opened, chance, float(pause_s), stopping)
            if role == "writer":
                begun = {line["register"]: line["version"] for line in lines if line["what"] == "begin"}
                await _write_on(client, [one for one in every if one.writer == name], begun)
            else:
                await _read_on(client, every)
    await asyncio.get_running_loop().shutdown_default_executor()
    left = sorted(thread.name for thread in threading.enumerate() if thread is not threading.main_thread())
    tasks = [str(task.get_name()) for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    journal.add("end", threads=left, tasks=tasks)
    journal.close()


if __name__ == "__main__":
    uvloop.run(main())

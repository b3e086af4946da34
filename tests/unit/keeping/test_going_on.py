"""A keeper goes on: over days without the log, and beside other commands that order a local log."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from muniment.books.memory import MemoryBlobBook
from muniment.engine.keeping.keeper import Keeper
from muniment.engine.keeping.named import LogHead
from muniment.engine.keeping.work import Worker
from muniment.engine.opened import LOCAL
from muniment.errors import NodeUnreachable
from muniment.ids import MemberId, VolumeId
from muniment.node import volumes
from muniment.node.folder import FolderLock
from muniment.node.shared_log import SharedLocalLog
from muniment.node.volume_home import make_identity
from muniment.ports import NamedBlobs
from muniment.queues.memory import MemoryQueue
from muniment.spec.act import Quorum, VolumePolicy
from muniment.spec.operation import ROOT, Kind, Make
from muniment.spec.transaction import Transaction
from muniment.testing.fake_grid import FakeGrid
from muniment.testing.virtual_time import StepClock, run_virtual


class Away:
    """A log whose service is away until a test says otherwise."""

    volume = VolumeId(b"v" * 32)

    def __init__(self) -> None:
        self.away = True

    @property
    def head(self) -> LogHead:
        return LogHead(0, bytes(32))

    async def follow(self) -> LogHead:
        if self.away:
            raise NodeUnreachable(node=b"n" * 32, reason="away")
        return self.head

    def root(self, size: int) -> bytes:
        return bytes(32)

    def page(self, start: int) -> list[NamedBlobs]:
        return []


def test_weeks_without_the_log_service_end_no_keeper() -> None:
    async def main() -> None:
        clock, log, chance = StepClock(), Away(), random.Random(1).random
        worker = Worker(MemoryQueue(), clock=clock, chance=chance)
        async with FakeGrid(3).client() as client:
            keeper = Keeper(log, client, MemoryBlobBook(), worker, clock, MemberId(b"m" * 32))
            await keeper.begin()
            for _ in range(24 * 14):
                clock.advance(3600)
                await worker.flush()
            assert keeper.tally.scans == 0
            assert not any(count.aside for count in (await worker.status()).kinds.values())
            log.away = False
            clock.advance(3600)
            await worker.flush()
            assert keeper.tally.scans == 1

    run_virtual(main())


def test_a_local_log_is_read_anew_between_the_commands_that_change_it(tmp_path: Path) -> None:
    async def main() -> None:
        make_identity(tmp_path, "")
        policy = VolumePolicy(Quorum.ONE, 3600, "2/3", 2, 1 << 20)
        known = await volumes.create_volume(
            tmp_path, "books", LOCAL, policy, own_name="anna", passphrase=lambda: ""
        )
        shared = SharedLocalLog(tmp_path, known)
        before = await shared.checkpoint()
        async with volumes.open_volume(tmp_path, "books", lambda: "") as opened:
            waiting = asyncio.create_task(shared.entries(0, 9))
            make = Make(ROOT, b"folder", Kind.FOLDER, 0o755)
            await opened.volume.commit(lambda _: Transaction((make,)))
            assert not waiting.done()  # its turn has not come
        assert len(await waiting) == 2
        assert await shared.checkpoint() != before
        FolderLock(known.folder).close()  # and nobody is kept from it

    asyncio.run(main())

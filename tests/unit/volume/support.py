"""A volume with real members, keys and folds over a log service in this process."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from muniment.core.keys import grant, rotation
from muniment.core.membership import Membership
from muniment.crypto.entries import volume_id
from muniment.crypto.hashing import derive
from muniment.crypto.identity import Identity
from muniment.crypto.member import MemberSecret
from muniment.engine.follower import EvidenceSink, Follower
from muniment.engine.local_log import LocalLog
from muniment.engine.members import founding_entry
from muniment.engine.sequencer import Sequencer, found
from muniment.engine.volume import Volume
from muniment.ids import VolumeId
from muniment.logs.checkpoints import MemoryCheckpoints
from muniment.logs.memory import MemoryLog
from muniment.ports import Clock, LogClient, LogStore
from muniment.spec.act import Accept, Act, Join, Kick, Quorum, Role, VolumePolicy
from muniment.spec.operation import ROOT, Kind, Make, Operation
from muniment.spec.transaction import Transaction
from muniment.testing.virtual_time import LoopClock
from muniment.views.memory import MemoryView

POLICY = VolumePolicy(Quorum.MAJORITY, 7 * 24 * 3600, "2/3", 2, 1 << 20)
LOG_KEY = Identity.from_seed(b"l" * 32)


class Now(LoopClock):
    """The clock of the loop that runs; it goes on a little each time that somebody looks, as clocks do."""

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop())
        self._looks = itertools.count()

    def now_s(self) -> float:
        return super().now_s() + next(self._looks) * 1e-6


def member(name: str) -> MemberSecret:
    return MemberSecret(derive("tests of volumes", name.encode()))


def transaction(*operations: Operation, message: str = "") -> Transaction:
    return Transaction(operations, message=message)


def folder(name: bytes, parent: int = ROOT) -> Make:
    return Make(parent, name, Kind.FOLDER, 0o755)


class Careless(Volume):
    """Of a member whose client sees a broken key chain and does nothing."""

    def _mending(self) -> bytes | None:
        return None


@dataclass
class World:
    """One log service and the members' volumes over it.

    Attributes:
        volume: founded by "anna".
        store: what the service keeps.
        log: the client that members get; a test may put a lying one in its place.
    """

    sequencer: Sequencer
    store: LogStore
    volume: VolumeId
    log: LogClient
    stack: contextlib.AsyncExitStack
    clock: Clock
    open: dict[str, Volume] = field(default_factory=dict)

    async def member(
        self,
        name: str,
        *,
        log: LogClient | None = None,
        sink: EvidenceSink | None = None,
        sync: bool = True,
        kind: type[Volume] = Volume,
    ) -> Volume:
        """The volume of one who holds this secret, in step with the log; members or not."""
        secret = member(name)
        follower = Follower(
            self.volume,
            secret.read,
            LOG_KEY.public_key,
            MemoryLog(),
            MemoryView(),
            checkpoints=MemoryCheckpoints(),
            evidence_sink=sink,
        )
        volume = kind(follower, secret, log or self.log, self.clock, os.urandom)
        self.stack.push_async_callback(volume.aclose)
        if sync:
            await volume.sync()
        return volume

    def entries(self) -> list[bytes]:
        """All that are in the log."""
        return self.store.read(0, self.store.size, bytes_max=1 << 30)

    async def join(self, name: str, role: Role, by: Volume) -> Volume:
        """Ask for membership, and have it accepted by one owner."""
        volume, secret = await self.member(name), member(name)
        await volume.act(lambda _: Join(secret.card(name), role, ""))
        await by.sync()
        await by.act(lambda state: accept(state, by, secret, role))
        await volume.sync()
        return volume


def _always(sequencer: Sequencer) -> Callable[[], Awaitable[Sequencer]]:
    async def give() -> Sequencer:
        return sequencer

    return give


def accept(state: Membership, by: Volume, joiner: MemberSecret, role: Role) -> Act:
    card = state.joins()[joiner.member].card
    return Accept(joiner.member, role, grant(by.id, by.follower.ring.keys(state.epoch), card, role))


def kick(state: Membership, by: Volume, whom: MemberSecret) -> Act:
    fresh, _ = rotation(state, by.follower.ring.keys(state.epoch), os.urandom, without=whom.member)
    return Kick(whom.member, fresh)


@contextlib.asynccontextmanager
async def world(policy: VolumePolicy = POLICY, clock: Clock | None = None) -> AsyncIterator[World]:
    clock, store = clock or Now(), MemoryLog()
    signed = founding_entry(member("anna"), "books", "anna", policy, clock, os.urandom)
    volume = found(signed, store, LOG_KEY)
    assert volume == volume_id(signed)
    async with contextlib.AsyncExitStack() as stack:
        thread = ThreadPoolExecutor(1)
        stack.callback(thread.shutdown)
        sequencer = Sequencer(volume, store, LOG_KEY, clock, thread)
        stack.push_async_callback(sequencer.aclose)
        yield World(sequencer, store, volume, LocalLog(_always(sequencer)), stack, clock)

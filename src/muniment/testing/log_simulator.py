"""Members of a volume over one log service, in virtual time: every order of events, chosen by a seed.

    with LogSimulator(seed) as simulator:
        simulator.together([Job("anna", 3, 1), Job("bert", 2, 0)], loss=0.2)
        simulator.settle()
        simulator.check()

Followers, volumes and the sequencer are the real ones.  Simulated are the network (delays, so that calls
overtake each other; lost requests and answers; partitions), the ends of processes, the clock, and the disks,
which are memory that outlives its process.  Threads do not exist: blocking work is done when it is handed
over.  The same seed and calls give the same run, but for the bytes of wrapped keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Self, TypeVar, TypeVarTuple

from muniment.core.keys import grant, rotation
from muniment.core.tree_state import TreeReading
from muniment.crypto.entries import open_entry
from muniment.crypto.hashing import derive
from muniment.crypto.identity import Identity
from muniment.crypto.member import MemberSecret
from muniment.engine.follower import Follower
from muniment.engine.local_log import LocalLog
from muniment.engine.members import founding_entry
from muniment.engine.sequencer import Sequencer, found
from muniment.engine.volume import Volume
from muniment.errors import (
    EntryRefused,
    MunimentError,
    NodeUnreachable,
    OperationRejected,
    StoreFailed,
    UnavailableError,
)
from muniment.ids import EntryHash, MemberId, VolumeId
from muniment.logs.checkpoints import MemoryCheckpoints
from muniment.logs.memory import MemoryLog
from muniment.merkle.log_tree import Frontier, Subtree
from muniment.ports import Appended, LoggedEntry, LogStore
from muniment.spec.act import Accept, Join, Kick, Quorum, Role, VolumePolicy
from muniment.spec.entry import NO_ENTRY
from muniment.spec.operation import (
    ROOT,
    Extent,
    Kind,
    Make,
    Operation,
    RemoveTree,
    Rename,
    Unlink,
    Write,
)
from muniment.spec.transaction import Transaction
from muniment.testing.virtual_time import LoopClock, VirtualTimeLoop
from muniment.views.memory import MemoryView

OWNER: Final = "anna"
WRITERS: Final = ("bert", "carl", "dora")
POLICY: Final = VolumePolicy(Quorum.ONE, 7 * 24 * 3600, "2/3", 2, 1 << 20)

_CONTEXT: Final = "muniment tests log simulator"
_DELAY_S: Final = 0.2
_NAMES: Final = (b"a", b"b", b"c", b"d")
_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")


class ViewAfterCrash(Enum):
    """What a member finds of his view when he comes back; his replica is always whole."""

    LOST = "lost"
    BEHIND = "behind"
    WHOLE = "whole"


@dataclass(frozen=True, slots=True)
class Job:
    """One change by one member; `what` and `where` choose which, from what is there then."""

    member: str
    what: int
    where: int


@dataclass(frozen=True, slots=True)
class ServiceCrash:
    """The service's process ends; before or after its next write, or at once if it writes nothing."""

    after_s: float
    durable: bool


@dataclass(frozen=True, slots=True)
class MemberCrash:
    """A member's process ends in the middle of whatever he does."""

    after_s: float
    member: str
    view: ViewAfterCrash


Interruption = ServiceCrash | MemberCrash


@dataclass(slots=True)
class Change:
    """What became of a change.

    Attributes:
        member: who made it.
        label: the message of its transaction, by which it is found in the log.
        floor: the largest index that anybody had been answered when it began.
        index: where it is, if its maker was told.
    """

    member: str
    label: str
    floor: int
    index: int | None = None


class LogSimulator:
    """A volume with an owner and three writers, in step.

    Args:
        seed: of delays, losses and contents.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.loop = _InlineLoop()
        self.clock = LoopClock(self.loop)
        self.loss = 0.0
        self.changes: list[Change] = []
        self.members: dict[str, Member] = {}
        self.removed: set[str] = set()
        self.disk = MemoryLog("the service's disk")
        self.answered = 0
        self._thread = ThreadPoolExecutor(1)
        self._key = Identity.from_seed(derive(_CONTEXT, b"log"))
        self.volume = self._found()
        self.log_key = self._key.public_key
        self.service = _Service(self)
        self.run(self._begin())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Fails if a task is left behind."""
        left = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
        for task in left:
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()
        self._thread.shutdown()
        assert not left, f"tasks left behind: {left}"

    def run(self, work: Awaitable[_T]) -> _T:
        """Run to the end, in virtual time."""

        async def main() -> _T:
            return await work

        return self.loop.run_until_complete(main())

    def entropy(self, count: int) -> bytes:
        """From the seed."""
        return self.random.randbytes(count)

    def sequencer(self, store: LogStore) -> Sequencer:
        """The service's, over its disk."""
        return Sequencer(self.volume, store, self._key, self.clock, self._thread)

    def _found(self) -> VolumeId:
        signed = founding_entry(secret_of(OWNER), "books", OWNER, POLICY, self.clock, self.entropy)
        return found(signed, self.disk, self._key)

    async def _begin(self) -> None:
        self.members[OWNER] = Member(self, OWNER)
        await self.members[OWNER].volume.sync()
        for name in WRITERS:
            await self._join(name, Role.WRITER)

    async def _join(self, name: str, role: Role) -> None:
        owner, joiner, secret = self.members[OWNER].volume, Member(self, name), secret_of(name)
        await joiner.volume.sync()
        await joiner.volume.act(lambda _: Join(secret.card(name), role, ""))
        await owner.sync()
        keys = owner.follower.ring.keys(owner.membership.epoch)
        granted = grant(self.volume, keys, secret.card(name), role)
        await owner.act(lambda _: Accept(secret.member, role, granted))
        await joiner.volume.sync()
        self.members[name] = joiner

    # --- what can happen ----------------------------------------------------------------------

    def together(
        self, jobs: Sequence[Job], *, loss: float = 0.0, interruptions: Sequence[Interruption] = ()
    ) -> None:
        """Begin all jobs at once and wait for their ends, with every message lost with this chance."""
        self.loss = loss
        self.run(self._together(jobs, interruptions))
        self.loss = 0.0

    async def _together(self, jobs: Sequence[Job], interruptions: Sequence[Interruption]) -> None:
        tasks = [
            (job.member, asyncio.create_task(self.members[job.member].change(job)))
            for job in jobs
            if job.member in self.members
        ]
        crashes = [asyncio.create_task(self._interrupt(one, tasks)) for one in interruptions]
        await asyncio.gather(*crashes, *(task for _, task in tasks))
        self.service.end_if_doomed()

    async def _interrupt(self, what: Interruption, tasks: list[tuple[str, asyncio.Task[None]]]) -> None:
        await asyncio.sleep(what.after_s)
        if isinstance(what, ServiceCrash):
            self.service.doom(durable=what.durable)
        elif what.member in self.members:
            for name, task in tasks:
                if name == what.member:
                    task.cancel()
            await asyncio.sleep(0)
            self.members[what.member].restart(what.view)

    def partition(self, member: str) -> None:
        """Nothing gets through to him, or from him."""
        if member in self.members:
            self.members[member].link.cut = True

    def heal(self) -> None:
        """End all partitions."""
        for member in self.members.values():
            member.link.cut = False

    def follow(self, member: str) -> None:
        """Let one member fetch the log, if he can."""
        if member in self.members:
            with contextlib.suppress(UnavailableError):
                self.run(self.members[member].volume.sync())

    def gossip(self, one: str, other: str) -> None:
        """Two members show each other what checkpoints they have."""

        async def exchange() -> None:
            first, second = self.members[one].volume, self.members[other].volume
            note = await second.exchange([await first.exchange([])])
            await first.exchange([note] if note else [])

        if one in self.members and other in self.members:
            self.run(exchange())

    def newcomer(self, name: str, role: Role) -> None:
        """Somebody joins; partitions end for it."""
        self.heal()
        if name not in self.members and name not in self.removed:
            self.run(self._join(name, role))

    def remove(self, name: str) -> None:
        """The owner removes a member, and the keys change; partitions end for it."""
        self.heal()
        if name not in self.members or name == OWNER:
            return

        async def kick() -> None:
            owner, gone = self.members[OWNER].volume, secret_of(name).member
            await owner.sync()
            old = owner.follower.ring.keys(owner.membership.epoch)
            fresh, _ = rotation(owner.membership, old, self.entropy, without=gone)
            await owner.act(lambda _: Kick(gone, fresh))

        self.run(kick())
        self.removed.add(name)
        del self.members[name]

    def settle(self) -> None:
        """End all trouble and let everybody follow the log to its end."""
        self.heal()
        for member in self.members.values():
            self.run(member.volume.sync())

    # --- what must hold -----------------------------------------------------------------------

    def check_prefixes(self) -> None:
        """At any time: all replicas are beginnings of one log."""
        for name, member in self.members.items():
            replica = member.follower.frontier
            log = Frontier.at(replica.size, self.disk.node)
            assert replica == log, f"{name} has another log of {replica.size} entries"

    def check(self) -> None:
        """After `settle`: one state for all; everything that was answered is there, once, in order."""
        self.check_prefixes()
        again = Member(self, OWNER)
        self.run(again.volume.sync())
        assert again.follower.frontier.size == self.disk.size
        hashes = {name: one.volume.view.state_hash().digest() for name, one in self.members.items()}
        hashes["folded again"] = again.volume.view.state_hash().digest()
        assert len(set(hashes.values())) == 1, f"states differ: {hashes}"
        self._check_changes(again)

    def _check_changes(self, reader: Member) -> None:
        places: dict[str, int] = {}
        authors = {secret_of(name).member: name for name in (*self.members, *self.removed)}
        entries = self.disk.read(0, self.disk.size, bytes_max=1 << 30)
        known = {change.label: change for change in self.changes}
        tails: dict[MemberId, tuple[int, EntryHash]] = {}
        for index, signed in enumerate(entries):
            one = open_entry(signed)
            sequence, previous = tails.get(one.entry.author, (0, NO_ENTRY))
            assert (one.entry.sequence, one.entry.previous) == (sequence, previous), "an author's chain broke"
            tails[one.entry.author] = sequence + 1, one.hash
            if one.entry.act is not None:
                continue
            (folded,) = reader.volume.view.entries(index, index + 1)
            label = folded.meta.message
            assert label in known, f"entry {index} is nobody's: '{label}'"
            assert known[label].member == authors[one.entry.author], f"'{label}' has another author"
            if folded.rejection is not None:
                continue  # its maker tried again, or was told
            assert label not in places, f"'{label}' was made twice: {places[label]} and {index}"
            places[label] = index
        for change in self.changes:
            if change.index is not None:
                assert places.get(change.label) == change.index, f"'{change.label}' was answered and is lost"
                assert change.index > change.floor, f"'{change.label}' stands before what was answered before"


def secret_of(name: str) -> MemberSecret:
    """The same for the same name."""
    return MemberSecret(derive(_CONTEXT, name.encode()))


# --- members --------------------------------------------------------------------------------------


class Member:
    """One member's process, and what it keeps on its disk."""

    def __init__(self, simulator: LogSimulator, name: str) -> None:
        self.name = name
        self.link = _Link(simulator)
        self._simulator = simulator
        self._replica = MemoryLog(f"{name}'s disk")
        self._checkpoints = MemoryCheckpoints()
        self._number = 0
        self._start(MemoryView())

    def _start(self, view: MemoryView) -> None:
        simulator, secret = self._simulator, secret_of(self.name)
        self.follower = Follower(
            simulator.volume,
            secret.read,
            simulator.log_key,
            self._replica,
            view,
            checkpoints=self._checkpoints,
        )
        self.volume = Volume(self.follower, secret, self.link, simulator.clock, simulator.entropy)

    def restart(self, view: ViewAfterCrash) -> None:
        """The process ended; it is started again over what is on the disk."""
        if view is ViewAfterCrash.WHOLE and isinstance(self.volume.view, MemoryView):
            self._start(self.volume.view)
            return
        fresh = MemoryView()
        if view is ViewAfterCrash.BEHIND and self._replica.size > 1:
            size = self._simulator.random.randrange(1, self._replica.size)
            part = _first(self._replica, size)
            Follower(
                self._simulator.volume,
                secret_of(self.name).read,
                self._simulator.log_key,
                part,
                fresh,
            )
        self._start(fresh)

    async def change(self, job: Job) -> None:
        """One change; what became of it is recorded."""
        simulator = self._simulator
        change: Change | None = None
        floor = simulator.answered

        def plan(state: TreeReading) -> Transaction:
            nonlocal change
            if change is None:
                change = Change(self.name, f"{self.name} {self._number}", floor)
                self._number += 1
                simulator.changes.append(change)
            return Transaction((_operation(state, job),), message=change.label)

        with contextlib.suppress(OperationRejected, UnavailableError, EntryRefused, asyncio.CancelledError):
            done = await self.volume.commit(plan)
            assert change is not None
            change.index = done.index
            simulator.answered = max(simulator.answered, done.index)


def _operation(state: TreeReading, job: Job) -> Operation:
    """One of several kinds of change, on something that is there if there is anything."""
    folders = [ROOT, *(c.inode for c in state.children(ROOT, b"", 99) if c.kind is Kind.FOLDER)]
    parent = folders[job.where % len(folders)]
    name = _NAMES[job.where % len(_NAMES)]
    children = state.children(parent, b"", 99)
    child = children[job.where % len(children)] if children else None
    match job.what % 6, child:
        case 1, found if found is not None and found.kind is Kind.FOLDER:
            return RemoveTree(parent, found.name, found.inode)
        case 1, found if found is not None:
            return Unlink(parent, found.name, found.inode)
        case 2, found if found is not None:
            target = folders[job.what % len(folders)]
            held = state.child(target, name)
            return Rename(parent, found.name, found.inode, target, name, held.inode if held else 0)
        case ((3 | 4), found) if found is not None and found.kind is Kind.FILE:
            inode = state.inode(found.inode)
            version = inode.version if inode and job.what % 6 == 3 else None
            return Write(found.inode, version, (Extent(0, 2, b"%02d" % (job.where % 100), 0),))
        case 5, _:
            return Make(parent, name, Kind.FOLDER, 0o755)
        case _:
            return Make(parent, name, Kind.FILE, 0o644, content=(Extent(0, 1, b"x", 0),), size=1)


def _first(store: MemoryLog, size: int) -> MemoryLog:
    """A log's first entries."""
    part, frontier = MemoryLog(), Frontier()
    for index, signed in enumerate(store.read(0, size, bytes_max=1 << 30)):
        frontier, nodes = frontier.append(store.node(0, index))
        part.append([LoggedEntry(open_entry(signed).hash, signed)], nodes, store.checkpoint())
    return part


# --- service and network --------------------------------------------------------------------------


class _Process:
    """The service's process: it writes to the disk as long as it lives."""

    def __init__(self, disk: MemoryLog) -> None:
        self.ended = asyncio.Event()
        self.doomed: bool | None = None
        self._disk = disk

    @property
    def size(self) -> int:
        return self._disk.size

    def append(self, entries: Sequence[LoggedEntry], nodes: Sequence[Subtree], checkpoint: bytes) -> None:
        if self.ended.is_set():
            raise StoreFailed(where="the service", reason="the process has ended")
        if self.doomed is not None:
            if self.doomed:
                self._disk.append(entries, nodes, checkpoint)
            self.ended.set()
            raise StoreFailed(where="the service", reason="the process ends")
        self._disk.append(entries, nodes, checkpoint)

    @property
    def start(self) -> int:
        return self._disk.start

    def begin(
        self, start: int, entries: Sequence[LoggedEntry], nodes: Sequence[Subtree], checkpoint: bytes
    ) -> None:
        self._disk.begin(start, entries, nodes, checkpoint)

    def read(self, start: int, stop: int, *, bytes_max: int) -> list[bytes]:
        return self._disk.read(start, stop, bytes_max=bytes_max)

    def find(self, entry: EntryHash) -> int | None:
        return self._disk.find(entry)

    def node(self, level: int, index: int) -> bytes:
        return self._disk.node(level, index)

    def checkpoint(self) -> bytes:
        return self._disk.checkpoint()

    def replace_checkpoint(self, checkpoint: bytes) -> None:
        self._disk.replace_checkpoint(checkpoint)

    def close(self) -> None:
        """The disk stays."""


@dataclass
class _Service:
    """The log service, which is started again as soon as it has ended."""

    simulator: LogSimulator
    process: _Process = field(init=False)
    log: LocalLog = field(init=False)

    def __post_init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self.process = _Process(self.simulator.disk)
        sequencer = self.simulator.sequencer(self.process)

        async def opened() -> Sequencer:
            return sequencer

        self.log = LocalLog(opened)

    def doom(self, *, durable: bool) -> None:
        """Let the process end in its next write, before or after it."""
        self.process.doomed = durable

    def end_if_doomed(self) -> None:
        """A doomed process that had nothing to write ends all the same."""
        if self.process.doomed is not None:
            self.process.ended.set()

    def running(self) -> _Service:
        """Itself, started again if need be."""
        if self.process.ended.is_set():
            self._start()
        return self


class _Link:
    """One member's way to the service.  `ports.LogClient`."""

    def __init__(self, simulator: LogSimulator) -> None:
        self.cut = False
        self._simulator = simulator

    async def append(self, signed: Sequence[bytes]) -> list[Appended]:
        return await self._call(lambda log: log.append(signed))

    async def checkpoint(self) -> bytes:
        return await self._call(lambda log: log.checkpoint())

    async def entries(self, start: int, stop: int) -> list[bytes]:
        part = start + self._simulator.random.randint(1, 5)
        return await self._call(lambda log: log.entries(start, min(stop, part)))

    async def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        return await self._call(lambda log: log.inclusion(index, size))

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        return await self._call(lambda log: log.consistency(old, new))

    async def clear_part(self) -> tuple[bytes, bytes]:
        return await self._call(lambda log: log.clear_part())

    async def wait_beyond(self, size: int, wait_s: float) -> bytes:
        return await self._call(lambda log: log.wait_beyond(size, wait_s))

    async def cosign(self, note: bytes) -> None:
        await self._call(lambda log: log.cosign(note))

    async def aclose(self) -> None:
        """Nothing of its own."""

    async def _call(self, work: Callable[[LocalLog], Awaitable[_T]]) -> _T:
        await self._travel("request")
        service = self._simulator.service.running()
        process = service.process
        answer = asyncio.ensure_future(work(service.log))
        ended = asyncio.ensure_future(process.ended.wait())
        try:
            await asyncio.wait({answer, ended}, return_when=asyncio.FIRST_COMPLETED)
            if process.ended.is_set():
                raise NodeUnreachable(node=b"", reason="the service ended")
            with contextlib.suppress(MunimentError):
                await answer
            await self._travel("answer")
            return answer.result()
        finally:
            for task in (answer, ended):
                task.cancel()
            await asyncio.wait({answer, ended})
            if not answer.cancelled():
                answer.exception()  # looked at, so that none is called forgotten

    async def _travel(self, what: str) -> None:
        simulator = self._simulator
        await asyncio.sleep(simulator.random.uniform(0, _DELAY_S))
        if self.cut or simulator.random.random() < simulator.loss:
            raise NodeUnreachable(node=b"", reason=f"the {what} was lost")


class _InlineLoop(VirtualTimeLoop):
    """Does blocking work when it is handed over; its result comes in a later turn, as from a thread."""

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*_Ts], _T], *args: *_Ts
    ) -> asyncio.Future[_T]:
        future: asyncio.Future[_T] = self.create_future()
        try:
            result = func(*args)
        except Exception as error:  # noqa: BLE001 - it is the caller's
            self.call_soon(_fail, future, error)
        else:
            self.call_soon(_answer, future, result)
        return future


def _answer(future: asyncio.Future[_T], result: _T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[_T], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)

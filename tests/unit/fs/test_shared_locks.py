"""Locks across mounts of one volume: who has what, who is told so, and what becomes of a mount that died."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.thoroughness import times
from tests.unit.fs.support import CHUNK, Mounted, Place, place
from tests.unit.fs.test_faults import Silent
from tests.unit.fs.test_lock_ranges import BYTES, RANGES, Oracle

from muniment.core.lock_ranges import TO_END, Lock
from muniment.core.tree_state import TreeReading
from muniment.engine.volume_plans import xattrs_set
from muniment.errors import AuthorChainBroken, DeadlineExceeded, FileRefused, MunimentError, NodeUnreachable
from muniment.fs.content.holes import Allocate
from muniment.fs.errnos import errno_of
from muniment.fs.locking.shared_locks import LEASE_S
from muniment.fs.options import Options
from muniment.fs.store import Store
from muniment.ports import Appended
from muniment.spec.lock_attributes import OWN
from muniment.spec.operation import ROOT, Operation, SetXattr
from muniment.testing.lying_log import SwitchedLog

OPTIONS = Options(linger_s=0.0, deadline_s=10.0, shared_locks=True)
ANNA, BERT = 101, 102


class Time:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.passed_s = 0.0
        self.slept_s = 0.0

    def now_s(self) -> float:
        return 1_800_000_000.0 + self.passed_s + self.slept_s

    def monotonic_s(self) -> float:
        return 1000.0 + self.passed_s


@pytest.fixture
async def where(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr("muniment.engine.volume._PAUSE_S", 0.0)  # patience is counted in tries
    async with place() as made:
        yield made


async def two(where: Place, clock: Time | None = None) -> tuple[Mounted, int, Mounted, int]:
    """Two mounts, and their numbers of one file."""
    one = await where.mount(OPTIONS, clock=clock)
    ino = await one.make(b"a")
    await one.write(ino, b"text")
    other = await where.mount(OPTIONS, clock=clock)
    number = other.files.lookup(ROOT, b"a").inode
    other.files.know(number)
    return one, ino, other, number


async def refused(here: Mounted, ino: int, lock: Lock, *, whole: bool = False) -> int:
    with pytest.raises(MunimentError) as error:
        await here.files.locks.set(ino, lock, whole=whole)
    return errno_of(error.value)


async def keep(here: Mounted) -> None:
    """What a mount's tasks do every now and then."""
    locks = here.files.locks
    assert locks.across is not None
    await locks.renew(locks.across)
    await locks.give_up_again(locks.across)


async def test_a_lock_holds_in_every_mount_until_it_is_given_up(where: Place) -> None:
    one, ino, other, number = await two(where)
    await one.files.locks.set(ino, Lock(ANNA, 10, 20, pid=1))
    assert await refused(other, number, Lock(BERT, 15, 16)) == errno.EAGAIN
    assert await refused(other, number, Lock(BERT, 0, 11, exclusive=False)) == errno.EAGAIN
    assert await other.files.locks.find(number, Lock(BERT)) == Lock(0, 10, 20)
    await other.files.locks.set(number, Lock(BERT, 20, 30))
    await other.files.locks.set(number, Lock(BERT), whole=True)
    assert await refused(one, ino, Lock(ANNA), whole=True) == errno.EAGAIN
    await one.files.locks.clear(ino, ANNA, 10, 15)
    await other.files.locks.set(number, Lock(BERT, 0, 15))
    assert await refused(other, number, Lock(BERT, 0, 16)) == errno.EAGAIN
    await one.files.locks.clear(ino, ANNA)
    await other.files.locks.set(number, Lock(BERT))
    assert await other.files.locks.find(number, Lock(ANNA)) == Lock(BERT)


async def test_readers_share_and_a_writer_waits_for_the_last(where: Place) -> None:
    one, ino, other, number = await two(where)
    for here, at in ((one, ino), (other, number)):
        await here.files.locks.set(at, Lock(ANNA, exclusive=False))
    waiting = asyncio.create_task(other.files.locks.set(number, Lock(ANNA), wait=True))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await one.files.locks.clear(ino, ANNA)
    await asyncio.wait_for(waiting, 5)
    assert await refused(one, ino, Lock(BERT, exclusive=False)) == errno.EAGAIN


async def test_of_many_who_try_at_once_each_has_it_alone(where: Place) -> None:
    mounts = [await where.mount(OPTIONS) for _ in range(3)]
    await mounts[0].make(b"a")
    await mounts[0].files.sync_all()
    for here in mounts:
        await here.volume.sync()
        await here.names()
    inside, most, turns = 0, 0, 0

    async def work(here: Mounted, owner: int) -> None:
        nonlocal inside, most, turns
        ino = here.files.lookup(ROOT, b"a").inode
        for _ in range(3):
            await here.files.locks.set(ino, Lock(owner), wait=True)
            inside += 1
            most, turns = max(most, inside), turns + 1
            count = int(await here.read(ino) or b"0")
            await asyncio.sleep(0)
            handle = await here.files.open(ino, os.O_RDWR)
            await here.files.write(handle, 0, b"%d" % (count + 1))
            inside -= 1
            await here.files.locks.clear(ino, owner)
            here.files.release(handle)

    async with asyncio.timeout(30):
        await asyncio.gather(*(work(here, owner) for here in mounts for owner in (ANNA, BERT)))
    assert (most, turns) == (1, 18)
    assert await mounts[1].read(mounts[1].files.lookup(ROOT, b"a").inode) == b"18"


async def test_who_gets_a_lock_sees_what_was_written_under_it(where: Place) -> None:
    one, ino, other, number = await two(where)
    forgotten: list[int] = []
    across = other.files.locks.across
    assert across is not None

    async def forget(ino: int) -> None:
        forgotten.append(ino)

    across.forget_content = forget
    held = await other.files.open(number, os.O_RDONLY)
    await one.files.locks.set(ino, Lock(ANNA))
    handle = await one.files.open(ino, os.O_RDWR)
    await one.files.write(handle, 0, b"newer")
    await one.files.locks.clear(ino, ANNA)
    await other.files.locks.set(number, Lock(BERT))
    assert await other.files.read(held, 0, 10) == b"newer"
    assert forgotten == [number]
    one.files.release(handle)
    other.files.release(held)


async def test_a_dead_mount_loses_its_locks_after_a_lease_and_cannot_write_any_more(where: Place) -> None:
    clock = Time()
    one, ino, other, number = await two(where, clock)
    handle = await one.files.open(ino, os.O_RDWR)
    await one.files.locks.set(ino, Lock(ANNA))
    assert await refused(other, number, Lock(BERT)) == errno.EAGAIN
    clock.passed_s += LEASE_S - 1
    await one.files.write(handle, 1, b"oo!")
    assert await refused(other, number, Lock(BERT)) == errno.EAGAIN
    clock.passed_s += 1
    await other.files.locks.set(number, Lock(BERT))
    with pytest.raises(FileRefused) as lost:
        await one.files.write(handle, 0, b"too late")
    assert errno_of(lost.value) == errno.EIO
    for change in (
        one.files.set_attributes(ino, size=0),
        one.files.open(ino, os.O_RDWR | os.O_TRUNC),
        one.files.allocate(handle, 0, 0, 100),
        one.files.allocate(handle, Allocate.PUNCH_HOLE | Allocate.KEEP_SIZE, 0, 2),
    ):
        with pytest.raises(FileRefused):
            await change
    assert await refused(one, ino, Lock(ANNA, 0, 1)) == errno.EIO
    with pytest.raises(FileRefused):
        await one.files.fsync(handle)
    await one.files.locks.clear(ino, ANNA)
    await one.files.write(handle, 0, b"n")
    await one.files.flush(handle)
    assert await other.read(number) == b"next", "what was not saved in time is dropped"
    assert await refused(one, ino, Lock(ANNA)) == errno.EAGAIN
    one.files.release(handle)


async def test_a_mount_that_renews_keeps_its_locks(where: Place) -> None:
    clock = Time()
    one, ino, other, number = await two(where, clock)
    await one.files.locks.set(ino, Lock(ANNA))
    for _ in range(4):
        assert await refused(other, number, Lock(BERT)) == errno.EAGAIN
        clock.passed_s += LEASE_S - 1
        await keep(one)
    one.files.locks.check(ino)


async def test_a_machine_that_slept_trusts_its_locks_no_more(where: Place) -> None:
    clock = Time()
    one, ino, _, _ = await two(where, clock)
    await one.files.locks.set(ino, Lock(ANNA))
    clock.slept_s += LEASE_S
    with pytest.raises(FileRefused):
        one.files.locks.check(ino)


async def test_a_mount_whose_lease_others_ended_learns_it_when_it_renews(where: Place) -> None:
    clock, mine = Time(), Time()
    one = await where.mount(OPTIONS, clock=mine)
    ino = await one.make(b"a")
    await one.files.locks.set(ino, Lock(ANNA))
    other = await where.mount(OPTIONS, clock=clock)
    number = other.files.lookup(ROOT, b"a").inode
    assert await refused(other, number, Lock(BERT)) == errno.EAGAIN
    clock.passed_s += LEASE_S  # one's clock stands still
    await other.files.locks.set(number, Lock(BERT))
    await keep(one)
    with pytest.raises(FileRefused):
        one.files.locks.check(ino)


async def test_a_lock_whose_taking_failed_is_given_up_if_it_was_taken(where: Place) -> None:
    where.world.log = log = Cut(where.world.log)
    one, ino, other, number = await two(where)
    log.is_late = True
    with pytest.raises(MunimentError):
        await one.files.locks.set(ino, Lock(ANNA))
    log.is_late = False
    assert await refused(other, number, Lock(BERT)) == errno.EAGAIN
    await keep(one)
    await other.files.locks.set(number, Lock(BERT))


async def test_a_lock_whose_taking_failed_leaves_nothing_if_it_was_not_taken(where: Place) -> None:
    where.world.log = log = Cut(where.world.log)
    one, ino, other, number = await two(where)
    log.is_cut = True
    with pytest.raises(MunimentError):
        await one.files.locks.set(ino, Lock(ANNA))
    log.is_cut = False
    await keep(one)
    await other.files.locks.set(number, Lock(BERT))
    assert len(other.volume.view.reading().xattrs(ROOT)) == 1


async def test_who_gives_up_while_it_is_saved_has_given_up(where: Place) -> None:
    one, ino, other, number = await two(where)
    handle = await one.files.open(ino, os.O_RDWR)
    await one.files.locks.set(ino, Lock(ANNA))
    await one.files.write(handle, 0, b"next")
    giving_up = asyncio.create_task(one.files.locks.clear(ino, ANNA))
    await asyncio.sleep(0)
    giving_up.cancel()
    with pytest.raises(asyncio.CancelledError):
        await giving_up
    await one.files.locks.set(ino, Lock(BERT))
    await one.files.locks.clear(ino, BERT)
    await other.files.locks.set(number, Lock(BERT))
    one.files.release(handle)


async def test_a_file_that_is_removed_while_it_is_locked_keeps_no_lease(where: Place) -> None:
    one, ino, other, _ = await two(where)
    await one.files.locks.set(ino, Lock(ANNA))
    await other.files.unlink(ROOT, b"a")
    await other.files.sync_all()
    await one.names()
    await one.files.locks.clear(ino, ANNA)
    assert one.volume.view.reading().xattrs(ROOT) == {}


async def test_others_have_a_lock_when_what_was_written_under_it_is_saved_and_not_before(
    where: Place,
) -> None:
    one, ino, other, number = await two(where)
    handle = await one.files.open(ino, os.O_RDWR)
    await one.files.locks.set(ino, Lock(ANNA))
    data = os.urandom(CHUNK)
    await one.files.write(handle, 0, data)
    for node in where.fake.nodes:
        node.faults.down = "no power"
    await one.files.locks.clear(ino, ANNA)
    assert await refused(other, number, Lock(BERT)) == errno.EAGAIN
    await one.files.locks.set(ino, Lock(BERT))  # here it is free, and what was written is seen
    await one.files.locks.clear(ino, BERT)
    await keep(one)
    assert await refused(other, number, Lock(BERT)) == errno.EAGAIN
    for node in where.fake.nodes:
        node.faults.down = None
    await keep(one)
    await other.files.locks.set(number, Lock(BERT))
    assert await other.read(number) == data
    one.files.release(handle)


async def test_what_could_not_be_saved_for_a_lease_comes_over_nothing_that_others_write(where: Place) -> None:
    clock = Time()
    one, ino, other, number = await two(where, clock)
    handle = await one.files.open(ino, os.O_RDWR)
    await one.files.locks.set(ino, Lock(ANNA))
    await one.files.write(handle, 0, os.urandom(CHUNK))
    for node in where.fake.nodes:
        node.faults.down = "no power"
    await one.files.locks.clear(ino, ANNA)
    assert await refused(other, number, Lock(BERT)) == errno.EAGAIN
    clock.passed_s += LEASE_S
    for node in where.fake.nodes:
        node.faults.down = None
    await other.files.locks.set(number, Lock(BERT))
    await other.write(number, b"theirs")
    with pytest.raises(FileRefused):
        await one.files.fsync(handle)
    await one.files.sync_all()
    one.files.release(handle)
    await other.files.locks.clear(number, BERT)
    for here, at in ((one, ino), (other, number)):
        assert await here.read(at) == b"theirs"


async def test_a_lease_ends_in_time_though_the_log_says_nothing(
    where: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("locks", "shared_locks"):
        monkeypatch.setattr(f"muniment.fs.locking.{name}.LEASE_S", 0.4)
    where.world.log = log = Silent(where.world.log)
    here = await where.mount(Options(linger_s=0.0, deadline_s=10.0, shared_locks=True, strict=False))
    handle, row = await here.files.create(ROOT, b"a", 0o644, 0, 0, os.O_RDWR)
    await here.files.locks.set(row.inode, Lock(ANNA))
    await here.files.write(handle, 0, b"text")
    log.stopped = True
    for _ in range(100):
        if row.inode in here.files.locks._lost:
            break
        await asyncio.sleep(0.02)
    assert here.files._dirty.get(row.inode) is None, "it is dropped by itself"
    log.stopped = False
    log.awake.set()
    await here.files.locks.clear(row.inode, ANNA)
    here.files.release(handle)


async def test_a_lock_that_cannot_be_given_up_now_is_later(where: Place) -> None:
    where.world.log = log = Cut(where.world.log)
    one, ino, other, number = await two(where)
    await one.files.locks.set(ino, Lock(ANNA))
    log.is_cut = True
    await one.files.locks.clear(ino, ANNA)
    log.is_cut = False
    assert await refused(other, number, Lock(BERT)) == errno.EAGAIN
    await keep(one)
    await other.files.locks.set(number, Lock(BERT))


async def test_who_is_overtaken_again_and_again_is_told_to_try_again_or_waits(
    where: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muniment.fs.locking.locks._LOOK_S", 0.01)  # nobody else wakes who waits
    where.world.log = log = Busy(where.world.log)
    one, ino, other, number = await two(where)
    log.faster = 8
    assert await refused(one, ino, Lock(ANNA)) == errno.EAGAIN
    log.faster = 20
    await one.files.locks.set(ino, Lock(ANNA), wait=True)
    assert log.faster == 0
    assert await refused(other, number, Lock(BERT)) == errno.EAGAIN
    log.faster = 8
    await one.files.locks.clear(ino, ANNA)
    await keep(one)
    await other.files.locks.set(number, Lock(BERT))


class Busy(SwitchedLog):
    """Others are faster so many times."""

    faster = 0

    async def append(self, signed: Sequence[bytes]) -> list[Appended]:
        if self.faster:
            self.faster -= 1
            raise AuthorChainBroken(member=b"a" * 32, expected=2, got=1)
        return await super().append(signed)


class Cut(SwitchedLog):
    """Takes nothing while it is cut off, and answers nothing while it is late."""

    is_cut = is_late = False

    async def append(self, signed: Sequence[bytes]) -> list[Appended]:
        if self.is_cut:
            raise NodeUnreachable(node=b"log", reason="cut off")
        done = await super().append(signed)
        if self.is_late:
            raise NodeUnreachable(node=b"log", reason="cut off")
        return done


async def test_nobody_waits_longer_than_the_deadline_for_those_who_wait_before_him(where: Place) -> None:
    where.world.log = log = Silent(where.world.log)
    here = await where.mount(Options(linger_s=0.0, deadline_s=0.5, shared_locks=True, strict=False))
    files = [await here.make(b"%d" % at) for at in range(12)]
    await here.files.sync_all()
    log.stopped = True
    began_s = asyncio.get_running_loop().time()
    for result in await asyncio.gather(
        *(here.files.locks.set(ino, Lock(ANNA)) for ino in files), return_exceptions=True
    ):
        assert isinstance(result, DeadlineExceeded)
    assert asyncio.get_running_loop().time() - began_s < 4  # and not twelve times the deadline
    log.stopped = False
    log.awake.set()


async def test_an_orderly_end_gives_up_everything_at_once(where: Place) -> None:
    one, ino, other, number = await two(where)
    await one.files.locks.set(ino, Lock(ANNA))
    await one.files.aclose()
    await other.files.locks.set(number, Lock(BERT))


async def test_a_lock_that_was_given_up_is_free_for_who_knows_only_that_it_was_taken(
    where: Place,
) -> None:
    one, ino, other, number = await two(where)
    shared = other.files.locks.across.shared  # type: ignore[union-attr]
    before = other.volume.view.size - 1
    await one.files.locks.set(ino, Lock(ANNA))
    taken = one.volume.view.size - 1
    await one.files.aclose()
    await other.volume.sync()
    shared._store = Following(shared._store, [before, before, taken])
    await other.files.locks.set(number, Lock(BERT))


class Following:
    """A store whose tasks take in one state after the other while its callers look."""

    def __init__(self, store: Store, states: list[int]) -> None:
        self._store, self._states = store, states

    @property
    def newest(self) -> int:
        return self._states.pop(0) if self._states else self._store.newest

    def state(self, at: int) -> TreeReading:
        return self._store.state(at)

    async def follow(self) -> None:
        self._states.clear()
        await self._store.follow()

    async def change(self, plan: Callable[[TreeReading], Sequence[Operation]], message: str) -> None:
        plan(self.state(self.newest))
        await self._store.change(plan, message)


async def test_locks_change_no_time_and_no_program_sees_them(where: Place) -> None:
    one, ino, other, number = await two(where)
    await one.files.sync_all()
    before, root = other.files.inode(number), other.files.inode(ROOT)
    state = one.volume.view.size
    await one.files.locks.set(ino, Lock(ANNA))
    await other.names()
    assert (other.files.inode(number), other.files.inode(ROOT)) == (before, root)
    for ino_ in (number, ROOT):
        assert any(name.startswith(OWN) for name in one.volume.view.reading().xattrs(ino_))
        assert other.files.xattrs(ino_) == {}
    assert not one.volume.view.changed_between(state - 1, one.volume.view.size - 1).inodes
    assert other.invalidated[-1:] == [] or not other.invalidated[-1].inodes
    assert one.volume.view.history(number)[-1].index < state
    await one.files.locks.clear(ino, ANNA)
    for ino_ in (number, ROOT):
        assert one.volume.view.reading().xattrs(ino_) == {}


async def test_a_file_without_a_name_is_locked_within_its_mount(where: Place) -> None:
    one, ino, _, _ = await two(where)
    handle = await one.files.open(ino, os.O_RDWR)
    await one.files.unlink(ROOT, b"a")
    size = one.volume.view.size
    await one.files.locks.set(ino, Lock(ANNA))
    assert await refused(one, ino, Lock(BERT)) == errno.EAGAIN
    await one.files.locks.clear(ino, ANNA)
    assert one.volume.view.size <= size + 1
    one.files.release(handle)


async def test_what_is_restored_or_copied_takes_no_locks_along(where: Place) -> None:
    one, ino, _, number = await two(where)
    await one.files.locks.set(ino, Lock(ANNA))
    locked = one.volume.view.reading().xattrs(number)
    assert len(locked) == 2
    assert list(xattrs_set(locked, {b"user.a": b"1"}, number)) == [SetXattr(number, b"user.a", b"1")]
    assert list(xattrs_set({}, locked, number)) == []


STEPS = st.tuples(
    st.integers(1, 4), RANGES, st.booleans(), st.sampled_from(["read", "write", "write", "unlock"])
)


async def _run(steps: Sequence[tuple[int, tuple[int, int], bool, str]]) -> None:
    async with place() as where:
        one, ino, other, number = await two(where)
        oracles = {False: Oracle(), True: Oracle()}
        for owner, (start, stop), whole, what in steps:
            here, at = (one, ino) if owner % 2 else (other, number)
            start, stop = (0, BYTES) if whole else (start, stop)
            end, oracle = TO_END if stop == BYTES else stop, oracles[whole]
            if what == "unlock":
                await here.files.locks.clear(at, owner, start, end, whole=whole)
                oracle.clear(owner, start, stop)
                continue
            wanted = Lock(owner, start, end, what == "write")
            if whole and any(owner in byte and byte[owner] != wanted.exclusive for byte in oracle.bytes):
                oracle.clear(owner, 0, BYTES)
            expected = oracle.conflicts(owner, start, stop, wanted.exclusive)
            try:
                await here.files.locks.set(at, wanted, whole=whole)
            except FileRefused as refused:
                assert (expected, errno_of(refused)) == (True, errno.EAGAIN)  # noqa: PT017
            else:
                assert not expected
                oracle.set(owner, start, stop, wanted.exclusive)
        for owner in range(1, 5):
            here, at = (other, number) if owner % 2 else (one, ino)
            for whole, oracle in oracles.items():
                found = await here.files.locks.find(at, Lock(99), whole=whole)
                assert (found is not None) == any(oracle.bytes)


@settings(max_examples=times(8), deadline=None)
@given(st.lists(STEPS, max_size=15))
def test_who_has_what_is_the_same_in_all_mounts_as_in_one_table(
    steps: list[tuple[int, tuple[int, int], bool, str]],
) -> None:
    asyncio.run(_run(steps))

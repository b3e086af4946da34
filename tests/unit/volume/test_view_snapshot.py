"""View snapshots between real members: newcomers who begin with one, and snapshots that lie."""

from __future__ import annotations

import io
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.unit.volume.support import LOG_KEY, Now, World, kick, member, world

from muniment.audit.report import Verdict
from muniment.audit.volume import audit_volume
from muniment.core.clear_part import head_of
from muniment.engine import view_snapshot
from muniment.engine.follower import Follower
from muniment.engine.grid import Grid
from muniment.engine.snapshot_content import fetching
from muniment.engine.view_snapshot import Begun, Newcomer, SnapshotMade
from muniment.engine.volume import Volume
from muniment.engine.volume_files import VolumeFiles
from muniment.errors import (
    HistoryMissing,
    InvalidRequest,
    MunimentError,
    OperationRejected,
    StoreFailed,
)
from muniment.ids import id_text
from muniment.logs.checkpoints import MemoryCheckpoints
from muniment.logs.clear_file import FileClear, MemoryClear
from muniment.logs.memory import MemoryLog
from muniment.logs.sqlite import SqliteLog
from muniment.ports import LogClient
from muniment.spec.act import Quorum, Role, VolumePolicy
from muniment.spec.operation import Extent, ViewSnapshot
from muniment.spec.transaction import Transaction
from muniment.spec.view_snapshot import encode_view
from muniment.testing.fake_grid import FakeGrid
from muniment.testing.lying_log import SwitchedLog
from muniment.testing.sample_volume import RandomVolume, entry_meta, folded, tree_of
from muniment.views.memory import MemoryView
from muniment.views.sqlite import SqliteView

POLICY = VolumePolicy(Quorum.ONE, 7 * 24 * 3600, "4/6", 5, 1 << 16)


class CountedLog(SwitchedLog):
    """Counts what is asked of it."""

    def __init__(self, inner: LogClient) -> None:
        super().__init__(inner)
        self.calls: Counter[str] = Counter()

    async def entries(self, start: int, stop: int) -> list[bytes]:
        found = await super().entries(start, stop)
        self.calls["entries"] += len(found)
        return found

    async def clear_part(self) -> tuple[bytes, bytes]:
        self.calls["clear"] += 1
        return await super().clear_part()


@dataclass
class Desk:
    """Anna's volume over a grid in memory, and newcomers to it."""

    world: World
    grid: FakeGrid
    client: Grid
    anna: Volume
    files: VolumeFiles
    folder: Path
    log: CountedLog = field(init=False)

    def __post_init__(self) -> None:
        self.log = CountedLog(self.world.log)

    async def write(self, count: int, seed: int = 1, by: Volume | None = None) -> None:
        """Random transactions, some of which are rejected."""
        volume, chance = by or self.anna, RandomVolume(seed)
        for _ in range(count):
            try:
                await volume.commit(chance.transaction)
            except OperationRejected:
                continue

    async def snapshot(self) -> SnapshotMade:
        return await self.files.snapshot_view(self.folder)

    def follower(self, name: str, folder: Path | None = None) -> Follower:
        """In files, or in memory."""
        if folder is not None:
            folder.mkdir(exist_ok=True)
        return Follower(
            self.world.volume,
            member(name).read,
            LOG_KEY.public_key,
            SqliteLog(folder / "log") if folder else MemoryLog(),
            SqliteView(folder / "view") if folder else MemoryView(),
            checkpoints=MemoryCheckpoints(),
            clear=FileClear(folder / "clear") if folder else MemoryClear(),
        )

    def volume(self, follower: Follower, name: str) -> Volume:
        volume = Volume(follower, member(name), self.log, Now(), os.urandom)
        self.world.stack.push_async_callback(volume.aclose)
        return volume

    async def newcomer(self, name: str, folder: Path | None = None) -> tuple[Volume, Begun | None]:
        """One who has nothing but his secret, in step with the log."""
        volume = self.volume(self.follower(name, folder), name)
        begun = await self.begin(volume)
        await volume.sync()
        return volume, begun

    async def begin(self, volume: Volume) -> Begun | None:
        return await Newcomer(
            volume.follower, self.log, volume.run, fetching(self.client), self.folder
        ).begin()

    async def full(self) -> Volume:
        """One who has folded everything."""
        await self.anna.sync()
        return self.anna


@pytest.fixture
async def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setattr(view_snapshot, "LOG_ENTRIES_MIN", 4)  # so that tests need no long logs
    grid = FakeGrid(6)
    async with world(POLICY) as founded, grid.client() as client:
        anna = await founded.member("anna")
        yield Desk(founded, grid, client, anna, VolumeFiles(anna, client), tmp_path)


def same(newcomer: Volume, full: Volume) -> None:
    """Nobody could tell one from the other, as far as the newcomer's past goes."""
    start = newcomer.view.start
    assert newcomer.view.size == full.view.size
    assert newcomer.view.state_hash() == full.view.state_hash()
    assert tree_of(newcomer.view.reading()) == tree_of(full.view.reading())
    assert newcomer.view.entries(start, 1 << 30) == full.view.entries(start, 1 << 30)
    assert newcomer.view.snapshots() == full.view.snapshots()
    one, other = newcomer.follower, full.follower
    assert head_of(one.membership, one.frontier) == head_of(other.membership, other.frontier)
    assert one.membership.votes() == other.membership.votes()
    assert one.ring.keys(0) == other.ring.keys(0)


@pytest.mark.parametrize("seed", range(5))
async def test_a_newcomer_with_a_snapshot_sees_what_a_full_fold_sees(desk: Desk, seed: int) -> None:
    chance = random.Random(seed)
    await desk.write(chance.randrange(5, 40), seed)
    await desk.world.join("bert", Role.WRITER, desk.anna)
    await desk.write(chance.randrange(0, 10), seed + 1)
    made = await desk.snapshot()
    await desk.anna.act(lambda state: kick(state, desk.anna, member("bert")))  # a new epoch in the tail
    await desk.world.join("carl", Role.READER, desk.anna)
    await desk.write(chance.randrange(0, 30), seed + 2)
    newcomer, begun = await desk.newcomer("anna", desk.folder / "new" if seed % 2 else None)
    assert begun == Begun(made.committed.index, made.size)
    assert newcomer.follower.replica.start == newcomer.view.start == made.size
    same(newcomer, await desk.full())
    await desk.write(10, seed + 3)
    await newcomer.sync()
    same(newcomer, await desk.full())


async def test_a_newcomer_fetches_the_tail_and_no_more(desk: Desk) -> None:
    await desk.write(200)
    made = await desk.snapshot()
    await desk.world.join("bert", Role.READER, desk.anna)
    tail = desk.world.store.size - made.size
    newcomer, begun = await desk.newcomer("bert")
    assert begun is not None
    assert tail == 3
    assert desk.log.calls == {"entries": 4, "clear": 1}
    same(newcomer, await desk.full())


async def test_what_is_written_while_a_snapshot_is_made_is_in_the_tail(desk: Desk) -> None:
    bert = await desk.world.join("bert", Role.WRITER, desk.anna)
    await desk.write(10)
    run, written = desk.anna.run, 0

    async def interrupted(work: Callable[[], object]) -> object:
        nonlocal written
        done = await run(work)
        if isinstance(done, tuple) and not written:  # the state is on its way to the nodes
            written = 5
            await desk.write(5, 7, by=bert)
        return done

    desk.anna.run = interrupted  # type: ignore[method-assign,assignment]
    made = await desk.snapshot()
    assert made.committed.index >= made.size + 5
    newcomer, begun = await desk.newcomer("anna")
    assert begun == Begun(made.committed.index, made.size)
    await bert.sync()
    same(newcomer, bert)


async def test_the_newest_one_is_used_and_its_blobs_are_in_the_entry(desk: Desk) -> None:
    await desk.write(120)
    await desk.snapshot()
    await desk.write(5, 2)
    made = await desk.snapshot()
    assert made.size_bytes > 2048
    _, begun = await desk.newcomer("anna")
    assert begun == Begun(made.committed.index, made.size)
    report = await audit_volume(
        desk.anna.id,
        member("anna").read.verify,
        LOG_KEY.public_key,
        log=lambda: Unclosed(desk.world.store),  # type: ignore[arg-type,return-value]
        blobs=desk.client,
    )
    assert report.verdict is not Verdict.FORGED
    assert report.blobs_checked >= 1


class Unclosed:
    """A store that stays open when a reader closes it."""

    def __init__(self, store: object) -> None:
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)

    def close(self) -> None:
        pass


async def test_the_same_state_is_stored_once(desk: Desk) -> None:
    await desk.write(120)
    with view_snapshot._scratch(desk.folder) as one, view_snapshot._scratch(desk.folder) as two:
        view_snapshot._write(desk.anna.follower, one)
        bert = await desk.world.member("anna")
        view_snapshot._write(bert.follower, two)
        assert one.read() == two.read()


# --- what is not there ----------------------------------------------------------------------------


async def test_the_past_is_missing_with_one_error(desk: Desk) -> None:
    await desk.write(30)
    made = await desk.snapshot()
    newcomer, _ = await desk.newcomer("anna")
    with pytest.raises(HistoryMissing) as caught:
        newcomer.view.reading(made.size - 2)
    assert caught.value.start == made.size
    with pytest.raises(StoreFailed):
        newcomer.follower.replica.read(0, made.size, bytes_max=100)


async def test_a_replica_that_began_later_is_opened_again(desk: Desk) -> None:
    await desk.write(30)
    await desk.snapshot()
    newcomer, begun = await desk.newcomer("anna", desk.folder / "new")
    assert begun is not None
    await desk.write(10, 3)
    await newcomer.sync()
    await newcomer.run(newcomer.follower.close)
    again = desk.follower("anna", desk.folder / "new")
    volume = desk.volume(again, "anna")
    desk.log.calls.clear()
    await volume.sync()
    assert desk.log.calls == {}
    same(volume, await desk.full())
    await desk.write(10, 4, by=volume)  # and writes
    await desk.anna.sync()
    same(volume, await desk.full())


async def test_who_began_with_a_snapshot_makes_the_next_one(desk: Desk) -> None:
    await desk.world.join("bert", Role.WRITER, desk.anna)
    await desk.write(30)
    await desk.snapshot()
    bert, _ = await desk.newcomer("bert", desk.folder / "new")
    await desk.write(10, 2, by=bert)
    made = await VolumeFiles(bert, desk.client).snapshot_view(desk.folder)
    newcomer, begun = await desk.newcomer("anna")
    assert begun == Begun(made.committed.index, made.size)
    same(newcomer, await desk.full())


async def test_without_the_clear_part_a_later_replica_says_what_to_do(desk: Desk) -> None:
    await desk.write(30)
    await desk.snapshot()
    newcomer, _ = await desk.newcomer("anna", desk.folder / "new")
    await newcomer.run(newcomer.follower.close)
    (desk.folder / "new" / "clear").write_bytes(b"nonsense")
    with pytest.raises(StoreFailed, match="muni volume fetch"):
        desk.follower("anna", desk.folder / "new")
    (desk.folder / "new" / "clear").unlink()
    with pytest.raises(StoreFailed, match="muni volume fetch"):
        desk.follower("anna", desk.folder / "new")


async def followed_from_the_start(desk: Desk, name: str = "anna") -> Volume:
    newcomer, begun = await desk.newcomer(name)
    assert begun is None
    assert newcomer.follower.replica.start == newcomer.view.start == 0
    same(newcomer, await desk.full())
    return newcomer


async def test_without_a_snapshot_the_log_is_followed_from_its_start(desk: Desk) -> None:
    await desk.write(30)
    await followed_from_the_start(desk)


async def test_a_snapshot_further_back_than_is_looked_is_not_used(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.write(10)
    await desk.snapshot()
    await desk.write(30)
    monkeypatch.setattr(view_snapshot, "LOOK_BACK_MAX", 20)
    await followed_from_the_start(desk)


async def test_who_has_no_keys_looks_for_none(desk: Desk) -> None:
    await desk.write(10)
    await desk.snapshot()
    newcomer = desk.volume(desk.follower("stranger"), "stranger")
    assert await desk.begin(newcomer) is None
    assert desk.log.calls == {"clear": 1}
    await newcomer.sync()


async def test_a_reader_makes_none(desk: Desk) -> None:
    bert = await desk.world.join("bert", Role.READER, desk.anna)
    size = desk.world.store.size
    with pytest.raises(MunimentError):
        await VolumeFiles(bert, desk.client).snapshot_view(desk.folder)
    assert desk.world.store.size == size


# --- what goes wrong ------------------------------------------------------------------------------


def lost(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of snapshots since the last time."""
    said = [record.getMessage() for record in caplog.records if record.name == view_snapshot.__name__]
    caplog.clear()
    return said


async def test_blobs_out_of_reach_lead_to_the_full_fold(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    await desk.write(120)
    assert (await desk.snapshot()).size_bytes > 2048
    desk.grid.damage(lambda share: True)
    await followed_from_the_start(desk)
    assert any("is passed over" in line for line in lost(caplog))


async def test_a_service_without_clear_parts_leads_to_the_full_fold(
    desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.write(10)
    await desk.snapshot()

    async def unknown() -> tuple[bytes, bytes]:
        raise InvalidRequest(reason="there is no such call")

    monkeypatch.setattr(desk.log, "clear_part", unknown)
    await followed_from_the_start(desk)
    assert any("followed from its start" in line for line in lost(caplog))


async def test_a_clear_part_of_lies_leads_to_the_full_fold(
    desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.write(10)
    await desk.snapshot()
    note, part = await desk.world.log.clear_part()
    for at in random.Random(1).sample(range(len(part)), 20):
        changed = bytearray(part)
        changed[at] ^= 1

        async def lying(changed: bytes = bytes(changed)) -> tuple[bytes, bytes]:
            return note, changed

        monkeypatch.setattr(desk.log, "clear_part", lying)
        await followed_from_the_start(desk)
        assert lost(caplog)


async def forge(
    desk: Desk, change: Callable[[bytes], bytes] = lambda data: data, *, size: int = 0, sign: bytes = b""
) -> int:
    """Anna signs a snapshot of something else; returns its entry."""
    file = io.BytesIO()
    made, digest = await desk.anna.run(lambda: view_snapshot._write(desk.anna.follower, file))
    data = change(file.getvalue())
    cuts = range(0, len(data), 2048)
    content = tuple(Extent(at, len(data[at : at + 2048]), data[at : at + 2048]) for at in cuts)
    operation = ViewSnapshot(size or made, sign or digest, content)
    return (await desk.anna.commit(lambda _: Transaction((operation,)))).index


async def other_state(desk: Desk) -> tuple[bytes, bytes]:
    """A whole snapshot of a state that never was, and its true hash."""
    other, chance = MemoryView(), RandomVolume(99)
    while other.size < desk.anna.view.size:
        with other.batch() as batch:
            outcome = folded(batch.state, chance.transaction(batch.state), batch.size)
            batch.record(batch.size, entry_meta(batch.size), outcome)
    follower = desk.anna.follower
    head = head_of(follower.membership, follower.frontier)
    return b"".join(encode_view(head, other.state_rows())), other.state_hash().digest()


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data[:-5],
        lambda data: data[:8] + b"\x09" + data[9:],
        lambda data: data + data[-13:],
        lambda data: b"",
        lambda data: data[: len(data) // 2] + b"\xff" * 64,
        lambda data: os.urandom(300),
    ],
)
async def test_a_damaged_snapshot_leads_to_an_older_one(
    desk: Desk, caplog: pytest.LogCaptureFixture, change: Callable[[bytes], bytes]
) -> None:
    await desk.write(20)
    made = await desk.snapshot()
    await desk.write(5, 2)
    await forge(desk, lambda data: change(data) or b"\0")
    newcomer, begun = await desk.newcomer("anna")
    assert begun == Begun(made.committed.index, made.size)
    same(newcomer, await desk.full())
    assert any("is passed over" in line for line in lost(caplog))


async def test_a_state_that_is_not_the_signed_one_is_not_used(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    await desk.write(20)
    await forge(desk, sign=b"x" * 32)
    data, _ = await other_state(desk)
    await forge(desk, lambda _: data)
    await followed_from_the_start(desk)
    assert len(lost(caplog)) == 2


async def test_three_bad_ones_are_enough(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    await desk.write(20)
    await desk.snapshot()
    for _ in range(3):
        await forge(desk, sign=b"x" * 32)
    await followed_from_the_start(desk)
    assert len(lost(caplog)) == 3


async def test_a_head_of_lies_is_not_used(desk: Desk, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a writer says of the members, the log's end says otherwise."""
    await desk.write(10)
    await desk.world.join("bert", Role.WRITER, desk.anna)
    await desk.write(10, 2)
    follower = desk.anna.follower
    head, rows = head_of(follower.membership, follower.frontier), list(desk.anna.view.state_rows())
    first, *others = head.tails
    lies = [
        replace(head, acts_count=head.acts_count - 1),
        replace(head, time_ns=head.time_ns - 10**12),
        replace(head, acts_hash=bytes(32)),
        replace(head, frontier=tuple(bytes(32) for _ in head.frontier)),
        replace(head, tails=(replace(first, previous=type(first.previous)(bytes(32))), *others)),
    ]
    digest = desk.anna.view.state_hash().digest()
    for lie in lies:
        data = b"".join(encode_view(lie, rows))
        newest = await forge(desk, lambda _, data=data: data, size=head.size, sign=digest)  # type: ignore[misc]
        volume = desk.volume(desk.follower("anna"), "anna")
        assert await desk.begin(volume) is None
        assert any(f"entry {newest} " in line for line in lost(caplog))
    await followed_from_the_start(desk)
    assert lost(caplog)


async def test_an_audit_names_who_signed_a_state_that_never_was(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """The newcomer cannot know: rows and signature agree.  The audit of the whole log does, and names him."""
    await desk.write(20)
    honest = await desk.snapshot()
    data, digest = await other_state(desk)
    index = await forge(desk, lambda _: data, sign=digest)
    newcomer, begun = await desk.newcomer("anna")
    assert begun is not None
    assert begun.index == index
    assert newcomer.view.state_hash() != (await desk.full()).view.state_hash()
    report = await audit_volume(
        desk.anna.id,
        member("anna").read,
        LOG_KEY.public_key,
        log=lambda: Unclosed(desk.world.store),  # type: ignore[arg-type,return-value]
    )
    assert report.verdict is Verdict.FORGED
    assert report.snapshots == 2
    (finding,) = report.findings
    assert finding.place == f"entry {index}"
    assert id_text(member("anna").member) in finding.what
    assert honest.committed.index != index

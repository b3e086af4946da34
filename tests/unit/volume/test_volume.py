"""Volumes of real members over one log: agreement, order, rejection, rotation, and a service that lies."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace

import pytest
from tests.unit.volume.support import LOG_KEY, Careless, World, folder, kick, member, transaction, world

from muniment.core.entries import Place, seal_transaction
from muniment.core.keys import rotation
from muniment.core.membership import Membership
from muniment.core.tree_state import TreeReading
from muniment.crypto.checkpoints import sign_checkpoint
from muniment.crypto.entries import entry_hash, sign_entry
from muniment.crypto.messages import seal_message
from muniment.engine.folding import UNREADABLE
from muniment.engine.follower import Follower
from muniment.engine.volume import Attempt, Volume
from muniment.errors import (
    LogForked,
    MalformedRecord,
    NodeUnreachable,
    NotCapable,
    NotMember,
    OperationRejected,
    RoleForbids,
)
from muniment.logs.memory import MemoryLog
from muniment.merkle.log_tree import Frontier
from muniment.ports import Appended, LogClient, ViewBatch
from muniment.spec.act import Act, Leave, Role, Rotate
from muniment.spec.canonical import dump
from muniment.spec.checkpoint import Checkpoint, decode_checkpoint, decode_note, origin_of
from muniment.spec.operation import INLINE_BYTES_MAX, ROOT, Extent, Kind, Make, Unlink
from muniment.spec.transaction import Transaction
from muniment.testing.lying_log import SwitchedLog
from muniment.views.memory import MemoryView


@pytest.fixture
async def grid() -> AsyncIterator[World]:
    async with world() as grid:
        yield grid


def names(volume: Volume, at: int | None = None) -> list[bytes]:
    return [child.name for child in volume.view.reading(at).children(ROOT, b"", 1000)]


async def make(volume: Volume, name: bytes) -> int:
    return (await volume.commit(lambda _: transaction(folder(name)))).index


async def test_what_one_writes_the_others_read(grid: World) -> None:
    anna = await grid.member("anna")
    bert = await grid.join("bert", Role.WRITER, anna)
    await make(anna, b"of anna")
    index = await make(bert, b"of bert")
    assert names(bert) == [b"of anna", b"of bert"]
    await anna.sync()
    assert names(anna) == names(bert)
    assert names(anna, index - 1) == [b"of anna"]
    assert anna.view.state_hash().digest() == bert.view.state_hash().digest()


async def test_a_newcomer_folds_to_the_same_state(grid: World) -> None:
    anna = await grid.member("anna")
    for at in range(30):
        await make(anna, b"%d" % at)
    again = await grid.member("anna")
    assert again.view.state_hash().digest() == anna.view.state_hash().digest()
    assert again.follower.frontier == anna.follower.frontier


async def test_two_who_make_the_same_name_at_once(grid: World) -> None:
    anna = await grid.member("anna")
    bert = await grid.join("bert", Role.WRITER, anna)
    outcomes = await asyncio.gather(make(anna, b"x"), make(bert, b"x"), return_exceptions=True)
    rejected = [one for one in outcomes if isinstance(one, OperationRejected)]
    assert len(rejected) == 1
    assert rejected[0].why == "exists"
    await anna.sync()
    await bert.sync()
    assert anna.view.state_hash().digest() == bert.view.state_hash().digest()


async def test_many_changes_at_once_are_all_made(grid: World) -> None:
    anna = await grid.member("anna")
    writers = [anna, *[await grid.join(f"writer {at}", Role.WRITER, anna) for at in range(3)]]
    await asyncio.gather(*[make(one, b"%d-%d" % (at, n)) for at, one in enumerate(writers) for n in range(5)])
    for one in writers:
        await one.sync()
    assert len({one.view.state_hash().digest() for one in writers}) == 1
    assert len(names(anna)) == 20


async def test_a_plan_sees_the_newest_state(grid: World) -> None:
    anna = await grid.member("anna")
    await make(anna, b"x")
    inode = anna.view.lookup([b"x"])
    assert inode is not None
    with pytest.raises(OperationRejected, match="is-a-folder"):
        await anna.commit(lambda _: transaction(Unlink(ROOT, b"x", inode.inode)))
    assert names(anna) == [b"x"]


@pytest.mark.parametrize("plain", [dump([99, b"", [], ""]), dump([1, b"", [[99]], ""]), b"", b"\xff"])
async def test_a_writer_who_seals_nonsense_stops_nobody(grid: World, plain: bytes) -> None:
    anna = await grid.member("anna")
    bert = await grid.join("bert", Role.WRITER, anna)
    keys, at = bert.newest_keys(), bert.follower.frontier
    place = Place.next(
        bert.membership,
        member("bert").member,
        seen_size=at.size,
        seen_root=at.root(),
        now_ns=bert.now_ns(),
    )
    entry = place.entry(None, b"\0")
    sealed = seal_message(keys.transaction_key(place.author), b"\0" + plain, entry.bound(), os.urandom)
    await grid.log.append([sign_entry(member("bert").identity, place.entry(None, sealed))])
    await make(anna, b"after")
    (rejected, _) = anna.view.entries(at.size, at.size + 2)
    assert rejected.rejection is not None
    assert rejected.rejection.code == UNREADABLE
    assert [name.name for name in anna.view.reading().children(ROOT, b"", 9)] == [b"after"]


async def test_entries_of_many_kilobytes_are_folded_around_one_that_is_nonsense(grid: World) -> None:
    anna = await grid.member("anna")
    keys, at, secret = anna.newest_keys(), anna.follower.frontier, member("anna")
    place = Place.next(
        anna.membership, secret.member, seen_size=at.size, seen_root=at.root(), now_ns=anna.now_ns()
    )
    signed = []
    for number in range(120):  # more than is opened ahead of the fold
        content = (Extent(0, INLINE_BYTES_MAX, bytes([number]) * INLINE_BYTES_MAX),)
        made = Make(ROOT, b"%03d" % number, Kind.FILE, 0o644, content=content, size=INLINE_BYTES_MAX)
        entry = seal_transaction(place, transaction(made, message=f"{number}"), keys, os.urandom)
        if number == 60:
            entry = replace(entry, sealed=bytes(40))
        signed.append(sign_entry(secret.identity, entry))
        place = place.after(entry_hash(signed[-1]))
    await grid.log.append(signed)
    await anna.sync()
    assert names(anna) == [b"%03d" % number for number in range(120) if number != 60]
    folded = anna.view.entries(at.size, at.size + 120)
    assert [one.meta.message for one in folded] == [str(n) if n != 60 else "" for n in range(120)]
    assert [n for n, one in enumerate(folded) if one.rejection is not None] == [60]


class ReadAhead(SwitchedLog):
    """Tells when the second page is asked for, and has no third."""

    def __init__(self, inner: LogClient) -> None:
        super().__init__(inner)
        self.part, self.asked, self.pages = 3, threading.Event(), 0

    async def entries(self, start: int, stop: int) -> list[bytes]:
        self.pages += 1
        if self.pages == 2:
            self.asked.set()
        if self.pages == 3:
            raise NodeUnreachable(node=b"n" * 32, reason="gone")
        return await super().entries(start, stop)


class Patient(MemoryView):
    """Folds nothing before something else has happened."""

    def __init__(self, happened: threading.Event) -> None:
        super().__init__()
        self.happened, self.begun = happened, threading.Event()

    @contextlib.contextmanager
    def batch(self) -> Iterator[ViewBatch]:
        self.begun.set()
        assert self.happened.wait(5)
        with super().batch() as batch:
            yield batch


async def test_the_next_page_is_asked_for_while_one_is_folded_and_its_loss_costs_none(grid: World) -> None:
    anna, secret = await grid.member("anna"), member("anna")
    for at in range(9):
        await make(anna, b"%d" % at)
    log = ReadAhead(grid.log)
    view = Patient(log.asked)
    follower = Follower(grid.volume, secret.read, LOG_KEY.public_key, MemoryLog(), view)
    again = Volume(follower, secret, log, grid.clock, os.urandom)
    with pytest.raises(NodeUnreachable):
        await again.sync()
    assert view.size == 6
    await again.sync()
    assert view.state_hash() == anna.view.state_hash()
    await again.aclose()


async def test_who_has_the_newest_entries_and_not_their_state_is_behind(grid: World) -> None:
    may_fold = threading.Event()
    may_fold.set()
    view = Patient(may_fold)
    follower = Follower(grid.volume, member("anna").read, LOG_KEY.public_key, MemoryLog(), view)
    other = Volume(follower, member("anna"), grid.log, grid.clock, os.urandom)
    await other.sync()
    assert not await other.is_behind()
    await make(await grid.member("anna"), b"x")
    assert await other.is_behind()
    may_fold.clear()
    view.begun.clear()
    folding = asyncio.create_task(other.sync())
    try:
        assert await asyncio.to_thread(view.begun.wait, 5)
        assert follower.frontier.size == grid.store.size
        assert await other.is_behind()  # it has every entry, and still shows the state before the last
        assert names(other) == []
    finally:
        may_fold.set()
        await folding
    assert not await other.is_behind()
    assert names(other) == [b"x"]
    await other.aclose()


async def test_rights_are_kept_by_the_service(grid: World) -> None:
    anna, stranger = await grid.member("anna"), await grid.member("stranger")
    with pytest.raises(NotMember):
        await stranger.act(lambda _: Leave())
    reader = await grid.join("rita", Role.READER, anna)
    with pytest.raises(RoleForbids):
        await make(reader, b"x")


async def test_roles_see_what_they_may(grid: World) -> None:
    anna = await grid.member("anna")
    await make(anna, b"x")
    reader, auditor = await grid.join("r", Role.READER, anna), await grid.join("a", Role.AUDITOR, anna)
    assert names(reader) == [b"x"]
    assert names(auditor) == []


async def test_a_removed_member_reads_nothing_more(grid: World) -> None:
    anna = await grid.member("anna")
    bert = await grid.join("bert", Role.WRITER, anna)
    await make(bert, b"before")
    await anna.sync()
    await anna.act(lambda state: kick(state, anna, member("bert")))
    await make(anna, b"after")
    for _ in range(2):  # the service refuses it; then he knows it himself
        with pytest.raises(NotMember):
            await make(bert, b"mine")
        await bert.sync()
    assert names(bert) == [b"before"]
    assert names(anna) == [b"before", b"after"] or names(anna) == [b"after", b"before"]


async def test_who_leaves_is_followed_by_new_keys(grid: World) -> None:
    anna = await grid.member("anna")
    bert = await grid.join("bert", Role.WRITER, anna)
    await bert.act(lambda _: Leave())
    await make(anna, b"after")
    await bert.sync()
    assert anna.membership.epoch == 1
    assert names(bert) == []
    assert names(anna) == [b"after"]


async def test_a_newcomer_from_whom_the_past_is_withheld_changes_nothing(grid: World) -> None:
    anna = await grid.member("anna", kind=Careless)
    await make(anna, b"past")
    keys = anna.newest_keys()

    def broken(state: Membership) -> Act:
        fresh, _ = rotation(state, keys, os.urandom)
        return Rotate(replace(fresh, chain_read=bytes(len(fresh.chain_read))))

    await anna.act(broken)
    newcomer, size = await grid.join("bert", Role.WRITER, anna), grid.store.size
    with pytest.raises(NotCapable, match="entry 1"):
        await make(newcomer, b"on what he does not see")
    assert grid.store.size == size
    await make(anna, b"present")
    assert names(anna) == [b"past", b"present"]


async def test_it_follows_as_soon_as_there_is_news(grid: World) -> None:
    anna, again = await grid.member("anna"), await grid.member("anna")
    waiting = asyncio.create_task(again.wait_change(10))
    await make(anna, b"x")
    assert await waiting
    assert names(again) == [b"x"]
    assert not await again.wait_change(0.01)


class Reluctant(SwitchedLog):
    """Its connection hangs when it is closed."""

    async def aclose(self) -> None:
        await asyncio.Event().wait()


async def test_an_end_that_is_cancelled_still_closes_what_is_kept(grid: World) -> None:
    anna = await grid.member("anna")
    volume = Volume(anna.follower, member("anna"), Reluctant(grid.log), grid.clock, os.urandom)
    await make(volume, b"x")
    closed, close = [], volume.follower.close

    def noted() -> None:
        close()
        closed.append(threading.current_thread())

    volume.follower.close = noted  # type: ignore[method-assign]  # told when it is called
    end = asyncio.create_task(volume.aclose())
    await asyncio.sleep(0)
    end.cancel()
    await asyncio.wait({end})
    assert end.cancelled()
    (thread,) = closed
    assert not thread.is_alive()


# --- a service that lies --------------------------------------------------------------------------


class LyingLog(SwitchedLog):
    """Answers as another log does, but for what a test puts in place of it."""

    def __init__(self, inner: LogClient) -> None:
        super().__init__(inner)
        self.note: bytes | None = None
        self.damage: int | None = None

    async def checkpoint(self) -> bytes:
        return self.note or await super().checkpoint()

    async def entries(self, start: int, stop: int) -> list[bytes]:
        found = await super().entries(start, stop)
        if self.damage is not None and start <= self.damage < stop:
            entry = bytearray(found[self.damage - start])
            entry[len(entry) // 2] ^= 1
            found[self.damage - start] = bytes(entry)
        return found


class Counting(SwitchedLog):
    """Counts what is fetched."""

    fetched = 0

    async def entries(self, start: int, stop: int) -> list[bytes]:
        self.fetched += stop - start
        return await super().entries(start, stop)


async def test_who_commits_alone_fetches_nothing_back(grid: World) -> None:
    log = Counting(grid.log)
    anna, other = await grid.member("anna", log=log), await grid.member("anna")
    known = log.fetched
    for name in (b"a", b"b"):
        await make(anna, name)
    assert log.fetched == known
    await other.sync()
    await make(other, b"c")
    await make(anna, b"d")  # refused once, since its author has made another entry
    assert log.fetched == known + 1
    await other.sync()
    assert names(anna) == names(other) == [b"a", b"b", b"c", b"d"]
    assert anna.follower.replica.read(0, 5, bytes_max=1 << 20) == grid.entries()
    assert anna.follower.frontier.root() == other.follower.frontier.root()


class Replacing(SwitchedLog):
    """Says that it has ordered what it was given, and has ordered something else."""

    def __init__(self, inner: LogClient, put: Callable[[], Awaitable[object]]) -> None:
        super().__init__(inner)
        self._put = put

    async def append(self, signed: Sequence[bytes]) -> list[Appended]:
        await self._put()
        note = await self.inner.checkpoint()
        return [Appended(decode_checkpoint(decode_note(note).text).size - 1, note)]


async def test_an_entry_that_another_took_the_place_of_is_not_taken_for_kept(grid: World) -> None:
    anna = await grid.member("anna")
    bert = await grid.join("bert", Role.WRITER, anna)
    victim = await grid.member("anna", log=Replacing(grid.log, lambda: make(bert, b"other")))
    with pytest.raises(LogForked, match="acknowledged a change as entry"):
        await make(victim, b"mine")
    assert names(victim) == [b"other"]


class Gone(SwitchedLog):
    """Gets no entry."""

    async def append(self, signed: Sequence[bytes]) -> list[Appended]:
        raise NodeUnreachable(node=b"", reason="nobody is there")


@pytest.fixture
def liar(grid: World) -> LyingLog:
    return LyingLog(grid.log)


def signed_as(grid: World, size: int, root: bytes) -> bytes:
    return sign_checkpoint(LOG_KEY, Checkpoint(origin_of(grid.volume), size, root))


async def test_an_answer_that_was_lost_makes_no_second_change(grid: World, liar: LyingLog) -> None:
    anna = await grid.member("anna", log=liar)
    liar.lost_answers = 1
    assert await make(anna, b"x") == 1
    assert grid.store.size == 2


@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize("followed", [False, True])
async def test_a_change_of_which_every_answer_was_lost_is_found_again(
    grid: World, liar: LyingLog, monkeypatch: pytest.MonkeyPatch, *, others: bool, followed: bool
) -> None:
    monkeypatch.setattr("muniment.engine.volume._PAUSE_S", 0.0)
    anna = await grid.member("anna", log=liar)
    bert = await grid.join("bert", Role.WRITER, anna)
    attempt, size = Attempt(), grid.store.size
    planned: list[int] = []

    def plan(_: TreeReading) -> Transaction:
        planned.append(1)
        return transaction(folder(b"x"))

    liar.lost_answers = 100
    with pytest.raises(NodeUnreachable):
        await anna.commit(plan, attempt=attempt)
    assert attempt.unanswered
    liar.lost_answers = 0
    if others:
        await bert.sync()
        await make(bert, b"y")
    if followed:
        await anna.sync()
    done = await anna.commit(plan, attempt=attempt)
    assert (done.index, grid.store.size, len(planned)) == (size, size + 1 + others, 1)
    assert not attempt.unanswered
    assert b"x" in names(anna)


async def test_a_change_that_never_arrived_is_planned_anew_once_it_cannot_any_more(
    grid: World, liar: LyingLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muniment.engine.volume._PAUSE_S", 0.0)
    anna, attempt = await grid.member("anna", log=liar), Attempt()
    elsewhere = await grid.member("anna")
    liar.inner = Gone(grid.log)
    with pytest.raises(NodeUnreachable):
        await anna.commit(lambda _: transaction(folder(b"x")), attempt=attempt)
    liar.inner = grid.log
    await make(elsewhere, b"y")  # takes the place in his chain that the lost entry had
    assert (await anna.commit(lambda _: transaction(folder(b"x")), attempt=attempt)).index == 2
    assert names(anna) == [b"x", b"y"]


async def test_a_log_that_forgets_is_refused(grid: World, liar: LyingLog) -> None:
    anna = await grid.member("anna", log=liar)
    await make(anna, b"x")
    liar.note = signed_as(grid, 1, Frontier.at(1, grid.store.node).root())
    with pytest.raises(LogForked, match="had signed for 2"):
        await anna.sync()


@pytest.mark.parametrize("size", [1, 2, 3])
async def test_a_log_that_shows_another_tree_is_refused(grid: World, liar: LyingLog, size: int) -> None:
    anna, other = await grid.member("anna", log=liar), await grid.member("anna")
    await make(anna, b"x")
    await other.sync()
    await make(other, b"y")
    liar.note = signed_as(grid, size, b"r" * 32)
    with pytest.raises(LogForked):
        await anna.sync()
    assert names(anna) == [b"x"]


async def test_a_checkpoint_of_somebody_else_is_refused(grid: World, liar: LyingLog) -> None:
    anna = await grid.member("anna", log=liar)
    forger = member("forger").identity
    liar.note = sign_checkpoint(forger, Checkpoint(origin_of(grid.volume), 1, anna.follower.root(1)))
    with pytest.raises(MalformedRecord):
        await anna.sync()


async def test_one_flipped_bit_in_an_entry_is_refused(grid: World, liar: LyingLog) -> None:
    anna, other = await grid.member("anna", log=liar), await grid.member("anna")
    await make(other, b"x")
    liar.damage = 1
    with pytest.raises(LogForked):
        await anna.sync()
    liar.damage = None
    await anna.sync()
    assert names(anna) == [b"x"]

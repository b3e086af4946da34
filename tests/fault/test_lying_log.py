"""A log service that forges, drops, reorders, rolls back, forks and replays: the next honest member sees it.

Where docs/spec/evidence.md section 2 says that there is evidence, somebody who has nothing but the file
verifies it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from tests.unit.volume.support import LOG_KEY, Now, World, folder, member, transaction, world

from muniment.core.entries import Place
from muniment.core.keys import rotation
from muniment.crypto.entries import open_entry, sign_entry
from muniment.engine.evidence import Verdict, verify_evidence
from muniment.engine.volume import Volume
from muniment.errors import LogForked, MalformedRecord, UnknownVersion
from muniment.spec.act import Leave, Role, Rotate
from muniment.spec.operation import ROOT
from muniment.testing.lying_log import SwitchedLog, service_of


class Accused:
    """A volume with two writers, and a service that one of them follows through a switch."""

    def __init__(self, grid: World, thread: ThreadPoolExecutor) -> None:
        self.grid = grid
        self.files: list[bytes] = []
        self.switch = SwitchedLog(grid.log)
        self._thread = thread

    def sink(self, evidence: bytes) -> str:
        self.files.append(evidence)
        return f"file {len(self.files)}"

    async def begin(self) -> None:
        self.anna = await self.grid.member("anna")
        self.bert = await self.grid.join("bert", Role.WRITER, self.anna)
        for at in range(3):
            await make(self.anna, b"a%d" % at)
            await self.bert.sync()
            await make(self.bert, b"b%d" % at)
            await self.anna.sync()

    async def victim(self, *, sync: bool = True) -> Volume:
        """One who follows the lying service: a second machine of anna's."""
        return await self.grid.member("anna", log=self.switch, sink=self.sink, sync=sync)

    def lie(self, entries: list[bytes]) -> None:
        self.switch.inner = service_of(self.grid.volume, entries, LOG_KEY, Now(), self._thread)

    async def detected(self, victim: Volume, says: str) -> Verdict:
        """The victim refuses the log with evidence, now and when it is honest again."""
        with pytest.raises(LogForked, match="evidence: file 1"):
            await victim.sync()
        self.switch.inner = self.grid.log
        with pytest.raises(LogForked, match="refused before; evidence: file 1"):
            await victim.sync()
        assert len(self.files) == 1
        verdict = verify_evidence(self.files[0])
        assert says in verdict.says
        assert (verdict.volume, verdict.log_key) == (self.grid.volume, LOG_KEY.public_key)
        return verdict


async def make(volume: Volume, name: bytes) -> None:
    await volume.commit(lambda _: transaction(folder(name)))


@pytest.fixture
async def accused() -> AsyncIterator[Accused]:
    async with world() as grid:
        with ThreadPoolExecutor(1) as thread:
            accused = Accused(grid, thread)
            await accused.begin()
            yield accused


@pytest.fixture(params=["newcomer", "member", "member in small steps"])
async def victim(accused: Accused, request: pytest.FixtureRequest) -> Volume:
    """Somebody who has seen nothing yet, or all but the newest entry."""
    if request.param == "newcomer":
        return await accused.victim(sync=False)
    victim = await accused.victim()
    await make(accused.anna, b"newest")
    await make(accused.anna, b"more")
    if "steps" in request.param:
        accused.switch.part = 1
    return victim


def flipped(signed: bytes) -> bytes:
    changed = bytearray(signed)
    changed[-70] ^= 1
    return bytes(changed)


async def test_forged_by_nobody(accused: Accused, victim: Volume) -> None:
    entries = accused.grid.entries()
    accused.lie([*entries[:-1], flipped(entries[-1])])
    await accused.detected(victim, "signed by nobody")


async def test_forged_by_a_stranger(accused: Accused, victim: Volume) -> None:
    secret, state = member("mallory"), accused.anna.membership
    frontier = accused.anna.follower.frontier
    place = Place.next(
        state,
        secret.member,
        seen_size=frontier.size,
        seen_root=frontier.root(),
        now_ns=int(Now().now_s() * 1e9),
    )
    entry = replace(place.entry(Leave()), act=None, sealed=b"x" * 99)
    accused.lie([*accused.grid.entries(), sign_entry(secret.identity, entry)])
    await accused.detected(victim, "is not a member")


async def test_dropped(accused: Accused, victim: Volume) -> None:
    entries = accused.grid.entries()
    del entries[-4]
    accused.lie(entries)
    await accused.detected(victim, "it signed a log")


@pytest.mark.parametrize("index", [1, 8, 9, 1 << 40])
async def test_acknowledged_and_dropped(accused: Accused, index: int) -> None:
    """An acknowledgement that names another entry's place, or one that is not there, is none."""
    victim = await accused.victim()
    accused.switch.drops = index
    with pytest.raises(LogForked, match=f"acknowledged a change as entry {index}, and that is another"):
        await make(victim, b"dropped")
    with pytest.raises(LogForked, match="acknowledged a change"):
        await victim.act(lambda _: Leave())
    accused.switch.drops = None
    await make(victim, b"kept")
    names = [child.name for child in victim.view.reading().children(ROOT, b"", 100)]
    assert b"kept" in names
    assert b"dropped" not in names


async def test_keys_in_entries_that_are_refused_are_not_held(accused: Accused) -> None:
    """They are of a history that is none; another epoch will have their number."""
    victim = await accused.victim()
    keys = accused.anna.newest_keys()
    await accused.anna.act(lambda state: Rotate(rotation(state, keys, os.urandom)[0]))
    entries = accused.grid.entries()
    accused.lie([*entries, entries[1]])
    with pytest.raises(LogForked):
        await victim.sync()
    assert victim.follower.ring.newest == keys
    await accused.anna.sync()
    assert accused.anna.newest_keys().epoch == keys.epoch + 1


async def test_reordered(accused: Accused, victim: Volume) -> None:
    entries = accused.grid.entries()
    entries[-3], entries[-2] = entries[-2], entries[-3]
    accused.lie(entries)
    await accused.detected(victim, "it signed a log")


async def test_replayed(accused: Accused, victim: Volume) -> None:
    entries = accused.grid.entries()
    accused.lie([*entries, flipped(entries[-1]), entries[-2]])
    await accused.detected(victim, "it signed a log")


async def test_replayed_into_another_volume(accused: Accused, victim: Volume) -> None:
    async with world() as other:
        anna = await other.member("anna")
        await make(anna, b"there")
        accused.lie([*accused.grid.entries(), other.entries()[-1]])
    await accused.detected(victim, "is of another volume")


async def test_forked_between_two_members(accused: Accused) -> None:
    """Each sees a good log; they find out when they show each other what they have."""
    victim = await accused.victim()
    accused.lie(accused.grid.entries())
    await make(victim, b"on one side")
    await make(accused.anna, b"on the other")
    await make(accused.anna, b"and one more")
    await victim.exchange([await accused.anna.exchange([])])
    with pytest.raises(LogForked, match=r"has 10 entries and had signed for 11$"):
        await victim.sync()
    assert not accused.files
    accused.switch.inner = accused.grid.log
    await accused.detected(victim, "it signed a log of 11 entries that does not begin with the 10")


async def test_forked_at_the_same_size(accused: Accused) -> None:
    victim = await accused.victim()
    accused.lie(accused.grid.entries())
    await make(victim, b"on one side")
    await make(accused.anna, b"on the other")
    theirs = await accused.anna.exchange([])
    with pytest.raises(LogForked, match="two different logs of 10 entries; evidence: file 1"):
        await victim.exchange([theirs])
    await accused.detected(victim, "two different logs of 10 entries")


async def test_two_notes_ahead_of_a_replica_contradict_each_other(accused: Accused) -> None:
    victim = await accused.victim()
    accused.lie(accused.grid.entries())
    other = await accused.grid.member("anna", log=accused.switch)
    await make(other, b"on one side")
    await make(accused.anna, b"on the other")
    one, two = await other.exchange([]), await accused.anna.exchange([])
    await victim.exchange([one])
    with pytest.raises(LogForked, match="evidence: file 1"):
        await victim.exchange([two])
    assert "two different logs of 10 entries" in verify_evidence(accused.files[0]).says


async def test_what_others_saw_is_compared_when_the_replica_gets_there(accused: Accused) -> None:
    victim = await accused.victim()
    accused.lie(accused.grid.entries())
    other = await accused.grid.member("anna", log=accused.switch)
    await make(other, b"on one side")
    await victim.exchange([await other.exchange([])])
    for at in range(3):
        await make(accused.anna, b"on the other %d" % at)
    accused.switch.inner = accused.grid.log
    await accused.detected(victim, "does not begin with the 10")


async def test_a_fork_brought_together_again(accused: Accused) -> None:
    """What a member of one side wrote is put into the other: his entry says what he had seen."""
    victim = await accused.victim()
    accused.lie(accused.grid.entries())
    other = await accused.grid.member("bert", log=accused.switch)
    await make(accused.anna, b"on the other")
    aside = accused.switch.inner
    await make(await accused.grid.member("anna", log=accused.switch), b"on one side")
    await other.sync()
    await make(other, b"by bert on one side")
    smuggled = (await aside.entries(10, 12))[-1]
    assert open_entry(smuggled).entry.author == member("bert").member
    accused.lie([*accused.grid.entries(), smuggled])
    await accused.detected(victim, "shown another log of 10 entries")


async def test_rolled_back(accused: Accused) -> None:
    """Forgetting has no evidence until something else is signed in its place."""
    victim = await accused.victim()
    await make(accused.anna, b"seen")
    await victim.sync()
    accused.lie(accused.grid.entries()[:-1])
    with pytest.raises(LogForked, match=r"has 9 entries and had signed for 10$"):
        await victim.sync()
    assert not accused.files
    again = await accused.grid.member("anna", log=accused.switch)
    await make(again, b"in its place")
    await make(again, b"and more")
    await accused.detected(victim, "does not begin with the 10")


async def test_a_service_that_does_not_prove_is_refused_for_this_time(accused: Accused) -> None:
    victim = await accused.victim()
    await make(accused.anna, b"seen")
    await victim.sync()
    entries = accused.grid.entries()
    accused.lie([*entries[:-1], flipped(entries[-1]), flipped(entries[-1])])
    accused.switch.proves = False
    with pytest.raises(LogForked, match=r"not those of its checkpoint$"):
        await victim.sync()
    assert not accused.files
    accused.switch.proves = True
    await accused.detected(victim, "does not begin with the 10")


async def test_an_honest_service_is_never_accused(accused: Accused) -> None:
    victim = await accused.victim()
    accused.switch.part = 1
    for at in range(5):
        await make(accused.anna, b"%d" % at)
        await victim.exchange([await accused.anna.exchange([await victim.exchange([])])])
        if at % 2:
            await victim.sync()
    assert not accused.files
    await victim.sync()
    assert victim.follower.frontier == accused.anna.follower.frontier


async def test_a_damaged_file_proves_nothing(accused: Accused) -> None:
    files = []
    for lie in ("fork", "entry", "history"):
        accused.files, accused.switch.inner = [], accused.grid.log
        victim = await accused.victim()
        entries = accused.grid.entries()
        if lie == "fork":
            accused.lie([*entries[:-1], flipped(entries[-1]), entries[-2]])
        else:
            await make(accused.anna, lie.encode())
            fresh = accused.grid.entries()
            accused.lie([*entries, flipped(fresh[-1])] if lie == "entry" else [*entries, entries[1]])
        with pytest.raises(LogForked):
            await victim.sync()
        files += accused.files
    assert len(files) == 3
    for file in files:
        verify_evidence(file)
        for at in range(0, len(file), max(1, len(file) // 300)):
            for bit in (1, 128):
                damaged = bytearray(file)
                damaged[at] ^= bit
                with pytest.raises((MalformedRecord, UnknownVersion)):
                    verify_evidence(bytes(damaged))
        for cut in (0, 1, 9, len(file) // 2, len(file) - 1):
            with pytest.raises(MalformedRecord):
                verify_evidence(file[:cut])
        with pytest.raises(MalformedRecord):
            verify_evidence(file + b"\0")

"""Members hold what they have seen against each other: with files, and without trusting the log service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.unit.volume.support import LOG_KEY, Now, World, folder, member, transaction, world

from muniment.crypto.checkpoints import cosign, sign_checkpoint
from muniment.crypto.identity import Identity
from muniment.engine.comparing import Compared, compare
from muniment.engine.evidence import verify_evidence
from muniment.engine.seen import SeenCheckpoint, entry_time_ns, exported, seen_checkpoints
from muniment.engine.volume import Volume
from muniment.errors import LogForked, MalformedRecord, NodeUnreachable
from muniment.ids import VolumeId
from muniment.ports import LogClient
from muniment.spec.act import Role
from muniment.spec.checkpoint import Checkpoint, decode_note, decode_notes, origin_of, witness_of
from muniment.testing.lying_log import SwitchedLog, service_of

KEYS = (LOG_KEY.public_key,)


class Away(SwitchedLog):
    """A service that one may not be able to reach."""

    away = False

    async def checkpoint(self) -> bytes:
        if self.away:
            raise NodeUnreachable(node=b"n" * 32, reason="refused")
        return await super().checkpoint()

    async def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        if self.away:
            raise NodeUnreachable(node=b"n" * 32, reason="refused")
        return await super().inclusion(index, size)


class Two:
    """Anna and bert, each with a way of his own to the log service, and the evidence that each has."""

    def __init__(self, grid: World, thread: ThreadPoolExecutor) -> None:
        self.grid, self._thread = grid, thread
        self.hers, self.his = Away(grid.log), Away(grid.log)
        self.files: dict[str, list[bytes]] = {"anna": [], "bert": []}

    async def begin(self) -> None:
        founder = await self.grid.member("anna")
        await self.grid.join("bert", Role.WRITER, founder)
        self.anna = await self._member("anna", self.hers)
        self.bert = await self._member("bert", self.his)

    async def _member(self, name: str, log: SwitchedLog) -> Volume:
        def sink(evidence: bytes) -> str:
            self.files[name].append(evidence)
            return f"{name}'s file"

        return await self.grid.member(name, log=log, sink=sink)

    def fork(self) -> None:
        """From now on bert is shown a log of his own."""
        self.his.inner = self.service(self.grid.entries())

    def service(self, entries: list[bytes]) -> LogClient:
        """One that believes these to be the log."""
        return service_of(self.grid.volume, entries, LOG_KEY, Now(), self._thread)

    def cut_off(self) -> None:
        """Nobody reaches the service any more."""
        self.hers.away = self.his.away = True


async def make(volume: Volume, name: bytes) -> None:
    await volume.commit(lambda _: transaction(folder(name)))


def seen(volume: Volume) -> list[SeenCheckpoint]:
    return seen_checkpoints(volume.follower, KEYS)


def export(volume: Volume) -> list[bytes]:
    data, count = exported(seen(volume))
    notes = decode_notes(data)
    assert len(notes) == count
    return notes


@pytest.fixture
async def two() -> AsyncIterator[Two]:
    async with world() as grid:
        with ThreadPoolExecutor(1) as thread:
            both = Two(grid, thread)
            await both.begin()
            yield both


async def test_who_has_seen_one_log_agrees(two: Two) -> None:
    for at in range(3):
        await make(two.anna, b"%d" % at)
    assert await compare(two.bert, export(two.anna)) == Compared(4, 0, 0, 6, 6, None)
    two.cut_off()
    assert (await compare(two.anna, export(two.bert))).agree == len(export(two.bert))


async def test_a_larger_log_is_kept_until_it_can_be_seen(two: Two) -> None:
    two.his.away = True
    await make(two.anna, b"more")
    done = await compare(two.bert, export(two.anna))
    assert (done.agree, done.beyond, done.largest, done.size) == (1, 1, 4, 3)
    assert isinstance(done.unasked, NodeUnreachable)
    two.his.away = False
    honest, two.his.inner = two.his.inner, two.service(two.grid.entries()[:3])
    with pytest.raises(LogForked, match=r"has 3 entries and had signed for 4$"):
        await two.bert.sync()
    two.his.inner = honest
    done = await compare(two.bert, export(two.anna))
    assert (done.agree, done.beyond, done.size, done.unasked) == (2, 0, 4, None)


async def test_two_who_were_shown_different_logs_both_get_evidence_without_the_service(two: Two) -> None:
    two.fork()
    await make(two.anna, b"on one side")
    await make(two.bert, b"on the other")
    hers, his = export(two.anna), export(two.bert)
    two.cut_off()
    for volume, theirs, name in ((two.anna, his, "anna"), (two.bert, hers, "bert")):
        with pytest.raises(LogForked, match=f"two different logs of 4 entries; evidence: {name}'s file"):
            await compare(volume, theirs)
        (evidence,) = two.files[name]
        verdict = verify_evidence(evidence)
        assert (verdict.volume, verdict.log_key) == (two.grid.volume, LOG_KEY.public_key)
        with pytest.raises(LogForked, match="refused before"):
            await compare(volume, theirs)


async def test_logs_of_different_sizes_contradict_each_other_too(two: Two) -> None:
    two.fork()
    for at in range(2):
        await make(two.anna, b"on one side %d" % at)
    await make(two.bert, b"on the other")
    his = [export(two.bert)[-1]]
    two.cut_off()
    with pytest.raises(LogForked, match="evidence: anna's file"):
        await compare(two.anna, his)
    assert "does not begin with the 4" in verify_evidence(two.files["anna"][0]).says


async def test_a_shorter_log_is_refused_without_evidence(two: Two) -> None:
    """It may have signed the shorter one once, in good faith."""
    await make(two.anna, b"both see it")
    await two.bert.sync()
    two.his.inner = two.service(two.grid.entries()[:3])
    with pytest.raises(LogForked, match=r"has 3 entries and had signed for 4$"):
        await compare(two.bert, export(two.anna))
    assert not two.files["bert"]


async def test_a_file_is_taken_whole_or_not_at_all(two: Two) -> None:
    await make(two.anna, b"more")
    good = export(two.anna)
    other = sign_checkpoint(LOG_KEY, Checkpoint(origin_of(VolumeId(b"o" * 32)), 9, b"r" * 32))
    forged = sign_checkpoint(
        Identity.from_seed(b"f" * 32), Checkpoint(origin_of(two.grid.volume), 9, b"r" * 32)
    )
    before = [one.note for one in seen(two.bert)]
    for bad in (other, forged):
        with pytest.raises(MalformedRecord):
            await compare(two.bert, [*good, bad])
        assert [one.note for one in seen(two.bert)] == before


async def test_a_former_service_is_passed_over(two: Two) -> None:
    former = Identity.from_seed(b"f" * 32)
    note = sign_checkpoint(former, Checkpoint(origin_of(two.grid.volume), 2, b"r" * 32))
    done = await compare(two.bert, [note, *export(two.anna)], (former.public_key,))
    assert (done.agree, done.former) == (1, 1)


async def test_cosignatures_are_taken_over_of_members_only(two: Two) -> None:
    newest = export(two.anna)[-1]
    anna, stranger = member("anna"), member("stranger")
    for who in (anna, stranger):
        newest = cosign(who.identity, witness_of(who.member), newest, time_s=77)
    await compare(two.bert, [newest])
    assert seen(two.bert)[-1].cosigned == {anna.member: 77}
    for note in two.bert.follower.known_notes():
        names = {line.name for line in decode_note(note).signatures}
        assert names <= {origin_of(two.grid.volume), witness_of(anna.member)}


async def test_a_cosignature_that_does_not_verify_is_refused_from_others_and_passed_over_here(
    two: Two,
) -> None:
    anna, newest = member("anna"), export(two.anna)[-1]
    other = sign_checkpoint(LOG_KEY, Checkpoint(origin_of(two.grid.volume), 2, b"r" * 32))
    wrong = cosign(anna.identity, witness_of(anna.member), other, time_s=77)
    spoiled = newest + wrong.split(b"\n\n")[1].split(b"\n", 1)[1]
    with pytest.raises(MalformedRecord):
        await compare(two.bert, [spoiled])
    await two.bert.exchange([spoiled])  # as a service may show it
    assert seen(two.bert)[-1].cosigned == {}
    assert export(two.bert)[-1] == newest


async def test_evidence_of_others_convinces(two: Two) -> None:
    two.fork()
    await make(two.anna, b"on one side")
    await make(two.bert, b"on the other")
    his = export(two.bert)
    two.cut_off()
    with pytest.raises(LogForked):
        await compare(two.anna, his)
    (evidence,) = two.files["anna"]
    async with world() as strange:
        other = await strange.member("anna")
        with pytest.raises(MalformedRecord, match="not against the log service of this volume"):
            other.follower.take_evidence(evidence)
        assert not other.follower.refused
    with pytest.raises(MalformedRecord):
        two.bert.follower.take_evidence(evidence[:-1])
    assert "evidence: bert's file" in str(two.bert.follower.take_evidence(evidence))
    two.his.away = False
    with pytest.raises(LogForked, match="refused before"):
        await two.bert.sync()
    assert two.files["bert"] == [evidence]


async def test_what_was_seen_tells_when_the_last_entry_was_made(two: Two) -> None:
    await make(two.anna, b"now")
    newest = seen(two.anna)[-1]
    follower = two.anna.follower
    (folded,) = two.anna.view.entries(3, 4)
    assert entry_time_ns(follower, newest.checkpoint.size) == folded.meta.time_ns
    assert entry_time_ns(follower, 0) is None
    assert entry_time_ns(follower, 5) is None

"""A log service as a process: founding, appends, proofs, waiting, restart, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.e2e.node_processes import Running, running

from muniment.crypto.checkpoints import cosign, open_checkpoint, open_cosignatures
from muniment.crypto.entries import open_entry, volume_id
from muniment.errors import AccountRefused, AuthorChainBroken, InvalidRequest, NotMember, VolumeUnknown
from muniment.ids import EntryHash, VolumeId, id_text
from muniment.merkle.log_tree import check_consistency, check_inclusion
from muniment.net.log_client import HttpLogService
from muniment.node.compose import init_log
from muniment.node.config import LogConfig
from muniment.spec.checkpoint import origin_of, witness_of
from muniment.testing.log_author import LogAuthor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log") / "log"
    init_log(folder, LogConfig())
    return folder


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[Running]:
    with running("run_log", folder) as process:
        yield process
        assert process.stop() == 0


@asynccontextmanager
async def service(served: Running) -> AsyncIterator[HttpLogService]:
    client = HttpLogService(served.address)
    try:
        yield client
    finally:
        await client.aclose()


async def test_entries_are_ordered_and_proved(served: Running) -> None:
    author = LogAuthor.founder(1)
    async with service(served) as client:
        key = await client.public_key()
        note = await client.found(author.founding)
        log, origin = client.volume(author.volume), origin_of(author.volume)
        first = open_checkpoint(note, key, origin=origin)
        entries = [author.transaction(b"entry %d" % at) for at in range(20)]
        placed = await log.append(entries)
        assert [one.index for one in placed] == list(range(1, 21))
        newest = open_checkpoint(placed[-1].checkpoint, key, origin=origin)
        assert newest.size == 21
        assert await log.entries(0, 21) == [author.founding, *entries]
        path = await log.inclusion(7, 21)
        check_inclusion(open_entry(entries[6]).hash, 7, 21, path, newest.root)
        check_consistency(1, first.root, 21, newest.root, await log.consistency(1, 21))


async def test_an_entry_sent_twice_is_one(served: Running) -> None:
    author = LogAuthor.founder(2)
    async with service(served) as client:
        await client.found(author.founding)
        await client.found(author.founding)
        log = client.volume(author.volume)
        entry = author.transaction(b"once")
        assert {(await log.append([entry]))[0].index for _ in range(3)} == {1}
        assert {one.index for one in await log.append([entry, entry])} == {1}


async def test_eight_authors_of_volumes_at_once(served: Running) -> None:
    authors = [LogAuthor.founder(100 + at) for at in range(8)]
    async with service(served) as client:
        for author in authors:
            await client.found(author.founding)

        async def write(author: LogAuthor) -> int:
            log = client.volume(author.volume)
            for at in range(10):
                await log.append([author.transaction(b"%d" % at)])
            return len(await log.entries(0, 100))

        assert await asyncio.gather(*map(write, authors)) == [11] * 8


async def test_what_may_not_follow_is_refused_and_nothing_else(served: Running) -> None:
    author, stranger = LogAuthor.founder(3), LogAuthor.founder(4)
    async with service(served) as client:
        await client.found(author.founding)
        log = client.volume(author.volume)
        good, broken = author.transaction(b"good"), author.transaction(b"x", previous=EntryHash(b"p" * 32))
        with pytest.raises(AuthorChainBroken):
            await log.append([good, broken])
        assert (await log.append([good]))[0].index == 1
        with pytest.raises(NotMember):
            await log.append([replace(stranger, volume=author.volume).transaction(b"mine")])
        with pytest.raises(VolumeUnknown):
            await client.volume(VolumeId(b"v" * 32)).checkpoint()
        with pytest.raises(InvalidRequest):
            await log.inclusion(5, 99)


async def test_a_follower_waits_for_what_comes(served: Running) -> None:
    author = LogAuthor.founder(5)
    async with service(served) as client:
        key = await client.public_key()
        await client.found(author.founding)
        log = client.volume(author.volume)
        waiting = asyncio.create_task(log.wait_beyond(1, 20.0))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await log.append([author.transaction(b"news")])
        assert open_checkpoint(await waiting, key).size == 2
        assert open_checkpoint(await log.wait_beyond(2, 0.05), key).size == 2


async def test_a_member_cosigns_what_is_newest(served: Running) -> None:
    author, stranger = LogAuthor.founder(6), LogAuthor.founder(7)
    async with service(served) as client:
        old = await client.found(author.founding)
        log, me = client.volume(author.volume), author.secret.identity
        await log.append([author.transaction(b"x")])
        newest, name = await log.checkpoint(), witness_of(author.secret.member)
        await log.cosign(cosign(me, name, newest, time_s=9))
        assert open_cosignatures(await log.checkpoint(), {name: me.public_key}) == {name: 9}
        other = stranger.secret.identity
        theirs = cosign(other, witness_of(stranger.secret.member), newest, time_s=9)
        await log.cosign(theirs)
        assert open_cosignatures(await log.checkpoint(), {"muniment.witness/x": other.public_key}) == {}
        with pytest.raises(InvalidRequest):
            await log.cosign(cosign(me, name, old, time_s=9))


async def test_what_was_answered_is_there_after_a_kill(tmp_path: Path) -> None:
    folder, author = tmp_path / "log", LogAuthor.founder(8)
    init_log(folder, LogConfig())
    entries = [author.transaction(b"%d" % at) for at in range(5)]
    with running("run_log", folder) as process:
        async with service(process) as client:
            await client.found(author.founding)
            await client.volume(author.volume).append(entries)
        process.kill()
    with running("run_log", folder) as process:
        async with service(process) as client:
            log = client.volume(author.volume)
            assert await log.entries(0, 9) == [author.founding, *entries]
            assert (await log.append([author.transaction(b"more")]))[0].index == 6
        assert process.stop() == 0


async def test_only_founders_found(tmp_path: Path) -> None:
    folder, author, stranger = tmp_path / "log", LogAuthor.founder(9), LogAuthor.founder(10)
    init_log(folder, LogConfig(founders=[id_text(author.secret.member)]))
    with running("run_log", folder) as process:
        async with service(process) as client:
            await client.found(author.founding)
            with pytest.raises(AccountRefused):
                await client.found(stranger.founding)
            assert volume_id(author.founding) == author.volume

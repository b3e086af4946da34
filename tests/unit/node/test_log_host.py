"""The logs of one service: backup and restore while it runs, and a service that is restoring."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from muniment.crypto.checkpoints import open_checkpoint
from muniment.crypto.identity import Identity
from muniment.errors import ClockSkewed, StoreFailed, VolumeUnknown
from muniment.ids import id_text
from muniment.logs.sqlite import SqliteLog
from muniment.node.clock import SystemClock
from muniment.node.log_host import LogHost, backup_logs
from muniment.node.readings import log_readings
from muniment.ports import Appended
from muniment.testing.log_author import LogAuthor

KEY = Identity.from_seed(b"h" * 32)


class Later(SystemClock):
    """An hour after."""

    def now_s(self) -> float:
        return super().now_s() + 3600


def host(folder: Path, *, later: bool = False, restoring: bool = False) -> LogHost:
    clock = Later() if later else SystemClock()
    return LogHost(folder, KEY, clock, may_found=lambda _: True, volumes_max=10, restoring=restoring)


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[LogHost]:
    logs = host(tmp_path / "logs")
    yield logs
    await logs.aclose()


async def test_statistics_look_at_all_logs_and_know_the_length_of_those_that_are_open(
    served: LogHost, tmp_path: Path
) -> None:
    authors = [LogAuthor.founder(number) for number in (1, 2)]
    for author in authors:
        await served.found(author.founding)
    sequencer = await served.sequencer(authors[0].volume)
    await sequencer.append([authors[0].transaction(b"more")])
    told = served.statistics()
    assert told.entries == {authors[0].volume: 2, authors[1].volume: 1}
    assert told.volumes == 2
    assert told.file_bytes >= sum(path.stat().st_size for path in (tmp_path / "logs").glob("*.log"))
    await served.aclose()
    fresh = host(tmp_path / "logs")
    assert (fresh.statistics().volumes, fresh.statistics().entries) == (2, {})
    labels = {reading.labels["volume"] for reading in log_readings(told) if reading.name == "log_entries"}
    assert labels == {id_text(author.volume)[:12] for author in authors}, "the whole VolumeId is not for all"


async def test_a_backup_is_made_while_entries_come(served: LogHost, tmp_path: Path) -> None:
    author = LogAuthor.founder(1)
    sequencer = await served.found(author.founding)
    begun = asyncio.Event()

    async def write() -> None:
        for at in range(60):
            await sequencer.append([author.transaction(b"%d" % at)])
            if at == 5:
                begun.set()

    writing = asyncio.create_task(write())
    await begun.wait()
    answered = sequencer.store.size
    (copy,) = await asyncio.to_thread(backup_logs, tmp_path / "logs", tmp_path / "backup")
    await writing
    assert copy.name == f"{id_text(author.volume)}.log"
    store = SqliteLog(copy)
    assert answered <= store.size <= sequencer.store.size
    checkpoint = open_checkpoint(store.checkpoint(), KEY.public_key)
    assert checkpoint.size == store.size
    assert store.read(0, 99, bytes_max=1 << 20) == sequencer.store.read(0, store.size, bytes_max=1 << 20)
    store.close()


async def test_a_backup_serves_and_takes_the_rest_again(served: LogHost, tmp_path: Path) -> None:
    author = LogAuthor.founder(2)
    sequencer = await served.found(author.founding)
    backup_logs(tmp_path / "logs", tmp_path / "backup")
    entry = author.transaction(b"after the backup")
    await sequencer.append([entry])
    for restoring in (False, True):
        again = host(tmp_path / "backup", later=True, restoring=restoring)
        (outcome,) = await (await again.sequencer(author.volume)).append([entry])
        await again.aclose()
        assert isinstance(outcome, Appended if restoring else ClockSkewed)
    backup_logs(tmp_path / "logs", tmp_path / "backup")


async def test_a_better_backup_is_not_replaced(served: LogHost, tmp_path: Path) -> None:
    author = LogAuthor.founder(3)
    sequencer = await served.found(author.founding)
    backup_logs(tmp_path / "logs", tmp_path / "old")
    await sequencer.append([author.transaction(b"x")])
    backup_logs(tmp_path / "logs", tmp_path / "new")
    with pytest.raises(StoreFailed, match=r"has 1 entries, and its copy .* has 2"):
        backup_logs(tmp_path / "old", tmp_path / "new")
    with pytest.raises(VolumeUnknown):
        await served.sequencer(LogAuthor.founder(4).volume)

"""What a mount had sent when it was killed, and no entry names, is given up by the next, and nothing else."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.unit.fs.support import CHUNK, Mounted, Place, place
from tests.unit.fs.test_faults import Silent

from muniment.errors import DeadlineExceeded
from muniment.fs.options import Options
from muniment.fs.unsaved.sent import SentBlobs
from muniment.ids import ID_BYTES, BlobId
from muniment.spec.operation import ROOT

SHORT = Options(linger_s=0.0, deadline_s=0.2, strict=False)
KEPT, LOST = os.urandom(3 * CHUNK), os.urandom(3 * CHUNK)


@pytest.fixture
async def where(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    monkeypatch.setattr("muniment.engine.volume._PAUSE_S", 0.0)
    monkeypatch.setattr("muniment.fs.committing.committer._PAUSES_S", (0.01,))
    async with place() as made:
        yield made


def leased(where: Place) -> int:
    """Blobs on which the account has leases that it has not given up."""
    found = set()
    for node in where.fake.nodes:
        for leases in node.leases.values():
            found |= {key.blob for key, lease in leases.items() if not lease.trashed}
    return len(found)


def left_by_a_killed_one(sent: Path) -> Path:
    """The list as it is when its process dies now."""
    copy = sent.with_name("of-the-dead")
    copy.write_bytes(sent.read_bytes())
    return copy


async def killed(where: Place, folder: Path, data: bytes) -> tuple[Path, Path]:
    """A mount that has stored content and dies before the log has heard of it.

    Returns: its list, and what it would have kept if it had ended in order.
    """
    plain = where.world.log
    where.world.log = log = Silent(plain)
    here = await where.mount(SHORT, sent=folder / "sent")
    where.world.log = plain
    await here.write(await here.make(b"kept"), KEPT)
    log.stopped = True
    with pytest.raises(DeadlineExceeded):
        await here.write(await here.make(b"lost"), data)
    dead = left_by_a_killed_one(folder / "sent")
    kept = await here.files.aclose(folder)
    assert kept is not None
    return dead, kept.path


async def ended(here: Mounted, name: bytes = b"new") -> None:
    """The mount makes an entry and ends; whatever follows from that is over."""
    await here.make(name)
    await here.files.aclose()


async def content(where: Place, name: bytes) -> bytes:
    here = await where.mount()
    return await here.read(here.files.lookup(ROOT, name).inode)


async def test_what_was_stored_before_a_kill_and_never_named_is_given_up_by_the_next_mount(
    where: Place, tmp_path: Path
) -> None:
    dead, _ = await killed(where, tmp_path, LOST)
    assert leased(where) == 6
    here = await where.mount(sent=dead)
    here.files.give_up_left()
    await ended(here)
    assert leased(where) == 3
    assert dead.stat().st_size == 0
    assert await content(where, b"kept") == KEPT


async def test_what_is_saved_meanwhile_by_this_mount_or_another_stays(where: Place, tmp_path: Path) -> None:
    dead, _ = await killed(where, tmp_path, LOST)
    other = await where.mount()
    await other.write(await other.make(b"the same"), LOST[:CHUNK])
    here = await where.mount(sent=dead)
    here.files.give_up_left()
    await here.write(await here.make(b"again"), LOST[CHUNK : 2 * CHUNK])
    await ended(here)
    assert leased(where) == 5
    assert await content(where, b"the same") == LOST[:CHUNK]
    assert await content(where, b"again") == LOST[CHUNK : 2 * CHUNK]


async def test_nothing_is_given_up_before_this_mount_has_made_an_entry(where: Place, tmp_path: Path) -> None:
    dead, _ = await killed(where, tmp_path, LOST)
    here = await where.mount(sent=dead)
    here.files.give_up_left()
    assert await here.read(here.files.lookup(ROOT, b"kept").inode) == KEPT
    await here.files.aclose()
    assert leased(where) == 6
    assert dead.stat().st_size == 3 * ID_BYTES


async def test_what_is_brought_back_needs_what_was_sent(where: Place, tmp_path: Path) -> None:
    dead, unsaved = await killed(where, tmp_path, LOST)
    here = await where.mount(sent=dead)
    await here.files.unsaved.bring_back(unsaved)
    here.files.give_up_left()
    await ended(here)
    assert leased(where) == 6
    assert await content(where, b"lost") == LOST


async def test_while_a_node_says_nothing_it_stays_in_the_list(where: Place, tmp_path: Path) -> None:
    dead, _ = await killed(where, tmp_path, LOST)
    where.fake.nodes[0].faults.down = "no power"
    here = await where.mount(sent=dead)
    here.files.give_up_left()
    await ended(here)
    assert dead.stat().st_size == 3 * ID_BYTES
    where.fake.nodes[0].faults.down = None
    again = await where.mount(sent=dead)
    again.files.give_up_left()
    await ended(again, b"newer")
    assert leased(where) == 3


def test_the_list_stays_short(tmp_path: Path) -> None:
    path = tmp_path / "sent"
    sent = SentBlobs(path)
    lasting = BlobId(b"l" * ID_BYTES)
    sent.sending(lasting)
    for number in range(10_000):
        blob = BlobId(number.to_bytes(ID_BYTES, "big"))
        sent.sending(blob)
        sent.named([blob])
    assert path.stat().st_size < 200_000
    sent.close()
    with path.open("ab") as file:
        file.write(b"torn")
    again = SentBlobs(path)
    assert lasting in again.left
    assert path.stat().st_size % ID_BYTES == 0
    again.named(tuple(again.left))
    assert path.stat().st_size == 0
    assert path.stat().st_mode & 0o077 == 0
    again.close()


def test_without_a_disk_it_goes_on(tmp_path: Path) -> None:
    sent = SentBlobs(tmp_path / "missing" / "sent")
    sent.sending(BlobId(b"b" * ID_BYTES))
    sent.named([BlobId(b"b" * ID_BYTES)])
    sent.close()

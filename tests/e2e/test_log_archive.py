"""Log service and home are lost with their disks: the log comes back from the grid, with real processes."""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.e2e.node_processes import Running, running, running_introducer, running_node

from muniment.audit.report import Verdict
from muniment.crypto.identity import Identity
from muniment.engine.grid import Grid
from muniment.engine.opened import OpenVolume
from muniment.errors import LogForked, LogIncomplete
from muniment.net.server import free_port
from muniment.node import archives, auditing, compose, volumes
from muniment.node.compose import init_log
from muniment.node.config import LogConfig, NodeConfig
from muniment.node.volume_home import cap_of, make_identity
from muniment.spec.act import Quorum, Role, VolumePolicy
from muniment.spec.operation import ROOT, Kind, Make
from muniment.spec.transaction import Transaction
from muniment.spec.volume_cap import Right

POLICY = VolumePolicy(Quorum.ONE, 3600, "2/3", 2, 1 << 16)
FILES = {b"/small": b"a few words", b"/large": random.Random(4).randbytes(300_000)}


def unlocked() -> str:
    return ""


@contextlib.contextmanager
def grid_of_three(folder: Path) -> Iterator[Running]:
    """Three nodes and the introducer that knows them."""
    with contextlib.ExitStack() as stack:
        introducer = stack.enter_context(running_introducer(folder / "introducer"))
        config = NodeConfig(capacity_bytes=64 << 20, introducers=[str(introducer.address)])
        for number in range(3):
            stack.enter_context(running_node(folder / f"node{number}", config))
        yield introducer


def lasting_log(folder: Path) -> Path:
    """The folder of a log service that keeps its port."""
    init_log(folder, LogConfig(port=free_port("127.0.0.1")))
    return folder


class User:
    """A home, and the grid it uses."""

    def __init__(self, home: Path, roster: str) -> None:
        self.home, self.roster = home, roster

    def open_grid(self, account: Identity) -> contextlib.AbstractAsyncContextManager[Grid]:
        return compose.open_grid(self.home, self.roster, account=account)

    async def archive(self) -> archives.Archived:
        return await archives.archive_once(self.home, "books", self.open_grid, unlocked)

    async def rehost(self, text: str, folder: Path, *, incomplete: bool = False) -> archives.Rehosted:
        return await archives.rehost_from_grid(
            self.home, text, folder, self.open_grid, unlocked, incomplete=incomplete
        )

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[OpenVolume]:
        async with volumes.open_volume(self.home, "books", unlocked, self.roster) as opened:
            yield opened

    async def make(self, name: bytes) -> None:
        async with self.opened() as opened:
            change = Transaction((Make(ROOT, name, Kind.FOLDER, 0o755),))
            await opened.volume.commit(lambda _: change)

    async def put(self, content: dict[bytes, bytes]) -> None:
        async with volumes.open_files(self.home, "books", self.roster, unlocked) as (_, files):
            for path, data in content.items():
                await files.put(data, path)

    async def digests(self, folder: Path) -> dict[bytes, bytes]:
        found = {}
        async with volumes.open_files(self.home, "books", self.roster, unlocked) as (_, files):
            for path in FILES:
                target = folder / path.decode().strip("/")
                await files.get(path, target)
                found[path] = hashlib.sha256(target.read_bytes()).digest()
        return found


async def test_a_capability_and_a_roster_give_everything_back(tmp_path: Path) -> None:
    with grid_of_three(tmp_path) as introducer:
        roster = str(introducer.address)
        anna, bert = User(tmp_path / "anna", roster), User(tmp_path / "bert", roster)
        for user in (anna, bert):
            make_identity(user.home, "")
        with running("run_log", lasting_log(tmp_path / "old")) as old:
            await volumes.create_volume(
                anna.home, "books", str(old.address), POLICY, own_name="anna", passphrase=unlocked
            )
            async with anna.opened() as opened:
                invitation, cap = cap_of(opened, None), cap_of(opened, Right.WRITE)
            await volumes.join_volume(
                bert.home,
                invitation,
                name=None,
                role=Role.WRITER,
                own_name="bert",
                note="",
                passphrase=unlocked,
            )
            async with anna.opened() as opened:
                (joiner,) = opened.volume.membership.joins()
                await opened.members.accept(joiner)
            await anna.put(FILES)
            archived = await anna.archive()
            assert archived.standing.archived == archived.standing.size == 5
            async with bert.opened():
                pass
            # What comes after the last archive is at Bert's home only.
            await bert.make(b"late")
            old.kill()
        shutil.rmtree(tmp_path / "old")
        shutil.rmtree(anna.home)

        # On a new machine: nothing but the capability and the introducer's address.
        again = User(tmp_path / "again", roster)
        hosted = await again.rehost(cap, lasting_log(tmp_path / "new"))
        assert (hosted.entries, hosted.restored.troubles) == (5, [])
        assert hosted.kept is not None
        assert (hosted.kept.name, hosted.restored.missing) == ("books", None)
        with running("run_log", tmp_path / "new") as new:
            # Bert has seen more: he stays with what he has until it is there again.
            with pytest.raises(LogForked, match="lacks what was seen"):
                await volumes.move_volume(bert.home, "books", str(new.address), unlocked)
            assert new.stop() == 0
        added = await bert.rehost("books", tmp_path / "new")
        assert (added.entries, added.restored.own, added.kept) == (6, 6, None)
        with running("run_log", tmp_path / "new") as new:
            await volumes.move_volume(bert.home, "books", str(new.address), unlocked)
            (tmp_path / "back").mkdir()
            wanted = {path: hashlib.sha256(data).digest() for path, data in FILES.items()}
            assert await again.digests(tmp_path / "back") == wanted
            await again.make(b"written anew")
            async with bert.opened() as opened:
                names = {one.name for one in opened.volume.view.reading().children(ROOT, b"", 99)}
            assert names == {b"small", b"large", b"late", b"written anew"}
            report = await auditing.audit(again.home, "books", unlocked, None, deep=False)
            assert report.verdict is Verdict.CLEAN, report.text()
            # And the archive goes on where it was.
            standing = (await again.archive()).standing
            assert standing.archived == standing.size == 7
            assert new.stop() == 0


async def test_without_an_archive_nothing_is_hosted(tmp_path: Path) -> None:
    with grid_of_three(tmp_path) as introducer:
        anna = User(tmp_path / "anna", str(introducer.address))
        make_identity(anna.home, "")
        with running("run_log", lasting_log(tmp_path / "old")) as old:
            await volumes.create_volume(
                anna.home, "books", str(old.address), POLICY, own_name="anna", passphrase=unlocked
            )
            async with anna.opened() as opened:
                cap = cap_of(opened, Right.VERIFY)
        again = User(tmp_path / "again", anna.roster)
        with pytest.raises(LogIncomplete, match="all entries"):
            await again.rehost(cap, lasting_log(tmp_path / "new"), incomplete=True)
        assert not list((tmp_path / "new" / "logs").iterdir())

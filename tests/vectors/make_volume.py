"""Writes volume_v1.tar.gz and volume_v1.json: a whole volume as version 0.1.0 leaves it, and what is in it.

    home/            of Anna, its founder: identity, account, replica, view, checkpoints
    log/             of the log service
    node0/, node1/   two nodes with all shares, at coding 1/2

Run by hand, once for a new version (`python tests/vectors/make_volume.py`): released files never change.
Each run makes other keys and therefore another volume, with the same content.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hashlib
import io
import json
import os
import random
import tarfile
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from muniment.engine.opened import OpenVolume
from muniment.engine.volume_files import VolumeFiles
from muniment.errors import OperationRejected
from muniment.ids import id_text
from muniment.node import volumes
from muniment.node.compose import init_log, init_node, run_log, run_node
from muniment.node.config import LogConfig, NodeConfig, Times
from muniment.node.volume_home import cap_of, make_identity
from muniment.spec.act import Quorum, Role, VolumePolicy
from muniment.spec.operation import ROOT, Kind, Make, SetXattr, Truncate, Unlink
from muniment.spec.transaction import Transaction

ARCHIVE = Path(__file__).with_name("volume_v1.tar.gz")
EXPECTED = Path(__file__).with_name("volume_v1.json")
POLICY = VolumePolicy(Quorum.ONE, 3600, "1/2", 2, 1 << 16)
_TEN_YEARS_S: Final = 10 * 366 * 24 * 3600


def unlocked() -> str:
    """The fixture's identities have no passphrase."""
    return ""


def described(opened: OpenVolume, read: dict[str, bytes]) -> dict[str, Any]:
    """What stands in a volume now.

    Args:
        read: content of its files by path, in hex since names are bytes.
    """
    state, found = opened.volume.view.reading(), {}

    def walk(folder: int, above: bytes) -> None:
        for child in state.children(folder, b"", 1000):
            path, inode = above + child.name, state.inode(child.inode)
            assert inode is not None
            facts: dict[str, Any] = {
                "kind": inode.kind.name,
                "mode": inode.mode,
                "size": inode.size,
                "mtime_ns": inode.mtime_ns,
                "links": inode.links,
                "xattrs": {name.hex(): value.hex() for name, value in state.xattrs(inode.inode).items()},
            }
            if inode.kind is Kind.FILE:
                facts["sha256"] = hashlib.sha256(read[path.hex()]).hexdigest()
            found[path.hex()] = facts
            if inode.kind is Kind.FOLDER:
                walk(inode.inode, path + b"/")

    walk(ROOT, b"")
    return found


async def contents(files: VolumeFiles, *, at: int | None = None) -> dict[str, bytes]:
    """Every file by its path in hex."""
    found = {}
    for one in await files.walk(b"", at=at):
        if one.inode.kind is Kind.FILE:
            target = io.BytesIO()
            await files.get(one.path, target, at=at)
            found[one.path.hex()] = target.getvalue()
    return found


Ready = Callable[[Any], None]
Run = Callable[[Path, Ready, asyncio.Event], Coroutine[Any, Any, None]]


@contextlib.asynccontextmanager
async def served(run: Run, folder: Path) -> AsyncIterator[str]:
    """What is in a folder, running in this process; its address."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    task: asyncio.Task[None] = asyncio.create_task(
        run(folder, lambda address: ready.set_result(str(address)), stop)
    )
    both: set[asyncio.Future[Any]] = {task, ready}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()  # it could not start
    try:
        yield ready.result()
    finally:
        stop.set()
        await task


def _node(folder: Path, ready: Ready, stop: asyncio.Event) -> Coroutine[Any, Any, None]:
    return run_node(folder, ready=ready, stop=stop)


def _log(folder: Path, ready: Ready, stop: asyncio.Event) -> Coroutine[Any, Any, None]:
    return run_log(folder, ready=ready, stop=stop)


def _make_source(source: Path) -> None:
    """A folder with small files, links and nothing else."""
    (source / "notes").mkdir(parents=True)
    for at in range(5):
        (source / "notes" / f"{at}").write_text(f"line {at}\n" * 400)
    (source / "letter").write_text("Dear reader,\n")
    (source / "empty").mkdir()
    (source / "link").symlink_to("notes/3")
    os.link(source / "notes" / "1", source / "again")
    for path in sorted(source.rglob("*"), reverse=True):
        os.utime(path, ns=(10**18, 10**18 + 7), follow_symlinks=False)


async def _fill(home: Path, roster: str, source: Path) -> None:
    """Every kind of file, with history."""
    noise = random.Random(1)
    _make_source(source)
    async with volumes.open_files(home, "books", roster, unlocked) as (opened, files):
        await files.put_tree(source, b"tree", message="the beginning")
        await files.put(noise.randbytes(9000), b"ledger", mode=0o600, mtime_ns=10**18)
        await files.put(noise.randbytes(70_000), b"ledger")
        await files.write(b"ledger", 100, b"in its middle" * 200)
        await files.snapshot(b"first")
        volume = opened.volume
        names = [b"\xff not utf-8", "Ärger \N{SNOWMAN}".encode(), b"sparse", b"pipe"]
        kinds = [Kind.FILE, Kind.FILE, Kind.FILE, Kind.FIFO]
        await volume.commit(
            lambda _: Transaction(
                tuple(Make(ROOT, name, kind, 0o640, 5, 6, 1) for name, kind in zip(names, kinds, strict=True))
            )
        )
        sparse = (await files.find(b"sparse")).inode
        await volume.commit(
            lambda _: Transaction(
                (Truncate(sparse, None, 300_000), SetXattr(sparse, b"user.why", b"\0holes\xff"))
            )
        )
        await files.write(b"sparse", 200_000, b"not a hole")
        await files.move(b"tree/notes/4", b"tree/moved")
        await files.remove(b"tree/notes/0")
        with contextlib.suppress(OperationRejected):  # stands in the log, and changed nothing
            await volume.commit(lambda _: Transaction((Unlink(ROOT, b"nothing", 999),)))


async def _members(home: Path, roster: str, folder: Path) -> None:
    """One who writes, one who is removed, and what is written after that."""
    others = {"bert": Role.WRITER, "carl": Role.READER}
    async with volumes.open_volume(home, "books", unlocked) as opened:
        invitation = cap_of(opened, None)
    for name, role in others.items():
        make_identity(folder / name, "")
        await volumes.join_volume(
            folder / name, invitation, name=None, role=role, own_name=name, note="", passphrase=unlocked
        )
        async with volumes.open_volume(home, "books", unlocked) as opened:
            (joiner,) = opened.volume.membership.joins()
            await opened.members.accept(joiner)
    async with volumes.open_files(folder / "bert", "books", roster, unlocked) as (_, files):
        await files.put(b"by bert " * 1000, b"of bert")
    async with volumes.open_files(home, "books", roster, unlocked) as (opened, files):
        held = opened.volume.membership.members
        carl = next(member for member in held if held[member].card.name == "carl")
        await opened.members.kick(carl)
        await files.put(b"not for carl " * 1000, b"after")
        await files.snapshot_view(opened.known.folder)
        await files.make_folder(b"last")


async def make(folder: Path) -> dict[str, Any]:
    """Make the volume in an empty folder; returns what is in it."""
    home = folder / "home"
    make_identity(home, "")
    init_log(folder / "log", LogConfig())
    for at in range(2):
        init_node(folder / f"node{at}", NodeConfig(capacity_bytes=1 << 24, times=Times(lease_s=_TEN_YEARS_S)))
    async with contextlib.AsyncExitStack() as stack:
        log = await stack.enter_async_context(served(_log, folder / "log"))
        nodes = [await stack.enter_async_context(served(_node, folder / f"node{at}")) for at in range(2)]
        roster = folder / "roster"
        roster.write_text("".join(f"{node}\n" for node in nodes))
        await volumes.create_volume(home, "books", log, POLICY, own_name="anna", passphrase=unlocked)
        await _fill(home, str(roster), folder / "source")
        await _members(home, str(roster), folder)
        async with volumes.open_files(home, "books", str(roster), unlocked) as (opened, files):
            ((_, snapshot),) = opened.volume.view.snapshots()
            now, then = await contents(files), await contents(files, at=snapshot)
            return {
                "volume": id_text(opened.volume.id),
                "entries": opened.volume.view.size,
                "epoch": opened.volume.membership.epoch,
                "members": sorted(one.card.name for one in opened.volume.membership.members.values()),
                "state_hash": opened.volume.view.state_hash().digest().hex(),
                "files": described(opened, now),
                "snapshot": snapshot,
                "then": {path: hashlib.sha256(data).hexdigest() for path, data in then.items()},
            }


def pack(folder: Path) -> bytes:
    """The folders of the fixture as one archive, with no more of this machine in it than must be."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = ""
        return member

    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("home", "log", "node0", "node1"):
            archive.add(folder / name, name, filter=plain)
    return gzip.compress(packed.getvalue(), 9, mtime=0)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        expected = asyncio.run(make(Path(made)))
        ARCHIVE.write_bytes(pack(Path(made)))
    EXPECTED.write_text(json.dumps(expected, indent=1) + "\n")

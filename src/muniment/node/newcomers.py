"""The composition root's part for who is new to a volume on this machine: little of its log, or all of it.

begin          with a view snapshot instead of the log's first entry, if there is one in reach
ask_to_join    a wish to join, without following the log
fetch_whole    the log from its first entry, for who began with a snapshot
"""

from __future__ import annotations

import asyncio
import os
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from muniment.core.beginning import clear_end
from muniment.core.clear_part import load_clear
from muniment.core.tree_state import StoredExtent
from muniment.crypto.checkpoints import open_checkpoint
from muniment.crypto.member import MemberSecret, ReadSecret, VerifySecret
from muniment.engine.follower import Follower
from muniment.engine.members import join_entry
from muniment.engine.opened import Holding, KnownVolume
from muniment.engine.view_snapshot import LOG_ENTRIES_MIN, Newcomer
from muniment.engine.volume import Volume
from muniment.errors import EntryRefused, LogForked, StoreFailed
from muniment.logs.checkpoints import FolderCheckpoints
from muniment.logs.clear_file import FileClear
from muniment.logs.sqlite import SqliteLog
from muniment.merkle.log_tree import Frontier
from muniment.node.clock import SystemClock
from muniment.node.volume_home import CHECKPOINTS_FOLDER, REPLICA_FILE, VIEW_FILE, keep_evidence, refused
from muniment.ports import LogClient
from muniment.spec.act import Role
from muniment.spec.checkpoint import origin_of
from muniment.views.sqlite import SqliteView

CLEAR_FILE: Final = "log.clear"
_WHOLE_FOLDER: Final = "whole"
_COMPANIONS: Final = ("-wal", "-shm")


def open_follower(
    known: KnownVolume,
    secret: ReadSecret | VerifySecret,
    stack: ExitStack,
    *,
    folder: Path | None = None,
) -> Follower:
    """What a home has of a volume; the folder is locked.

    Args:
        stack: closes what was opened, if the follower cannot be made.
        folder: with replica, view and checkpoints of one who works beside others; None: the volume's own.
    """
    own = folder or known.folder
    return _follower(known, own, secret, stack, own / CHECKPOINTS_FOLDER)


def _follower(
    known: KnownVolume,
    folder: Path,
    secret: ReadSecret | VerifySecret,
    stack: ExitStack,
    checkpoints_folder: Path,
) -> Follower:
    """Of the replica and view in a folder, which may be the volume's own."""
    replica = SqliteLog(folder / REPLICA_FILE)
    stack.callback(replica.close)
    if replica.size == 0:
        # Of a beginning that was cut short: nothing can be folded onto it.
        _remove(folder / VIEW_FILE)
    view = SqliteView(folder / VIEW_FILE)
    stack.callback(view.close)
    checkpoints = FolderCheckpoints(checkpoints_folder)
    stack.callback(checkpoints.close)
    return Follower(
        known.volume,
        secret,
        known.log_key,
        replica,
        view,
        checkpoints=checkpoints,
        evidence_sink=partial(keep_evidence, known),
        refused=refused(known),
        clear=FileClear(folder / CLEAR_FILE),
    )


async def begin(known: KnownVolume, volume: Volume, log: LogClient, home: Path, roster: str | None) -> None:
    """Begin with a view snapshot, if the log is long and has one in reach; what is wrong with it is logged.

    Raises: LogForked; DiskFull, StoreFailed, FileFailed.
    """

    async def fetch(extents: tuple[StoredExtent, ...], file: BinaryIO) -> None:
        # Slow to import, and only a newcomer needs it.
        from muniment.engine.snapshot_content import fetching
        from muniment.node import compose

        async with compose.open_grid(home, roster) as grid:
            await fetching(grid)(extents, file)

    await Newcomer(volume.follower, log, volume.run, fetch, known.folder).begin()


async def ask_to_join(
    known: KnownVolume, secret: MemberSecret, log: LogClient, own_name: str, role: Role, note: str
) -> str | None:
    """Ask for membership of a volume whose log is long, by its clear part alone.

    Returns: the volume's own name; None: its log is short, or he has been there before; follow it.
    Raises: MalformedRecord: the clear part is not that of the log; as `LogClient`.
    """
    checkpoint_note, data = await log.clear_part()
    checkpoint = open_checkpoint(checkpoint_note, known.log_key, origin=origin_of(known.volume))
    if checkpoint.size < LOG_ENTRIES_MIN:
        return None
    part = load_clear(data)
    end = await asyncio.to_thread(
        clear_end, checkpoint_note, checkpoint.size, checkpoint.root, part, known.volume
    )
    if end.membership.tail(secret.member).sequence:
        return None
    signed = join_entry(end.membership, checkpoint, secret, own_name, role, note, SystemClock())
    try:
        await log.append([signed])
    except EntryRefused:
        return None  # keys were changed meanwhile, or whatever it is: who follows sees why
    checkpoints = FolderCheckpoints(known.folder / CHECKPOINTS_FOLDER)
    try:
        checkpoints.keep(checkpoint.size, checkpoint_note)
        checkpoints.flush()
    finally:
        checkpoints.close()
    return end.membership.name


async def fetch_whole(known: KnownVolume, held: Holding, log: LogClient) -> int:
    """Have the whole log instead of its end, verified and folded from its first entry; durable on return.

    The folder is locked.  Broken off, what was fetched stays, and the next call goes on there.
    Returns: how many entries are here then; 0: the whole log was here already.
    Raises: LogForked: it is not the log of which the end is here; as `LogClient`; DiskFull, StoreFailed.
    """
    start, size, root = _present(known.folder)
    if not start:
        return 0
    folder = known.folder / _WHOLE_FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    secret = held.read if isinstance(held, MemberSecret) else held
    with ExitStack() as stack:
        kept = known.folder / CHECKPOINTS_FOLDER
        follower = await asyncio.to_thread(_follower, known, folder, secret, stack, kept)
        stack.pop_all()
    volume = Volume(follower, None, log, SystemClock(), os.urandom)
    try:
        await volume.sync()
        entries = follower.frontier.size
        if entries < size or await volume.run(lambda: follower.root(size)) != root:
            raise LogForked(
                volume=known.volume, reason=f"the whole log is not that of the {size} entries here"
            )
    finally:
        await volume.aclose()
    # The log first: to a whole one any view fits, also one that begins later.
    for name in (REPLICA_FILE, VIEW_FILE, CLEAR_FILE):
        _replace(folder / name, known.folder / name)
    _remove_folder(folder)
    return entries


def _present(folder: Path) -> tuple[int, int, bytes]:
    """First entry, size and root of what a home has; the first is 0 if log and view are whole."""
    replica = SqliteLog(folder / REPLICA_FILE)
    try:
        view = SqliteView(folder / VIEW_FILE)
        try:
            start = max(replica.start, view.start)
        finally:
            view.close()
        return start, replica.size, Frontier.at(replica.size, replica.node).root()
    finally:
        replica.close()


def _replace(new: Path, old: Path) -> None:
    try:
        for tail in _COMPANIONS:
            old.with_name(old.name + tail).unlink(missing_ok=True)
        if new.exists():
            new.replace(old)
    except OSError as error:
        raise StoreFailed(where=str(old), reason=error.strerror or str(error)) from error


def _remove(path: Path) -> None:
    for tail in ("", *_COMPANIONS):
        path.with_name(path.name + tail).unlink(missing_ok=True)


def _remove_folder(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()

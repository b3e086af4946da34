"""The composition root's part for witnesses: which logs, keys and files make one, and a process of them.

volumes/<VolumeId>/cosigned/    what this home has cosigned of a volume's log; one process at a time

A witness reads what the home has seen of a log otherwise, and whether it is refused, and writes neither: so
other commands on the same volume go on meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from muniment.crypto.member import MemberSecret
from muniment.engine.opened import LOCAL, KnownVolume, right_of
from muniment.engine.witness import Cosigned, Trouble, Witness
from muniment.errors import InvalidRequest, LogForked, MunimentError, NotCapable
from muniment.logs.checkpoints import FolderCheckpoints
from muniment.node import volumes
from muniment.node.clock import SystemClock
from muniment.node.compose import stop_signals
from muniment.node.folder import FolderLock
from muniment.node.volume_home import (
    CHECKPOINTS_FOLDER,
    Passphrase,
    find_volume,
    holding,
    keep_evidence,
    refused,
)

COSIGNED_FOLDER: Final = "cosigned"

Tell = Callable[[KnownVolume, Cosigned | Trouble], None]


@dataclass(slots=True)
class _Post:
    """A witness at its log."""

    known: KnownVolume
    witness: Witness

    async def once(self, tell: Tell) -> None:
        """Cosign the newest checkpoint, or tell why not.  Raises: nothing of ours."""
        try:
            done: Cosigned | Trouble = await self.witness.cosign_newest()
        except MunimentError as error:
            done = Trouble(error, None)
        tell(self.known, done)

    async def run(self, tell: Tell) -> bool:
        """Cosign until the log is refused; returns that it is.  Raises: as `Witness.run`."""
        forked: LogForked = await self.witness.run(partial(tell, self.known))
        tell(self.known, Trouble(forked, None))
        return True


async def cosign_once(home: Path, names: Sequence[str], passphrase: Passphrase, tell: Tell) -> None:
    """Cosign the newest checkpoint of each of these volumes' logs; told of each, good or bad.

    Raises: as `run_witness`, before anything is cosigned.
    """
    async with contextlib.AsyncExitStack() as stack:
        posts = await _posts(stack, home, names, passphrase)
        async with asyncio.TaskGroup() as tasks:
            for post in posts:
                tasks.create_task(post.once(tell))


async def run_witness(
    home: Path,
    names: Sequence[str],
    passphrase: Passphrase,
    tell: Tell,
    *,
    stop: asyncio.Event | None = None,
) -> bool:
    """Cosign the logs of these volumes until SIGTERM, SIGINT or `stop`, or until all of them are refused.

    Returns: whether one is refused.
    Raises: VolumeUnknown, PassphraseWrong; NotCapable: a capability that cannot sign; InvalidRequest: the
        log is on this machine only; FolderBusy: another witness of this home has one of them; StoreFailed,
        DiskFull: this machine cannot keep what it has seen.
    """
    async with contextlib.AsyncExitStack() as stack:
        stopping = stop_signals(stack, stop)
        posts = await _posts(stack, home, names, passphrase)
        async with asyncio.TaskGroup() as tasks:
            stopped = tasks.create_task(stopping.wait(), name="wait for the end")
            running = [tasks.create_task(post.run(tell), name=f"witness {post.known.name}") for post in posts]
            pending: set[asyncio.Task[bool]] = {stopped, *running}
            while stopped in pending and len(pending) > 1:
                _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in pending:
                task.cancel()
        return any(task.done() and not task.cancelled() and task.result() for task in running)


async def _posts(
    stack: contextlib.AsyncExitStack, home: Path, names: Sequence[str], passphrase: Passphrase
) -> list[_Post]:
    found = {known.volume: known for known in (find_volume(home, name) for name in names)}
    return [await _post(stack, home, known, passphrase) for known in found.values()]


async def _post(
    stack: contextlib.AsyncExitStack, home: Path, known: KnownVolume, passphrase: Passphrase
) -> _Post:
    if known.log == LOCAL:
        raise InvalidRequest(reason=f"the log of {known.name!r} is on this machine only: nobody else sees it")
    held = holding(home, known, passphrase)
    if not isinstance(held, MemberSecret):
        raise NotCapable(needed="volume write", given=f"volume {right_of(held).value}")
    folder = known.folder / COSIGNED_FOLDER
    cosigned = FolderCheckpoints(folder)
    stack.callback(cosigned.close)
    stack.callback(FolderLock(folder).close)
    seen = FolderCheckpoints(known.folder / CHECKPOINTS_FOLDER)
    stack.callback(seen.close)
    service = await stack.enter_async_context(volumes.log_service(home, known.log))
    witness = Witness(
        known.volume,
        held.identity,
        service.client(known.volume),
        known.log_key,
        cosigned,
        SystemClock(),
        seen=seen,
        evidence_sink=partial(keep_evidence, known),
        refused=partial(refused, known),
    )
    return _Post(known, witness)

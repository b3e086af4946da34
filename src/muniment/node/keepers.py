"""The composition root's part for keepers: which logs, accounts and files make one, and a process of them.

volumes/<VolumeId>/keeper/     a replica of the log, checkpoints and the blob book; one process at a time
queue.sqlite                   what all keepers of the home have to do

A keeper has a replica of its own, so that other commands on the same volume go on meanwhile, and the verify
right only: whatever the home holds is weakened before anything is opened with it.  Where the home holds a
member's key, that key signs reports, and nothing else; the home's own account gives up its leases on what it
stored and the keeper has.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from muniment.books.sqlite import SqliteBlobBook
from muniment.core.keeping.job import KindCount
from muniment.crypto.identity import Identity
from muniment.crypto.keeping import archive_account, keeper_account
from muniment.crypto.member import MemberSecret, VerifySecret
from muniment.durable_file import failed
from muniment.engine.follower import Follower
from muniment.engine.keeping.archive import ArchiveDuties, LogArchiver
from muniment.engine.keeping.duties import Duties
from muniment.engine.keeping.keeper import Keeper
from muniment.engine.keeping.named import NamedByLog
from muniment.engine.keeping.reports import Reporter
from muniment.engine.keeping.work import Worker
from muniment.engine.opened import LOCAL, Holding, KnownVolume, verify_secret_of
from muniment.engine.volume import Volume
from muniment.ids import AccountId, BlobId, MemberId
from muniment.logs.checkpoints import FolderCheckpoints
from muniment.logs.sqlite import SqliteLog
from muniment.node import compose, volumes
from muniment.node.archives import OpenGrid, open_archiver
from muniment.node.clock import SystemClock
from muniment.node.folder import FolderLock
from muniment.node.home import ACCOUNT_FILE, account_identity
from muniment.node.home_queue import open_queue
from muniment.node.readings import keeper_readings
from muniment.node.shared_log import SharedLocalLog
from muniment.node.volume_home import Passphrase, find_volume, holding, keep_evidence, refused
from muniment.ports import LogClient, Sighting
from muniment.views.memory import MemoryView

KEEPER_FOLDER: Final = "keeper"
_LOG_FILE: Final = "log.sqlite"
_CHECKPOINTS_FOLDER: Final = "checkpoints"
_BOOK_FILE: Final = "book.sqlite"

_AT_ONCE: Final = 32
"""Repairs that share a look at the nodes; how many are rebuilt at a time, the memory for that decides."""


@dataclass(frozen=True, slots=True)
class Post:
    """A keeper at its volume.

    Attributes:
        known: the volume.
        keeper: does it.
        archiver: puts the log on the grid.
        account: whose leases the keeper takes.
        reporter: writes on the log what was done; None: the home holds no key that could sign it.
    """

    known: KnownVolume
    keeper: Keeper
    archiver: LogArchiver
    account: AccountId
    reporter: Reporter | None

    async def begin(self, worker: Worker) -> None:
        """Add the jobs that go on for ever."""
        await self.keeper.begin()
        await self.archiver.begin(worker)


Tell = Callable[[Post], None]


def accounts_of(home: Path, name: str, passphrase: Passphrase) -> list[tuple[str, Identity]]:
    """The accounts under which this home keeps a volume: of its content, and of its log's archive.

    Raises: VolumeUnknown, PassphraseWrong.
    """
    known = find_volume(home, name)
    secret = verify_secret_of(holding(home, known, passphrase))
    return [
        ("keeper", keeper_account(secret, known.volume)),
        ("archive", archive_account(secret, known.volume)),
    ]


def sightings(known: KnownVolume, blobs: Sequence[BlobId]) -> list[list[Sighting]]:
    """What a keeper of this home remembers of each blob's shares, also while it runs.

    Raises: UnknownVersion, StoreFailed.
    """
    path = known.folder / KEEPER_FOLDER / _BOOK_FILE
    if not path.exists():
        return [[] for _ in blobs]
    with contextlib.closing(SqliteBlobBook(path)) as book:
        return book.sightings(blobs)


async def keep_once(
    home: Path, names: Sequence[str], open_grid: OpenGrid, passphrase: Passphrase, duties: Duties
) -> list[tuple[Post, KindCount]]:
    """Scan each volume once, and do all that is due; returns what was done, and the repairs still open.

    Of the log everything is archived, whatever its age.

    Raises: VolumeUnknown, PassphraseWrong; LogForked; RosterEmpty; FolderBusy: another keeper of this home
        has one of them; StoreFailed, DiskFull.
    """
    async with contextlib.AsyncExitStack() as stack:
        at_once = ArchiveDuties(interval_s=0.0)
        worker, posts = await _posts(stack, home, names, open_grid, passphrase, duties, at_once)
        for post in posts:
            await post.begin(worker)
        await worker.flush()
        for post in posts:  # once more: what was done may have been reported on the log meanwhile
            await post.archiver.begin(worker)
        await worker.flush()
        kinds = (await worker.status()).kinds
        return [(post, kinds.get(post.keeper.repairs, KindCount(0, 0))) for post in posts]


async def run_keepers(
    home: Path,
    names: Sequence[str],
    open_grid: OpenGrid,
    passphrase: Passphrase,
    duties: Duties,
    tell: Tell,
    *,
    metrics: str = "",
    stop: asyncio.Event | None = None,
) -> None:
    """Keep these volumes until SIGTERM, SIGINT or `stop`; what is under way then goes on at the next start.

    Args:
        tell: told after each scan.
        metrics: `host:port` where the keepers' metrics are served; empty for nowhere.
    Raises: as `keep_once`; ConfigInvalid: nothing can be served there.
    """
    async with contextlib.AsyncExitStack() as stack:
        stopping = compose.stop_signals(stack, stop)
        worker, posts = await _posts(stack, home, names, open_grid, passphrase, duties)
        if metrics:
            queue = stack.enter_context(open_queue(home))
            await compose.serve_metrics(stack, metrics, lambda: keeper_readings(posts, queue.counts()))
        for post in posts:
            post.keeper.scanned = partial(tell, post)
            await post.begin(worker)
        tasks = {
            asyncio.create_task(worker.run(), name="keeper"),
            asyncio.create_task(stopping.wait(), name="wait for the end"),
            *(asyncio.create_task(post.keeper.watch(), name="watch the nodes") for post in posts),
        }
        try:
            ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)


async def _posts(
    stack: contextlib.AsyncExitStack,
    home: Path,
    names: Sequence[str],
    open_grid: OpenGrid,
    passphrase: Passphrase,
    duties: Duties,
    archive: ArchiveDuties | None = None,
) -> tuple[Worker, list[Post]]:
    queue = stack.enter_context(open_queue(home, make=True))
    chance = random.SystemRandom().random
    worker = Worker(queue, clock=SystemClock(), chance=chance, parallel=_AT_ONCE)
    found = {known.volume: known for known in (find_volume(home, name) for name in names)}
    posts = []
    for known in found.values():
        held = holding(home, known, passphrase)
        post = _post(home, known, held, open_grid, worker, duties, archive)
        posts.append(await stack.enter_async_context(post))
    return worker, posts


@contextlib.asynccontextmanager
async def _post(
    home: Path,
    known: KnownVolume,
    held: Holding,
    open_grid: OpenGrid,
    worker: Worker,
    duties: Duties,
    archive: ArchiveDuties | None,
) -> AsyncIterator[Post]:
    folder = known.folder / KEEPER_FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise failed(folder, error) from error
    secret = verify_secret_of(held)
    account = keeper_account(secret, known.volume)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(FolderLock(folder).close)
        book = stack.enter_context(contextlib.closing(SqliteBlobBook(folder / _BOOK_FILE)))
        client = await _log_clients(stack, home, known)
        log, reports_log = client(), client()
        stack.push_async_callback(reports_log.aclose)
        follower = await asyncio.to_thread(_follower, known, folder, secret)
        volume = Volume(follower, None, log, SystemClock(), os.urandom)
        stack.push_async_callback(volume.aclose)
        grid = await stack.enter_async_context(open_grid(account))
        keeper = Keeper(NamedByLog(volume), grid, book, worker, SystemClock(), secret.member, duties)
        archiver = await open_archiver(stack, volume, secret, open_grid, archive)
        archiver.register(worker)
        reporter = None
        if isinstance(held, MemberSecret):
            reporter = Reporter(
                keeper,
                book,
                volume,
                held,
                reports_log,
                SystemClock(),
                os.urandom,
                archived=lambda: 0 if archiver.standing is None else archiver.standing.archived,
                reported=await _handing_over(stack, home, known, volume, held.member, open_grid),
            )
            reporter.register(worker)
        yield Post(known, keeper, archiver, account.account, reporter)


async def _handing_over(
    stack: contextlib.AsyncExitStack,
    home: Path,
    known: KnownVolume,
    volume: Volume,
    member: MemberId,
    open_grid: OpenGrid,
) -> Callable[[], Awaitable[None]] | None:
    """What leaves to the keeper what the same home stored; None: it has stored nothing yet."""
    if not (home / ACCOUNT_FILE).exists():
        return None
    grid = await stack.enter_async_context(open_grid(account_identity(home)))
    return partial(volumes.hand_over_kept, known, volume, member, grid)


async def _log_clients(
    stack: contextlib.AsyncExitStack, home: Path, known: KnownVolume
) -> Callable[[], LogClient]:
    """What makes clients of the volume's log, each its owner's to close."""
    if known.log == LOCAL:
        return partial(SharedLocalLog, home, known)
    service = await stack.enter_async_context(volumes.log_service(home, known.log))
    return partial(service.client, known.volume)


def _follower(known: KnownVolume, folder: Path, secret: VerifySecret) -> Follower:
    with contextlib.ExitStack() as stack:
        replica = stack.enter_context(contextlib.closing(SqliteLog(folder / _LOG_FILE)))
        checkpoints = stack.enter_context(contextlib.closing(FolderCheckpoints(folder / _CHECKPOINTS_FOLDER)))
        follower = Follower(
            known.volume,
            secret,
            known.log_key,
            replica,
            MemoryView(),  # nothing is ever folded into it: that takes the read right
            checkpoints=checkpoints,
            evidence_sink=partial(keep_evidence, known),
            refused=refused(known),
        )
        stack.pop_all()  # the follower closes them
        return follower

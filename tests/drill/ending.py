"""After the last fault: everything runs again, nothing is missing, nothing is left over."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import psutil
from tests.drill.client import VOLUME, Target
from tests.drill.content import Register, fingerprint, registers
from tests.drill.journal import Line, read_journal
from tests.drill.place import RESERVATION_S, Place
from tests.drill.service import Service

from muniment.audit.report import Verdict
from muniment.engine.volume_files import VolumeFiles
from muniment.errors import MunimentError, PathUnknown
from muniment.ids import AccountId, BlobId, ShareKey, ShareNumber, id_from_text
from muniment.node import compose, keepers, volumes
from muniment.node.main import Root
from muniment.ports import VolumeView
from muniment.spec.limits import LIST_SHARES_MAX
from muniment.spec.share import BlobShape

Stored = dict[str, list[tuple[int, str]]]

_AT_ONCE: Final = 4
_LOOK_S: Final = 0.2
_UNFINISHED: Final = ("*.partial", "*.new", "*.tmp")


@dataclass
class Ending:
    """What was found.

    Attributes:
        problems: one sentence each; none: all is well.
        whole_s: from the last fault until all blobs were whole.
        shares: on the nodes, by what they are kept for.
    """

    problems: list[str] = field(default_factory=list)
    whole_s: float | None = None
    shares: Counter[str] = field(default_factory=Counter)
    blobs: int = 0
    versions: int = 0
    read_bytes: int = 0


class End:
    """Ends a drill."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self.found = Ending()

    async def run(self) -> Stored:
        """Bring everything to its end; returns what the volume has of each register."""
        place, found = self._place, self.found
        await asyncio.gather(*map(self._ended, place.members))
        found.whole_s = await place.watch.whole(place.shape.heal_s)
        if found.whole_s is None:
            found.problems.append("full redundancy did not come back: look at keeper.out and 'muni queue'")
        stored = await self._read_again()
        await self._states()
        await self._audits()
        await self._reservations()
        await self._give_up()
        await self._settled()
        for services in ([place.keeper], place.nodes.values(), [place.log, place.introducer]):
            await asyncio.gather(*map(self._end, services))
        place.relay.kill()
        await asyncio.to_thread(self._count_shares)
        await asyncio.to_thread(self._look_for_leftovers)
        return stored

    async def _end(self, service: Service) -> None:
        if code := await service.end():
            self.found.problems.append(f"{service.name} ended with {code} when it was asked to end")

    async def _ended(self, member: str) -> None:
        """A client ends after its operation, with no thread and no task left."""
        code = await self._place.members[member].end()
        *_, last = await asyncio.to_thread(read_journal, self._place.journal(member))
        if code or last["what"] != "end" or last["threads"] or last["tasks"]:
            self.found.problems.append(f"{member} ended with {code}, and noted last {last}")

    # --- the volume

    async def _read_again(self) -> Stored:
        """Every version of every register, by the state after its entry."""
        stored: Stored = {}
        reader = self._place.shape.readers[0]
        async with self._opened(reader) as files:
            places = asyncio.Semaphore(_AT_ONCE)

            async def one(register: Register, index: int) -> tuple[int, str]:
                async with places:
                    return index, await self._print(files, register, index)

            for register in registers(self._place.shape.writers):
                try:
                    history = await files.history(register.files[0])
                except PathUnknown:
                    continue
                versions = [version.index for version in history]
                stored[register.name] = list(await asyncio.gather(*(one(register, at) for at in versions)))
                self.found.versions += len(versions)
        return stored

    async def _print(self, files: VolumeFiles, register: Register, index: int) -> str:
        parts = []
        for path in register.files:
            target = Target()
            try:
                await files.get(path, target, at=index)
            except MunimentError as error:
                self.found.problems.append(f"{path.decode()} as of entry {index} cannot be read: {error}")
            parts.append(bytes(target.data))
        self.found.read_bytes += sum(map(len, parts))
        return fingerprint(parts)

    @contextlib.asynccontextmanager
    async def _opened(self, member: str) -> AsyncIterator[VolumeFiles]:
        opening = volumes.open_files(self._place.home(member), VOLUME, self._place.roster, lambda: "")
        async with opening as (_, files):
            yield files

    async def _states(self) -> None:
        """All members fold to the same state, and every checkpoint that any has seen is of this log."""
        states, notes = {}, await asyncio.to_thread(self._notes)
        for member in self._place.members:
            opening = volumes.open_volume(self._place.home(member), VOLUME, lambda: "")
            async with opening as opened:
                states[member] = await opened.volume.run(partial(_state, opened.volume.view))
                try:
                    await opened.volume.exchange(notes)
                except MunimentError as error:
                    self.found.problems.append(f"{member} has another log than was seen: {error}")
        if len(set(states.values())) != 1:
            self.found.problems.append(f"members do not have the same state: {states}")

    def _notes(self) -> list[bytes]:
        lines: Sequence[Line] = [
            line for name in self._place.members for line in read_journal(self._place.journal(name))
        ]
        return [note.encode() for note in {line["note"] for line in lines if line["what"] == "state"}]

    async def _audits(self) -> None:
        """Of every member; the first reads every share of every blob."""
        for at, member in enumerate(self._place.members):
            report = await Root().audit(
                self._place.home(member), VOLUME, self._place.roster, lambda: "", ask_nodes=True, deep=at == 0
            )
            if report.verdict is not Verdict.CLEAN or report.shares_offline or report.blobs_out_of_reach:
                self.found.problems.append(f"the audit of {member} says: {report.text()}")

    # --- the nodes

    async def _reservations(self) -> None:
        """What killed clients had reserved comes back."""
        until_s = time.monotonic() + 3 * RESERVATION_S
        left = {}
        while time.monotonic() < until_s:
            for name in self._place.nodes:
                _, status = await Root().node_status(str(self._place.node_folder(name)))
                left[name] = status.reserved_bytes
            if not any(left.values()):
                return
            await asyncio.sleep(_LOOK_S)
        self.found.problems.append(f"bytes are still reserved: {left}")

    async def _give_up(self) -> None:
        """Writers end the leases of their uploads, as time would: what the log needs, the keeper leases."""
        for home in (self._place.owner, *(self._place.home(name) for name in self._place.shape.writers)):
            async with compose.open_grid(home, self._place.roster) as grid:
                for lane in grid.lanes():
                    behind: ShareKey | None = None
                    while True:
                        rows = await lane.connection.shares(after=behind, limit=LIST_SHARES_MAX)
                        keys = [
                            ShareKey(BlobId(id_from_text(row.blob)), ShareNumber(row.number)) for row in rows
                        ]
                        for start in range(0, len(keys), 1024):
                            await lane.connection.trash(keys[start : start + 1024])
                        if len(rows) < LIST_SHARES_MAX:
                            break
                        behind = keys[-1]

    async def _settled(self) -> None:
        """Until the keeper has given up what there is twice; a node that was away is asked again later."""
        until_s = time.monotonic() + self._place.shape.heal_s
        while time.monotonic() < until_s:
            self.found.shares.clear()
            lacking, extra = await asyncio.to_thread(self._kept_shares)
            if not (lacking or extra):
                return
            await asyncio.sleep(_LOOK_S)

    def _count_shares(self) -> None:
        """The nodes hold what the log needs, once, and besides that only what is in the trash."""
        self.found.shares.clear()
        lacking, extra = self._kept_shares()
        if lacking or extra or self.found.shares["of others"]:
            self.found.problems.append(
                f"of the shares that the log needs {lacking} are not leased, {extra} are leased twice,"
                f" and {self.found.shares['of others']} are kept for others"
            )
        for name in self._place.nodes:
            folder = self._place.node_folder(name)
            files = {path.name for path in (folder / "store" / "shares").glob("*/*")}
            held = {
                str(ShareKey(BlobId(blob), ShareNumber(number))) for _, blob, number, _ in _leases(folder)
            }
            if files != held:
                lost, stray = len(held - files), len(files - held)
                self.found.problems.append(f"{name} has {stray} shares without a lease, and lacks {lost}")

    def _kept_shares(self) -> tuple[int, int]:
        """Count what nodes keep; returns how many that are needed are not kept, and how many twice."""
        own = keepers.accounts_of(self._place.folder / "keeper", VOLUME, lambda: "")
        whose = {identity.account: _KEPT_FOR[what] for what, identity in own}
        needed = self._needed()
        have: Counter[tuple[bytes, int]] = Counter()
        for name in self._place.nodes:
            wanted: dict[tuple[bytes, int], set[str]] = {}
            for account, blob, number, trashed_s in _leases(self._place.node_folder(name)):
                why = "in the trash" if trashed_s else whose.get(AccountId(account), _OTHERS[any(account)])
                wanted.setdefault((blob, number), set()).add(why)
            for share, reasons in wanted.items():
                reason = min(reasons, key=_REASONS.index)
                self.found.shares[reason] += 1
                have[share] += reason == "needed"
        self.found.blobs = len({blob for blob, _ in needed})
        lacking = sum(not have[share] for share in needed)
        return lacking, sum(max(0, count - (share in needed)) for share, count in have.items())

    def _needed(self) -> set[tuple[bytes, int]]:
        """Every share of every blob that the log refers to, as the keeper knows it."""
        (book,) = (self._place.folder / "keeper").glob("volumes/*/keeper/book.sqlite")
        with contextlib.closing(sqlite3.connect(book)) as sqlite:
            rows = sqlite.execute("SELECT blob, shape FROM blobs WHERE pruned < named").fetchall()
        return {(blob, number) for blob, shape in rows for number in range(BlobShape.unpack(shape).n)}

    # --- this machine

    def _look_for_leftovers(self) -> None:
        """No process, and no half-written file."""
        for process in psutil.Process().children(recursive=True):
            self.found.problems.append(f"process {process.pid} is left: {' '.join(process.cmdline())[:200]}")
        for pattern in _UNFINISHED:
            for path in self._place.folder.rglob(pattern):
                self.found.problems.append(f"{path} is left")
        for name in self._place.nodes:
            for path in (self._place.node_folder(name) / "store" / "incoming").iterdir():
                self.found.problems.append(f"{path} is left")


def _state(view: VolumeView) -> tuple[int, str]:
    return view.size, view.state_hash().digest().hex()


_REASONS: Final = ("needed", "archive of the log", "of others", "found again", "in the trash")
"""Why a node keeps a share; the first counts."""

_KEPT_FOR: Final = {"keeper": "needed", "archive": "archive of the log"}
_OTHERS: Final = ("found again", "of others")
"""Of nobody, as it was found in the store; and of an account."""


def _leases(folder: Path) -> list[tuple[bytes, bytes, int, float]]:
    with contextlib.closing(sqlite3.connect(folder / "ledger.sqlite")) as sqlite:
        return sqlite.execute("SELECT account, blob, number, trashed_s FROM leases").fetchall()

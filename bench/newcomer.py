"""Being new to a long log: all of it folded, or a view snapshot and the tail; and opening what is here.

    python -m bench.newcomer [--entries N]

One author, whose entries make a file each; log service, grid and newcomer in this process, their stores in
files.  Prints seconds by the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from muniment.core.entries import Place, seal_transaction
from muniment.crypto.entries import entry_hash, sign_entry
from muniment.crypto.identity import Identity
from muniment.crypto.member import MemberSecret
from muniment.engine.follower import Follower
from muniment.engine.local_log import LocalLog
from muniment.engine.members import founding_entry
from muniment.engine.sequencer import Sequencer, found
from muniment.engine.snapshot_content import fetching
from muniment.engine.view_snapshot import Newcomer
from muniment.engine.volume import Volume
from muniment.engine.volume_files import VolumeFiles
from muniment.ids import VolumeId
from muniment.logs.clear_file import FileClear
from muniment.logs.sqlite import SqliteLog
from muniment.node.clock import SystemClock
from muniment.spec.act import Quorum, VolumePolicy
from muniment.spec.operation import ROOT, Kind, Make
from muniment.spec.transaction import Transaction
from muniment.testing.fake_grid import FakeGrid
from muniment.views.sqlite import SqliteView

_POLICY = VolumePolicy(Quorum.ONE, 7 * 24 * 3600, "4/6", 5, 1 << 22)
_BATCH = 1000


class _Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key, self.anna = Identity.from_seed(b"k" * 32), MemberSecret(b"a" * 32)
        self.thread = ThreadPoolExecutor(1)
        self.volume: VolumeId

    def sequencer(self) -> Sequencer:
        store = SqliteLog(self.folder / "service.log")
        kept = FileClear(self.folder / "service.clear")
        return Sequencer(self.volume, store, self.key, SystemClock(), self.thread, kept)

    def follower(self, name: str) -> Follower:
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        log, view = SqliteLog(folder / "log"), SqliteView(folder / "view")
        clear = FileClear(folder / "clear")
        return Follower(self.volume, self.anna.read, self.key.public_key, log, view, clear=clear)

    def make(self) -> None:
        """The log's first entry."""
        store = SqliteLog(self.folder / "service.log")
        signed = founding_entry(self.anna, "bench", "anna", _POLICY, SystemClock(), os.urandom)
        self.volume = found(signed, store, self.key)
        store.close()


async def _timed(what: str, work: Callable[[], Awaitable[object]]) -> None:
    begun = time.perf_counter()
    await work()
    print(f"{what:<62} {time.perf_counter() - begun:8.2f} s")


async def _write(volume: Volume, secret: MemberSecret, log: LocalLog, count: int) -> None:
    """So many files in folders of a thousand, sent in batches."""
    frontier, keys = volume.follower.frontier, volume.newest_keys()
    place = Place.next(
        volume.membership,
        secret.member,
        seen_size=frontier.size,
        seen_root=frontier.root(),
        now_ns=volume.now_ns(),
    )
    folder = 0
    for start in range(0, count, _BATCH):
        signed = []
        for number in range(start, min(start + _BATCH, count)):
            if number % 1000 == 0:
                folder = 2 + number
                made = Make(ROOT, b"folder %d" % number, Kind.FOLDER, 0o755)
            else:
                made = Make(folder, b"file %d" % number, Kind.FILE, 0o644)
            entry = seal_transaction(place, Transaction((made,)), keys, os.urandom)
            signed.append(sign_entry(secret.identity, entry))
            place = place.after(entry_hash(signed[-1]))
        await log.append(signed)


async def run(entries: int, folder: Path) -> None:
    bench = _Bench(folder)
    bench.make()
    sequencer = bench.sequencer()

    async def opened() -> Sequencer:
        return sequencer

    log, grid = LocalLog(opened), FakeGrid(6)

    def volume(name: str) -> Volume:
        return Volume(bench.follower(name), bench.anna, log, SystemClock(), os.urandom)

    async with grid.client() as client:
        anna = volume("anna")
        await anna.sync()
        await _write(anna, bench.anna, log, entries)
        print(f"{entries} entries, each of which makes a file\n")
        await _timed("follow and fold all of it", anna.sync)

        async def made() -> None:
            one = await VolumeFiles(anna, client).snapshot_view(folder)
            print(f"    a snapshot of {one.size_bytes / 1e6:.1f} MB")

        await _timed("make a view snapshot", made)
        await _write(anna, bench.anna, log, 10)
        await anna.sync()
        newcomer = volume("newcomer")

        async def begin() -> None:
            await Newcomer(newcomer.follower, log, newcomer.run, fetching(client), folder).begin()
            await newcomer.sync()

        await _timed("begin with it: state and tail, nothing kept at the service", begin)
        assert newcomer.view.state_hash() == anna.view.state_hash()
        assert newcomer.view.start
        await anna.aclose()
        await newcomer.aclose()

        async def open_again(name: str) -> None:
            await asyncio.to_thread(lambda: bench.follower(name).close())

        await _timed("open the whole replica, clear part kept", lambda: open_again("anna"))
        (folder / "anna" / "clear").unlink()
        await _timed("open the whole replica, clear part lost", lambda: open_again("anna"))
        await sequencer.aclose()

        async def first_use() -> None:
            nonlocal sequencer
            sequencer = bench.sequencer()
            await sequencer.in_thread(sequencer._known)  # noqa: SLF001 - what its first call does

        await _timed("first use of the log service, clear part kept", first_use)
        (folder / "service.clear").unlink()
        await _timed("first use of the log service, clear part lost", first_use)
        await sequencer.aclose()
    bench.thread.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(run(arguments.entries, Path(folder)))


if __name__ == "__main__":
    main()

"""Durable appends over loopback TLS, following, and proofs: what a log service and its members can do.

    python -m bench.log [--seconds S] [--entries N]

A real service process (`muni log run`'s own entry) on the disk under the working directory, authors in this
process with one connection each, entries of real members signed before the clock runs.  In the same run, bare
SQLite commits rows of the same size in groups of the same size, which is what the disk allows.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop

from muniment.core.entries import Place, seal_transaction
from muniment.core.keys import EpochKeys, grant
from muniment.core.membership import Membership
from muniment.crypto.entries import open_entry, sign_entry, volume_id
from muniment.crypto.identity import Identity
from muniment.crypto.member import MemberSecret
from muniment.engine.follower import Follower
from muniment.ids import EntryHash, VolumeId
from muniment.logs.memory import MemoryLog
from muniment.logs.sqlite import SqliteLog
from muniment.merkle.log_tree import EMPTY_ROOT, Frontier, check_inclusion, inclusion_path
from muniment.net.log_client import HttpLogService
from muniment.node.compose import init_log
from muniment.node.config import LogConfig
from muniment.node.main import tune
from muniment.ports import LoggedEntry
from muniment.spec.act import Accept, Act, Found, Join, Quorum, Role, VolumePolicy
from muniment.spec.address import parse_address
from muniment.spec.entry import NO_ENTRY, NO_VOLUME, Entry
from muniment.spec.operation import ROOT, Extent, Kind, Make
from muniment.spec.transaction import Transaction
from muniment.testing.lying_log import store_of
from muniment.views.memory import MemoryView
from muniment.views.sqlite import SqliteView

AUTHORS = 8
_POLICY = VolumePolicy(Quorum.ONE, 7 * 24 * 3600, "4/6", 5, 1 << 22)
_RUN = """
import asyncio, sys, uvloop
from pathlib import Path
from muniment.node.compose import run_log
from muniment.node.main import tune
tune()
uvloop.run(run_log(Path(sys.argv[1]), ready=lambda address: print(address, flush=True)))
"""


class Book:
    """A volume whose members write small files' entries: the founding and all joins are in `begun`."""

    def __init__(self, authors: int) -> None:
        self.keys = EpochKeys.generate(0, os.urandom)
        self.owner = MemberSecret(os.urandom(32))
        self.membership = Membership()
        self.begun: list[bytes] = []
        self.frontier = Frontier()
        self.seen = self.frontier
        card = self.owner.card("owner")
        granted = (grant(NO_VOLUME, self.keys, card, Role.OWNER),)
        act = Found("bench", os.urandom(16), _POLICY, card, self.keys.commitment, granted)
        first = Entry(NO_VOLUME, 0, self.owner.member, 0, NO_ENTRY, 0, EMPTY_ROOT, time.time_ns(), act)
        signed = sign_entry(self.owner.identity, first)
        self.volume: VolumeId = volume_id(signed)
        self._admit(signed)
        self.secrets = [self.owner, *(MemberSecret(os.urandom(32)) for _ in range(authors - 1))]
        for number, secret in enumerate(self.secrets[1:]):
            card = secret.card(f"author {number}")
            self._act(secret, Join(card, Role.WRITER, ""))
            self.seen = self.frontier
            granted_one = grant(self.volume, self.keys, card, Role.WRITER)
            self._act(self.owner, Accept(secret.member, Role.WRITER, granted_one))
            self.seen = self.frontier

    def _place(self, secret: MemberSecret) -> Place:
        return Place.next(
            self.membership,
            secret.member,
            seen_size=self.seen.size,
            seen_root=self.seen.root(),
            now_ns=time.time_ns(),
        )

    def _act(self, secret: MemberSecret, act: Act) -> None:
        self._admit(sign_entry(secret.identity, self._place(secret).entry(act)))

    def _admit(self, signed: bytes) -> None:
        self._follow(signed)
        self.begun.append(signed)

    def _follow(self, signed: bytes) -> None:
        entry = open_entry(signed)
        self.membership.admit(entry, self.membership.size)
        self.frontier, _ = self.frontier.append(entry.hash)

    def entries(self, author: int, count: int, *, in_order: bool = False) -> list[bytes]:
        """The next ones of an author, not yet in any log.

        He has seen all entries made before each if they get into the log in this order, else the joins.
        """
        secret, made = self.secrets[author], []
        for number in range(count):
            if in_order:
                self.seen = self.frontier
            name = b"file %d of %d" % (self.membership.size, author)
            content = (Extent(0, 200, os.urandom(200), 0),)
            make = Make(ROOT, name, Kind.FILE, 0o644, 1000, 1000, number, 0, content, 200)
            entry = seal_transaction(self._place(secret), Transaction((make,)), self.keys, os.urandom)
            signed = sign_entry(secret.identity, entry)
            self._follow(signed)
            made.append(signed)
        return made


def _tell(what: str, figure: str, goal: str = "-") -> None:
    print(f"{what:<64} {figure:>16}   goal {goal}", flush=True)


def _bare(folder: Path, group: int, seconds: float, size_bytes: int) -> float:
    """Rows each second that SQLite makes durable in groups."""
    connection = sqlite3.connect(folder / f"bare-{group}", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE t (idx INTEGER PRIMARY KEY, signed BLOB NOT NULL)")
    rows, row = 0, os.urandom(size_bytes)
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany("INSERT INTO t (signed) VALUES (?)", [(row,)] * group)
        connection.execute("COMMIT")
        rows += group
    took = time.perf_counter() - begun
    connection.close()
    return rows / took


async def _appends(
    service: Sequence[HttpLogService], book: Book, queues: Sequence[Sequence[bytes]], at_once: int
) -> tuple[float, float]:
    """Entries each second, and the median latency, of authors who send `at_once` entries in a request."""
    latencies: list[float] = []

    async def write(client: HttpLogService, queue: Sequence[bytes]) -> None:
        log = client.volume(book.volume)
        for at in range(0, len(queue), at_once):
            begun = time.perf_counter()
            await log.append(queue[at : at + at_once])
            latencies.append(time.perf_counter() - begun)

    begun = time.perf_counter()
    await asyncio.gather(*map(write, service, queues))
    took = time.perf_counter() - begun
    return sum(map(len, queues)) / took, sorted(latencies)[len(latencies) // 2]


async def _service(folder: Path, seconds: float, entries: int) -> None:
    init_log(folder / "log", LogConfig())
    process = await asyncio.to_thread(
        subprocess.Popen, [sys.executable, "-c", _RUN, str(folder / "log")], stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        address = parse_address(process.stdout.readline().decode().strip())
        services = [HttpLogService(address) for _ in range(AUTHORS)]
        book = Book(AUTHORS)
        await services[0].found(book.begun[0])
        await services[0].volume(book.volume).append(book.begun[1:])
        size_bytes = len(book.entries(0, 1)[0])
        book = Book(AUTHORS)
        await services[0].found(book.begun[0])
        await services[0].volume(book.volume).append(book.begun[1:])
        for client in services:
            await client.public_key()
        for authors, at_once, goal in ((AUTHORS, 1, ">= 2,000 /s"), (AUTHORS, 16, "-"), (1, 1, ">= 400 /s")):
            count = entries // (AUTHORS if authors > 1 else 4)
            queues = [book.entries(author, count) for author in range(authors)]
            bare = _bare(folder, authors * at_once, seconds, size_bytes)
            cpu = _cpu_s(process.pid)
            rate, latency = await _appends(services, book, queues, at_once)
            cpu = (_cpu_s(process.pid) - cpu) / sum(map(len, queues))
            _tell(
                f"durable appends, {authors} authors, {at_once} at once, {size_bytes} bytes",
                f"{rate:,.0f} /s",
                goal,
            )
            _tell("    median latency", f"{latency * 1000:.2f} ms")
            _tell("    processor time of the service for each", f"{cpu * 1e6:.0f} us")
            _tell("    bare SQLite, groups of as many", f"{bare:,.0f} /s")
            _tell("    share of it", f"{rate / bare:.0%}")
        for client in services:
            await client.aclose()
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _best(work: Callable[[], object], tries: int = 3) -> float:
    best = float("inf")
    for _ in range(tries):
        begun = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begun)
    return best


def _replay(folder: Path, entries: int) -> None:
    """Follow a log from nothing: signatures, rights, tree, replica on disk, keys, fold, view."""
    book, key = Book(AUTHORS), Identity.from_seed(os.urandom(32))
    fresh = [
        entry
        for author in range(AUTHORS)
        for entry in book.entries(author, entries // AUTHORS, in_order=True)
    ]
    signed = [*book.begun, *fresh]
    served = store_of(book.volume, signed, key)
    for where in ("memory", "disk"):
        on_disk = where == "disk"
        replica = SqliteLog(folder / "replica") if on_disk else MemoryLog()
        view = SqliteView(folder / "view") if on_disk else MemoryView()
        follower = Follower(book.volume, book.owner.read, key.public_key, replica, view)
        begun = time.perf_counter()
        note = served.checkpoint()
        checkpoint = follower.follows(note).checkpoint
        follower.take(signed, note, checkpoint, ())
        took = time.perf_counter() - begun
        assert view.size == len(signed)
        _tell(f"replay, verify and fold, {where}", f"{len(signed) / took:,.0f} /s", ">= 5,000 /s")
        if on_disk:
            begun = time.perf_counter()
            Follower(book.volume, book.owner.read, key.public_key, replica, view)
            took = time.perf_counter() - begun
            _tell("open a replica that is folded", f"{len(signed) / took:,.0f} /s")
        follower.close()

    def verify() -> None:
        membership, frontier = Membership(), Frontier()
        opened = [open_entry(one) for one in signed]
        for at, entry in enumerate(opened):
            membership.admit(entry, at)
        frontier, _ = frontier.extend(entry.hash for entry in opened)
        assert frontier.root() == checkpoint.root

    _tell("    of that, verify alone", f"{len(signed) / _best(verify, 1):,.0f} /s")


def _proofs(folder: Path) -> None:
    store, frontier = SqliteLog(folder / "proofs"), Frontier()
    key = Identity.from_seed(os.urandom(32))
    size = 100_000
    logged = store_of(VolumeId(bytes(32)), [b"entry %d" % at for at in range(size)], key)
    entries = [LoggedEntry(EntryHash(logged.node(0, at)), b"entry %d" % at) for at in range(size)]
    frontier, nodes = frontier.extend(entry.hash for entry in entries)
    store.append(entries, nodes, b"note")
    root = frontier.root()

    def prove() -> None:
        for index in range(0, size, size // 1000):
            path = inclusion_path(index, size, store.node)
            check_inclusion(entries[index].hash, index, size, path, root)

    _tell("inclusion proof made and checked, 100,000 entries", f"{_best(prove):.3f} ms", "< 1 ms")
    store.close()


def main() -> None:
    """Run all, in a folder on the disk under the working directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--entries", type=int, default=8_000)
    given = parser.parse_args()
    tune()
    print("load", " ".join(f"{one:.1f}" for one in os.getloadavg()))
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        uvloop.run(_service(folder, given.seconds, given.entries))
        _replay(folder, given.entries)
        _proofs(folder)
    print("load", " ".join(f"{one:.1f}" for one in os.getloadavg()))


if __name__ == "__main__":
    main()

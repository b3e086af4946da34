"""Auditing a volume: entries per second, and where the time goes.

    python -m bench.audit [--entries N] [--processes P]

Each entry makes a file of one blob; log and view lie in files.  Prints each figure with its goal;
several runs on a shared machine differ by half.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import os
import pstats
import resource
import tempfile
import time
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from muniment.audit.log_check import LogAudit, unverified
from muniment.audit.report import AuditReport, Verdict
from muniment.audit.volume import audit_volume
from muniment.core.entries import Place, seal_transaction
from muniment.core.fold import apply
from muniment.core.history import EntryMeta
from muniment.core.keys import EpochKeys, founding
from muniment.core.membership import Membership
from muniment.crypto.checkpoints import sign_checkpoint
from muniment.crypto.entries import open_entry, sign_entry, volume_id
from muniment.crypto.identity import Identity
from muniment.crypto.member import MemberSecret
from muniment.ids import VolumeId
from muniment.logs.sqlite import SqliteLog
from muniment.merkle.log_tree import EMPTY_ROOT, Frontier, Subtree
from muniment.ports import LoggedEntry
from muniment.spec.act import Quorum, VolumePolicy
from muniment.spec.checkpoint import Checkpoint, origin_of
from muniment.spec.entry import NO_ENTRY, NO_VOLUME, Entry
from muniment.spec.operation import ROOT, Extent, Kind, Make
from muniment.spec.transaction import Transaction
from muniment.testing.sample_volume import blob_ref
from muniment.views.sqlite import SqliteView

_GOAL = 5000
_BATCH = 1000
_POLICY = VolumePolicy(Quorum.MAJORITY, 7 * 24 * 3600, "4/6", 5, 1 << 22)
_SECRET = MemberSecret(b"m" * 32)
_LOG = Identity.from_seed(b"l" * 32)


def _founded() -> tuple[bytes, EpochKeys]:
    act, keys = founding("books", _POLICY, _SECRET.card("anna"), os.urandom)
    entry = Entry(NO_VOLUME, 0, _SECRET.member, 0, NO_ENTRY, 0, EMPTY_ROOT, time.time_ns(), act)
    return sign_entry(_SECRET.identity, entry), keys


def _write(folder: Path, count: int) -> VolumeId:
    """A volume of so many entries, in files."""
    signed, keys = _founded()
    volume, membership, frontier = volume_id(signed), Membership(), Frontier()
    log, view = SqliteLog(folder / "log"), SqliteView(folder / "view")
    for start in range(0, count, _BATCH):
        batch, nodes = list[LoggedEntry](), list[Subtree]()
        with view.batch() as folding:
            for index in range(start, min(start + _BATCH, count)):
                changes = None
                if index:
                    place = Place.next(
                        membership,
                        _SECRET.member,
                        seen_size=frontier.size,
                        seen_root=frontier.root(),
                        now_ns=time.time_ns(),
                    )
                    content = (Extent(0, 64, 0),)
                    make = Make(ROOT, b"%08d" % index, Kind.FILE, 0o644, 0, 0, index, 0, content, 64)
                    transaction = Transaction((make,), (blob_ref(index),))
                    sealed = seal_transaction(place, transaction, keys, os.urandom)
                    signed = sign_entry(_SECRET.identity, sealed)
                entry = open_entry(signed)
                membership.admit(entry, index)
                frontier, completed = frontier.append(entry.hash)
                batch.append(LoggedEntry(entry.hash, signed))
                nodes += completed
                time_ns = entry.entry.time_ns
                if index:
                    changes = apply(folding.state, transaction, index=index, time_ns=time_ns)
                folding.record(index, EntryMeta(entry.hash, _SECRET.member, time_ns, 0), changes)
        note = sign_checkpoint(_LOG, Checkpoint(origin_of(volume), frontier.size, frontier.root()))
        log.append(batch, nodes, note)
    view.close()
    log.close()
    return volume


def _audit(folder: Path, volume: VolumeId, *, view: bool, executor: Executor | None = None) -> float:
    begun = time.perf_counter()
    report = asyncio.run(
        audit_volume(
            volume,
            _SECRET.read,
            _LOG.public_key,
            log=lambda: SqliteLog(folder / "log"),
            view=(lambda: SqliteView(folder / "view")) if view else None,
            executor=executor,
        )
    )
    assert report.verdict is Verdict.CLEAN, report.text()
    assert not view or report.view_entries == report.entries
    return time.perf_counter() - begun


def _tell(what: str, entries: int, seconds: float) -> None:
    figure = f"{entries / seconds:,.0f}/s"
    print(f"{what:<60} {figure:>10}   {seconds / entries * 1e6:6.0f} us   goal {_GOAL:,}/s")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=20_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--profile", action="store_true", help="say where the time goes, function by function"
    )
    options = parser.parse_args()
    count = options.entries
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun = time.perf_counter()
        volume = _write(folder, count)
        print(f"{count} entries written in {time.perf_counter() - begun:.1f} s")
        log = SqliteLog(folder / "log")
        some = log.read(0, 2000, bytes_max=1 << 30)
        begun = time.perf_counter()
        unverified(some)
        _tell("decoding entries and verifying their signatures", len(some), time.perf_counter() - begun)
        begun = time.perf_counter()
        for _ in LogAudit(log, volume, (_LOG.public_key,), (), AuditReport(volume)).walk():
            pass
        _tell(
            "the log alone: and rights, tree, stored hashes, checkpoint", count, time.perf_counter() - begun
        )
        log.close()
        _tell("log and content folded", count, _audit(folder, volume, view=False))
        _tell("log, content and view, all in one process", count, _audit(folder, volume, view=True))
        with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
            pool.submit(unverified, some[:1]).result()
            seconds = _audit(folder, volume, view=True, executor=pool)
            _tell(f"the same, signatures in {options.processes} more processes", count, seconds)
        if options.profile:
            with cProfile.Profile() as profile:
                for _ in LogAudit(
                    SqliteLog(folder / "log"), volume, (_LOG.public_key,), (), AuditReport(volume)
                ).walk():
                    pass
            pstats.Stats(profile).sort_stats("tottime").print_stats(20)
        print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()

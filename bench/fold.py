"""Folding and looking: how fast a volume's log becomes a view, and how fast the view answers.

    python -m bench.fold [--entries N]

Prints each figure by the clock, in brackets by processor time, with its goal.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from muniment.core.fold import apply
from muniment.core.history import EntryMeta
from muniment.ids import EntryHash, MemberId
from muniment.ports import VolumeView
from muniment.spec.blob import BlobRef
from muniment.spec.operation import (
    ROOT,
    Extent,
    Kind,
    Make,
    Operation,
    RemoveTree,
    Rename,
    SetAttributes,
    Unlink,
    Write,
)
from muniment.spec.transaction import Transaction
from muniment.testing.sample_volume import blob_ref, entry_time_ns
from muniment.views.sqlite import SqliteView

_BATCH = 1000
_FILES = 10_000


def _meta(index: int) -> EntryMeta:
    author = MemberId(bytes(32))
    return EntryMeta(EntryHash(hashlib.sha256(b"%d" % index).digest()), author, entry_time_ns(index), 0)


class Took(NamedTuple):
    """Seconds by the clock, and of this process: on a shared machine they differ."""

    wall_s: float
    cpu_s: float


def _fold(view: VolumeView, transactions: Sequence[Transaction], batch_entries: int = _BATCH) -> Took:
    """Time for all of them."""
    begun, cpu = time.perf_counter(), time.process_time()
    for start in range(0, len(transactions), batch_entries):
        with view.batch() as batch:
            for transaction in transactions[start : start + batch_entries]:
                index = batch.size
                changes = apply(batch.state, transaction, index=index, time_ns=entry_time_ns(index))
                batch.record(index, _meta(index), changes)
    return Took(time.perf_counter() - begun, time.process_time() - cpu)


def _one(operation: Operation, *blobs: BlobRef) -> Transaction:
    return Transaction((operation,), blobs)


def _make(parent: int, number: int) -> Make:
    content = (Extent(0, 1000, 0, 1000 * (number % 4000)),)
    return Make(parent, b"file %07d" % number, Kind.FILE, 0o644, 1000, 1000, number, 0, content, 1000)


def _took(work: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(3):
        begun = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - begun)
    return best


def _tell(what: str, figure: str, goal: str) -> None:
    print(f"{what:<72} {figure:>20}   goal {goal}")


def _rate(took: Took, entries: int) -> str:
    return f"{entries / took.wall_s:,.0f} /s ({entries / took.cpu_s:,.0f})"


def _seconds(took: Took) -> str:
    return f"{took.wall_s:.2f} s ({took.cpu_s:.2f})"


def _rates(folder: Path, entries: int) -> Iterator[tuple[str, list[Transaction], int]]:
    pack = blob_ref(1, 4 << 20)
    blobs = [blob_ref(number, 1 << 20) for number in range(entries)]
    makes = [_one(_make(ROOT, number), pack) for number in range(entries)]
    yield "make a file, one folder", makes, _BATCH
    yield "make a file, batches of 100", makes, 100
    yield "make a file, batches of 10", makes, 10
    yield "make a file, batches of 1", makes[: entries // 10], 1
    file = [_one(Make(ROOT, b"file", Kind.FILE, 0o644))]
    appends = [_one(Write(2, None, (Extent(at << 20, 1 << 20, 0),)), blobs[at]) for at in range(len(blobs))]
    yield "append a blob to one file", file + appends, _BATCH
    overwrites = [
        _one(Write(2, None, (Extent(at * 7919 % 256 << 12, 4096, 0),)), blobs[at]) for at in range(entries)
    ]
    yield "overwrite 4 KiB of one file of 1 MiB", file + overwrites, _BATCH
    changes = [_one(SetAttributes(2, mtime_ns=number)) for number in range(entries)]
    yield "set attributes of one file", file + changes, _BATCH
    passing: list[Transaction] = []
    for number in range(entries // 2):
        passing += [_one(_make(ROOT, number), pack), _one(Unlink(ROOT, b"file %07d" % number, 2 + number))]
    yield "make and unlink in turn", passing, _BATCH


def _looks(folder: Path) -> None:
    """A volume of 100,000 versions: one folder through which 100,000 names pass, 10,000 at a time."""
    pack = blob_ref(1, 4 << 20)
    view = SqliteView(folder / "looks")
    transactions = []
    for number in range(100_000):
        operations: list[Operation] = [_make(ROOT, number)]
        if number >= _FILES:
            operations.append(Unlink(ROOT, b"file %07d" % (number - _FILES), 2 + number - _FILES))
        transactions.append(Transaction(tuple(operations), (pack,)))
    took = _fold(view, transactions)
    _tell("100,000 entries of make and unlink, 10,000 files remain", _rate(took, len(transactions)), "-")
    now = _took(lambda: view.reading().children(ROOT, b"", 1 << 30))
    _tell("list 10,000 entries now", f"{now * 1000:.1f} ms", "< 100 ms")
    for at in (20_000, 50_000, 99_000):
        then = _took(lambda at=at: view.reading(at).children(ROOT, b"", 1 << 30))  # type: ignore[misc]
        _tell(f"list 10,000 entries as of {at:,} of 100,000", f"{then * 1000:.1f} ms", "< 300 ms")
    path = _took(lambda: [view.lookup([b"file 0095000"]) for _ in range(1000)])
    _tell("look up a path", f"{path * 1000:.1f} us", "-")
    path = _took(lambda: [view.lookup([b"file 0045000"], 50_000) for _ in range(1000)])
    _tell("look up a path in the past", f"{path * 1000:.1f} us", "-")
    between = _took(lambda: view.changed_between(50_000, 51_000))
    _tell("what differs between entries 1,000 apart", f"{between * 1000:.1f} ms", "-")
    _tell("size of the file per entry", f"{(folder / 'looks').stat().st_size / 100_000:.0f} bytes", "-")
    view.close()


def _content(folder: Path, entries: int) -> None:
    """A file of 256 extents, each overwritten a hundred times and more."""
    view, blob = SqliteView(folder / "content"), blob_ref(1, 4096)
    writes = [_one(Write(2, None, (Extent(at % 256 << 12, 4096, 0),)), blob) for at in range(entries)]
    _fold(view, [_one(Make(ROOT, b"file", Kind.FILE, 0o644)), *writes])
    for what, at in (("now", None), ("in the middle of its versions", entries // 2)):
        one = _took(lambda at=at: view.reading(at).extents(2, 500_000, 504_096))  # type: ignore[misc]
        _tell(f"extents of 4 KiB of a file of {entries:,} versions {what}", f"{one * 1e6:.0f} us", "-")
        whole = _took(lambda at=at: view.reading(at).extents(2, 0, 1 << 30))  # type: ignore[misc]
        _tell(f"all its 256 extents {what}", f"{whole * 1000:.1f} ms", "-")
    view.close()


def _large(folder: Path) -> None:
    """Transactions over 10,000 files."""
    pack = blob_ref(1, 16 << 20)
    view = SqliteView(folder / "large")
    makes = [
        Make(-1, b"file %05d" % n, Kind.FILE, 0o644, content=(Extent(0, 9, 0),), size=9)
        for n in range(_FILES)
    ]
    tree = Transaction((Make(ROOT, b"tree", Kind.FOLDER, 0o755), *makes), (pack,))
    _tell("one transaction that makes 10,000 files", _seconds(_fold(view, [tree])), "< 2 s")
    renames = [Rename(2, b"file %05d" % n, 3 + n, ROOT, b"moved %05d" % n) for n in range(_FILES)]
    _tell("one that renames 10,000 files", _seconds(_fold(view, [Transaction(tuple(renames))])), "< 1 s")
    back = [Rename(ROOT, b"moved %05d" % n, 3 + n, 2, b"file %05d" % n) for n in range(_FILES)]
    _fold(view, [Transaction(tuple(back))])
    whole = _fold(view, [_one(Rename(ROOT, b"tree", 2, ROOT, b"moved"))])
    _tell("one that renames a folder of 10,000 files", _seconds(whole), "< 1 s")
    gone = _fold(view, [_one(RemoveTree(ROOT, b"moved", 2))])
    _tell("one that removes a tree of 10,000 files", _seconds(gone), "< 1 s")
    view.close()


def main() -> None:
    """Run all, in a folder on the disk under the working directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=20_000)
    entries = parser.parse_args().entries
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as name:
        folder = Path(name)
        for number, (what, transactions, batch_entries) in enumerate(_rates(folder, entries)):
            view = SqliteView(folder / f"rate-{number}")
            took = _fold(view, transactions, batch_entries)
            view.close()
            _tell(what, _rate(took, len(transactions)), ">= 8,000 /s" if batch_entries >= 100 else "-")
        _looks(folder)
        _content(folder, 2 * entries)
        _large(folder)


if __name__ == "__main__":
    main()

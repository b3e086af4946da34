"""A process that folds is killed, or the power fails, at any moment: whole batches are there, or nothing.

What a view of so many entries must hold is known from folding the same entries in memory.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.thoroughness import along, chance, times

from muniment.core.state_hash import StateHash
from muniment.ports import VolumeView
from muniment.testing.sample_volume import RandomVolume, entry_meta, folded, tree_of
from muniment.views.memory import MemoryView
from muniment.views.sqlite import SqliteView

BATCH = 5
SEED = 20


def fold_batch(view: VolumeView, step: Callable[[int], None] = lambda _: None) -> None:
    """The next batch; each entry follows from its index and the state, so it is the same in every process."""
    with view.batch() as batch:
        for _ in range(BATCH):
            index = batch.size
            transaction = RandomVolume(SEED * 10_000 + index).transaction(batch.state)
            batch.record(index, entry_meta(index), folded(batch.state, transaction, index))
            step(index)


def expected(batches: int) -> list[StateHash]:
    """The state hash after each number of batches."""
    view = MemoryView()
    hashes = [view.state_hash()]
    for _ in range(batches):
        fold_batch(view)
        hashes.append(view.state_hash())
    return hashes


def check(path: Path, hashes: list[StateHash], acknowledged: int) -> int:
    """Open what is left: whole batches, at least those acknowledged, and all rows of them; go on."""
    view = SqliteView(path)
    size = view.size
    assert size % BATCH == 0
    assert size >= acknowledged
    tree = tree_of(view.reading())
    snapshots = {name: at + 1 for name, at in view.snapshots()}
    assert view.state_hash() == tree.state_hash(snapshots) == hashes[size // BATCH]
    assert len(view.entries(0, size + 100)) == size
    fold_batch(view)
    assert view.state_hash() == hashes[size // BATCH + 1]
    view.close()
    return size


CHILD = """
import sys
from pathlib import Path
from tests.fault.test_view_crash import fold_forever
fold_forever(Path(sys.argv[1]), int(sys.argv[2]))
"""


def fold_forever(path: Path, dies_at: int) -> None:
    """Fold batch after batch, telling the size after each; dies in the middle of one if told so."""

    def step(index: int) -> None:
        if index == dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    view = SqliteView(path)
    while True:
        fold_batch(view, step)
        print(view.size, flush=True)


def start(path: Path, dies_at: int = -1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, str(path), str(dies_at)]
    root = Path(__file__).parents[2]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)


@pytest.mark.parametrize("dies_at", along(0, 24, 11))
def test_killed_in_a_batch(tmp_path: Path, dies_at: int) -> None:
    with start(tmp_path / "view", dies_at) as child:
        told = [int(line) for line in child.stdout or ()]
    assert child.returncode == -signal.SIGKILL
    assert told == list(range(BATCH, dies_at // BATCH * BATCH + 1, BATCH))
    assert check(tmp_path / "view", expected(6), told[-1] if told else 0) == dies_at // BATCH * BATCH


def test_killed_between_batches_and_at_any_time(tmp_path: Path) -> None:
    hashes = expected(60)
    by = chance("moments")
    for run in range(times(2)):
        path = tmp_path / str(run)
        with start(path) as child:
            assert child.stdout is not None
            told = [int(line) for line in itertools.islice(child.stdout, 2 + run % 3)]
            time.sleep(by.random() / 50)  # somewhere in a later batch, or between two
            child.kill()
            told += [int(line) for line in child.stdout]
        check(path, hashes, told[-1])


def test_power_fails_while_the_log_of_the_file_is_written(tmp_path: Path) -> None:
    """Any prefix of SQLite's write-ahead log: later batches are gone, and no part of one is there."""
    batches = 8
    hashes, path = expected(batches + 1), tmp_path / "view"
    view = SqliteView(path)
    lengths = [0]
    for _ in range(batches):
        fold_batch(view)
        lengths.append(path.with_name("view-wal").stat().st_size)
    log = path.with_name("view-wal").read_bytes()
    assert len(log) == lengths[-1]
    cuts = {0, *lengths, *(length - 1 for length in lengths[1:]), *(length + 1 for length in lengths[:-1])}
    cuts |= set(chance("cuts").sample(range(lengths[-1]), times(13)))
    for cut in sorted(cuts):
        left = tmp_path / f"after-{cut}"
        shutil.copyfile(path, left)
        left.with_name(left.name + "-wal").write_bytes(log[:cut])
        whole = sum(length <= cut for length in lengths[1:])
        assert check(left, hashes, whole * BATCH) == whole * BATCH
    view.close()

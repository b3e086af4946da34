"""A log whose process is killed at any system call of an append, or whose power fails: whole appends or none.

What was answered is there afterwards, with index, tree and checkpoint, and the log goes on from it.
"""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
from pathlib import Path

from muniment.logs.sqlite import SqliteLog
from muniment.merkle.log_tree import Frontier
from muniment.testing.contracts.log_store import entries_of, grow

BATCH = 3
TRACE_ME, TO_SYSTEM_CALL, SET_OPTIONS, EXIT_KILLS = 0, 24, 0x4200, 0x100000  # <linux/ptrace.h>
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
LIBC.ptrace.restype = ctypes.c_long


def check(path: Path, least: int) -> int:
    """Open what is left, hold it against the entries that were appended, and append once more."""
    store = SqliteLog(path)
    size = store.size
    assert size % BATCH == 0
    assert size >= least
    entries = entries_of(size + BATCH)
    frontier, _ = Frontier().extend(entry.hash for entry in entries[:size])
    assert Frontier.at(size, store.node) == frontier
    assert store.checkpoint() == (frontier.root() if size else b"")
    assert store.read(0, size, bytes_max=1 << 20) == [entry.signed for entry in entries[:size]]
    assert [store.find(entry.hash) for entry in entries] == [*range(size), *[None] * BATCH]
    assert not store.inspect()
    grow(store, entries[size:], frontier)
    store.close()
    return size


def killed_in_append(path: Path, stops: int) -> bool:
    """Append to a log of one batch, in a process that is killed when it was stopped so often: once at the
    entry into each system call and once at its return.  Whether it lived to the end.
    """
    child = os.fork()
    if not child:
        store = SqliteLog(path)
        frontier = grow(store, entries_of(BATCH), Frontier())
        LIBC.ptrace(TRACE_ME, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        grow(store, entries_of(BATCH, BATCH), frontier)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSTOPPED(status)
    LIBC.ptrace(SET_OPTIONS, child, None, EXIT_KILLS)
    for _ in range(stops):
        assert LIBC.ptrace(TO_SYSTEM_CALL, child, None, None) == 0
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return True
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return False


def test_killed_at_each_system_call_of_an_append(tmp_path: Path) -> None:
    stops, sizes, lived = 0, set[int](), False
    while not lived:
        path = tmp_path / str(stops)
        lived = killed_in_append(path, stops)
        sizes.add(check(path, 2 * BATCH if lived else BATCH))
        stops += 1
    assert stops > 20
    assert sizes == {BATCH, 2 * BATCH}


def test_power_fails_while_the_log_of_the_file_is_written(tmp_path: Path) -> None:
    """Any prefix of SQLite's write-ahead log: later appends are gone, and no part of one is there."""
    path = tmp_path / "log"
    store, frontier = SqliteLog(path), Frontier()
    wal = path.with_name("log-wal")
    lengths = [wal.stat().st_size]
    for at in range(6):
        frontier = grow(store, entries_of(BATCH, at * BATCH), frontier)
        lengths.append(wal.stat().st_size)
    written, made = wal.read_bytes(), lengths[0]
    cuts = {
        length + step for length in lengths for step in (-1, 0, 1) if made <= length + step <= lengths[-1]
    }
    cuts |= set(random.Random(1).sample(range(made, lengths[-1]), 25))
    for cut in sorted(cuts):
        left = tmp_path / f"after-{cut}"
        shutil.copyfile(path, left)
        left.with_name(left.name + "-wal").write_bytes(written[:cut])
        whole = sum(length <= cut for length in lengths[1:])
        assert check(left, whole * BATCH) == whole * BATCH
    store.close()

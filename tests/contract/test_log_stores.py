"""All drivers of `LogStore` under one suite, and what only the durable one does."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from muniment.errors import StoreFailed, UnknownVersion
from muniment.logs.memory import MemoryLog
from muniment.logs.sqlite import SqliteLog
from muniment.merkle.log_tree import Frontier
from muniment.ports import LogStore
from muniment.testing.contracts.log_store import LogStoreContract, OpenLog, entries_of, grow


class TestMemoryLog(LogStoreContract):
    @pytest.fixture
    def opened(self) -> OpenLog:
        store = MemoryLog()
        return lambda: store


class TestSqliteLog(LogStoreContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "log.sqlite"

    @pytest.fixture
    def opened(self, path: Path) -> Iterator[OpenLog]:
        stores: list[LogStore] = []

        def opened() -> SqliteLog:
            store = SqliteLog(path)
            stores.append(store)
            return store

        yield opened
        for store in stores:
            store.close()

    def test_it_is_there_again(self, opened: OpenLog) -> None:
        store, entries = opened(), entries_of(5)
        frontier = grow(store, entries, Frontier())
        store.close()
        again = opened()
        assert (again.size, again.checkpoint()) == (5, frontier.root())
        assert again.read(0, 5, bytes_max=1 << 20) == [entry.signed for entry in entries]
        grow(again, entries_of(5, 5), Frontier.at(5, again.node))

    def test_only_its_owner_may_read_it(self, opened: OpenLog, path: Path) -> None:
        opened()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    def test_what_is_no_log_is_refused(self, path: Path) -> None:
        path.write_bytes(b"no database at all " * 100)
        with pytest.raises(StoreFailed):
            SqliteLog(path)
        path.unlink()
        with sqlite3.connect(path) as other:
            other.execute("CREATE TABLE x (y)")
        other.close()
        with pytest.raises(StoreFailed, match="not a log"):
            SqliteLog(path)

    def test_a_later_version_is_refused(self, opened: OpenLog, path: Path) -> None:
        opened().close()
        with sqlite3.connect(path) as later:
            later.execute("PRAGMA user_version = 3")
        later.close()
        with pytest.raises(UnknownVersion):
            SqliteLog(path)

    def test_a_backup_is_a_log(self, opened: OpenLog, tmp_path: Path) -> None:
        store, entries = SqliteLog(tmp_path / "log"), entries_of(9)
        grow(store, entries, Frontier())
        store.backup(tmp_path / "copy")
        grow(store, entries_of(3, 9), Frontier.at(9, store.node))
        copy = SqliteLog(tmp_path / "copy")
        assert (copy.size, store.size) == (9, 12)
        assert copy.read(0, 9, bytes_max=1 << 20) == [entry.signed for entry in entries]
        assert not (tmp_path / "copy.part").exists()
        store.close()
        copy.close()

    @pytest.mark.parametrize("batches", [1, 3, 8])
    def test_a_killed_process_keeps_what_it_answered(self, path: Path, batches: int) -> None:
        child = os.fork()
        if not child:
            store, frontier = SqliteLog(path), Frontier()
            for at in range(batches):
                frontier = grow(store, entries_of(4, 4 * at), frontier)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        store = SqliteLog(path)
        assert store.size == 4 * batches
        assert store.checkpoint() == Frontier.at(store.size, store.node).root()
        store.close()

    def test_another_process_that_looks_takes_nothing_away(self, path: Path, tmp_path: Path) -> None:
        """The last to close a file removes SQLite's journal, so each must see that others have it open."""
        store, look = (
            SqliteLog(path),
            "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute(sys.argv[2])",
        )
        frontier = grow(store, entries_of(4), Frontier())
        statement = "SELECT count(*) FROM entries"
        subprocess.run([sys.executable, "-c", look, path, statement], check=True, timeout=30)
        grow(store, entries_of(4, 4), frontier)
        for file in tmp_path.glob("log.sqlite*"):
            shutil.copyfile(file, tmp_path / file.name.replace("log", "crashed"))
        crashed = SqliteLog(tmp_path / "crashed.sqlite")
        assert (crashed.size, crashed.checkpoint()) == (8, store.checkpoint())
        crashed.close()
        store.close()

"""Every view under the one suite, and what is particular to the one in a file."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest

from muniment.errors import DiskFull, FileFailed, MunimentError, StoreFailed, UnknownVersion
from muniment.ports import VolumeView
from muniment.spec.operation import (
    ROOT,
    SIZE_MAX,
    Extent,
    Kind,
    Make,
    Operation,
    SetXattr,
    Snapshot,
    Unlink,
    Write,
)
from muniment.testing.contracts.view import ViewContract, file, fold, fold_random, folder, names, recomputed
from muniment.testing.sample_volume import blob_ref, entry_meta, entry_time_ns, fold_into, tree_of
from muniment.views import sqlite_schema
from muniment.views.memory import MemoryView
from muniment.views.sqlite import SqliteView
from muniment.views.sqlite_file import VIEW


class Nowhere:
    keeps = False

    def open(self) -> MemoryView:
        return MemoryView()

    def another(self) -> Nowhere:
        return Nowhere()


class File:
    keeps = True

    def __init__(self, path: Path, rows_kept: int = 1000) -> None:
        self.path = path
        self.rows_kept = rows_kept

    def open(self) -> SqliteView:
        return SqliteView(self.path, rows_kept=self.rows_kept)

    def another(self) -> File:
        return File(self.path.with_name("another"), self.rows_kept)


class TestMemory(ViewContract):
    @pytest.fixture
    def medium(self) -> Nowhere:
        return Nowhere()


class TestSqlite(ViewContract):
    @pytest.fixture
    def medium(self, tmp_path: Path) -> File:
        return File(tmp_path / "view")


class TestSqliteThatKeepsNothing(ViewContract):
    """Every row is written as soon as it comes."""

    @pytest.fixture
    def medium(self, tmp_path: Path) -> File:
        return File(tmp_path / "view", rows_kept=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "view"


@pytest.fixture
def view(path: Path) -> Iterator[SqliteView]:
    view = SqliteView(path)
    yield view
    view.close()


# --- the file -------------------------------------------------------------------------------------


def modes(folder: Path) -> dict[str, int]:
    return {one.name: stat.S_IMODE(one.stat().st_mode) for one in folder.iterdir()}


def test_only_its_owner_can_read_it(path: Path) -> None:
    mask = os.umask(0)
    try:
        view = SqliteView(path)
        fold(view, file(b"a"))
        assert modes(path.parent) == {"view": 0o600, "view-wal": 0o600, "view-shm": 0o600}
        view.close()
    finally:
        os.umask(mask)
    path.chmod(0o666)
    SqliteView(path).close()
    assert modes(path.parent) == {"view": 0o600}


def database(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def no_database(path: Path) -> None:
    path.write_bytes(b"this is no database" * 1000)


def of_another_program(path: Path) -> None:
    database(path, "CREATE TABLE t (a)", "PRAGMA application_id = 7")


def with_tables_of_nobody(path: Path) -> None:
    database(path, "CREATE TABLE t (a)")


def of_a_later_version(path: Path) -> None:
    SqliteView(path).close()
    database(path, f"PRAGMA user_version = {len(VIEW.steps) + 1}")


def in_no_folder(path: Path) -> None:
    path.parent.rmdir()


def a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("prepare", "error"),
    [
        (no_database, StoreFailed),
        (of_another_program, StoreFailed),
        (with_tables_of_nobody, StoreFailed),
        (of_a_later_version, UnknownVersion),
        (in_no_folder, FileFailed),
        (a_folder, StoreFailed),
    ],
    ids=lambda value: value.__name__,
)
def test_what_is_no_view_is_refused_and_left(
    path: Path, prepare: Callable[[Path], None], error: type[MunimentError]
) -> None:
    prepare(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(error):
        SqliteView(path)
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_a_view_opens_and_is_read_while_another_process_folds(view: SqliteView, path: Path) -> None:
    fold(view, file(b"a"))
    with view.batch():
        other = SqliteView(path)
        assert (other.size, other.state_hash()) == (view.size, view.state_hash())
        other.close()


def test_damage_is_told(view: SqliteView, path: Path) -> None:
    fold(view, *(file(b"%d" % number, b"x" * 1000) for number in range(300)))
    view.close()
    content = bytearray(path.read_bytes())
    content[-len(content) // 2 :] = os.urandom(len(content) // 2)  # rows, not the schema
    path.write_bytes(content)
    damaged = SqliteView(path)
    with pytest.raises(StoreFailed, match="move it away"):
        tree_of(damaged.reading())
    with pytest.raises(StoreFailed):
        fold(damaged, file(b"a"))
    damaged.close()


def test_a_name_that_leads_to_nothing_is_told(view: SqliteView, path: Path) -> None:
    fold(view, file(b"a"), file(b"b"))
    with sqlite3.connect(path) as other:
        other.execute("DELETE FROM inodes WHERE inode = 3")
    other.close()
    assert [child.name for child in view.reading().children(ROOT, b"", 9)] == [b"a", b"b"]
    with pytest.raises(StoreFailed, match="leads to nothing"):
        view.reading().listing(ROOT, b"", 9)


def test_a_full_disk_is_told_and_leaves_the_view_as_it_was(view: SqliteView) -> None:
    fold_random(view, 1, 20, 20)
    before = view.size, view.state_hash(), tree_of(view.reading())
    view._writer.run("PRAGMA max_page_count = 40")
    with pytest.raises(DiskFull):
        fold(view, *(file(b"%d" % number, b"x" * 2000) for number in range(100)))
    assert (view.size, view.state_hash(), tree_of(view.reading())) == before
    view._writer.run("PRAGMA max_page_count = 4000")
    assert fold(view, *(file(b"%d" % number, b"x" * 2000) for number in range(100))) is None
    assert recomputed(view) == view.state_hash()


def test_every_column_says_what_it_is() -> None:
    columns = [line for line in sqlite_schema.SCHEMA.splitlines() if line.startswith("    ")]
    assert len(columns) > 60
    assert all("--" in line or line.strip().startswith("PRIMARY KEY") for line in columns)


def test_every_row_is_written_once_and_in_order(view: SqliteView) -> None:
    fold_random(view, 5, 100, 9)
    for table, key in {"inodes": "inode", "names": "parent, name", "extents": "inode, offset"}.items():
        rows = view._reader.rows(f"SELECT {key}, valid_from, valid_to FROM {table} ORDER BY 1, 2, 3")
        assert all(row[-2] < row[-1] for row in rows)
        assert all(a[-1] <= b[-2] for a, b in pairwise(rows) if a[:-2] == b[:-2])
    assert view._reader.row("SELECT count(*) FROM inlines") == view._reader.row(
        "SELECT count(*) FROM extents WHERE inline > 0"
    )


# --- what is flushed ------------------------------------------------------------------------------


def test_a_beginning_is_flushed_and_a_batch_is_not(view: SqliteView, path: Path) -> None:
    """Entries can be folded again; a state that came from elsewhere can not."""
    full = MemoryView()
    fold_random(full, 1, 5, 4)
    done: list[str] = []
    view._writer._sqlite.set_trace_callback(done.append)
    view.begin(5, entry_time_ns(4), full.state_rows(), full.state_hash().digest())
    fold(view, file(b"a"))
    order = [one for one in done if one.startswith(("PRAGMA", "BEGIN", "COMMIT"))]
    transaction = ["BEGIN IMMEDIATE", "COMMIT"]
    settings = "PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"
    assert order == [settings[0], *transaction, settings[1], *transaction]
    assert view._writer.row("PRAGMA synchronous") == (1,)


# --- several at once ------------------------------------------------------------------------------


def test_two_views_of_one_file_continue_each_other(view: SqliteView, path: Path) -> None:
    other = SqliteView(path)
    trees = fold_random(view, 1, 15, 4)
    assert [tree_of(other.reading(at)) for at in range(15)] == trees
    fold(other, file(b"from the other"))
    fold(view, file(b"from this one"))
    assert (other.size, other.state_hash()) == (17, view.state_hash())
    assert {b"from the other", b"from this one"} <= set(names(view))
    assert recomputed(view) == view.state_hash()
    other.close()


def test_a_batch_that_waited_begins_where_the_other_ended(view: SqliteView, path: Path) -> None:
    other, begun, sizes = SqliteView(path), threading.Event(), list[int]()

    def fold_in_turn(one: VolumeView) -> None:
        begun.wait()
        for _ in range(25):
            with one.batch() as batch:
                sizes.append(batch.size)
                fold_into(batch, file(b"%d" % batch.size))

    threads = [threading.Thread(target=fold_in_turn, args=(one,)) for one in (view, other, view)]
    for thread in threads:
        thread.start()
    begun.set()
    for thread in threads:
        thread.join()
    assert sizes == list(range(75))
    assert recomputed(view) == view.state_hash() == other.state_hash()
    other.close()


def test_readers_do_not_wait_for_a_batch(view: SqliteView) -> None:
    fold(view, file(b"a", b"content"))
    seen: list[object] = []

    def look() -> None:
        seen.append((view.size, names(view), view.lookup([b"a"], 0), view.entries(0, 9)))

    with view.batch() as batch:
        before = view.size, names(view), view.lookup([b"a"], 0), view.entries(0, 9)
        for number in range(50):
            fold_into(batch, file(b"%d" % number))
        assert len(batch.state.children(ROOT, b"", 99)) == 51  # written, but not committed
        thread = threading.Thread(target=look)
        thread.start()
        thread.join(10)
        assert seen == [before]
    assert len(names(view)) == 51


def test_a_view_closed_in_a_batch_tells_so_and_loses_only_that(view: SqliteView, path: Path) -> None:
    fold(view, file(b"a"))
    with pytest.raises(StoreFailed), view.batch() as batch:  # noqa: PT012 - the end of the batch raises too
        fold_into(batch, file(b"b"))
        view.close()
        fold_into(batch, file(b"c"))
    again = SqliteView(path)
    assert (again.size, names(again)) == (1, [b"a"])
    again.close()


def test_more_blobs_than_a_batch_remembers(view: SqliteView) -> None:
    refs = tuple(blob_ref(number) for number in range(5000))
    content = tuple(Extent(64 * number, 64, number) for number in range(5000))
    made = Make(ROOT, b"large", Kind.FILE, 0o644, content=content, size=64 * 5000)
    assert fold(view, made, Snapshot(b"first"), blobs=refs) is None
    with view.batch() as batch:
        rewritten = tuple(Extent(64 * number, 64, 4999 - number) for number in range(5000))
        fold_into(batch, Write(2, None, rewritten), blobs=refs)
        fold_into(batch, Write(2, None, content), blobs=refs)
    assert [extent.source for extent in view.reading().extents(2, 0, SIZE_MAX)] == list(refs)
    assert [extent.source for extent in view.reading(1).extents(2, 0, SIZE_MAX)] == list(refs[::-1])
    assert list(view.blobs()) == list(refs)
    assert recomputed(view) == view.state_hash()


# --- cost -----------------------------------------------------------------------------------------


def steps(view: SqliteView, look: Callable[[], object]) -> int:
    """What a look-up costs, in hundreds of steps of SQLite's machine."""
    counted = 0

    def count() -> int:
        nonlocal counted
        counted += 1
        return 0

    view._reader._sqlite.set_progress_handler(count, 100)
    look()
    view._reader._sqlite.set_progress_handler(None, 100)
    return counted


def test_the_present_and_single_rows_cost_the_same_however_long_the_past(view: SqliteView) -> None:
    fold(view, folder(b"hot"), file(b"file", b"x"), *(file(b"%d" % number, parent=2) for number in range(20)))
    reading = view.reading()
    looks: list[Callable[[], object]] = [
        lambda: reading.children(2, b"", 100),
        lambda: reading.listing(2, b"", 100),
        lambda: reading.extents(3, 0, SIZE_MAX),
        lambda: reading.xattrs(3),
        lambda: reading.inode(2),
        lambda: reading.child(2, b"new"),
        lambda: view.lookup([b"hot", b"7"]),
        lambda: view.lookup([b"hot", b"7"], view.size // 2),
        lambda: view.index_at(entry_meta(view.size // 2).time_ns),
    ]
    before = [steps(view, look) for look in looks]
    with view.batch() as batch:
        for number in range(1000):
            made: list[Operation] = [file(b"new", parent=2), Write(3, None, (Extent(0, 1, b"y"),))]
            fold_into(batch, *made)
            fold_into(batch, Unlink(2, b"new", 24 + number), SetXattr(3, b"count", b"%d" % number))
    after = [steps(view, look) for look in looks]
    assert all(late <= early + 3 for early, late in zip(before, after, strict=True)), (before, after)

"""SQLite files of one kind: made, brought up to date, told from others."""

from __future__ import annotations

import dataclasses
import sqlite3
import stat
from pathlib import Path

import pytest

from muniment.errors import DiskFull, StoreFailed, UnknownVersion
from muniment.sqlite_file import FileKind, SqliteFile

FIRST = """
-- What is counted; each once.
CREATE TABLE things (name TEXT);  -- one; or more
CREATE TABLE total (count INTEGER);
INSERT INTO total VALUES (0);
CREATE TRIGGER added AFTER INSERT ON things BEGIN
    UPDATE total
        SET count = count + 1;
END;
"""
SECOND = "ALTER TABLE total ADD COLUMN least INTEGER DEFAULT 7;"

OLD = FileKind("box", 0x424F5820, (FIRST,), "move it away")
NEW = dataclasses.replace(OLD, steps=(FIRST, SECOND))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "box"


def tables(path: Path) -> list[tuple[object, ...]]:
    with sqlite3.connect(path) as raw:
        found = raw.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY name").fetchall()
        found += raw.execute("PRAGMA user_version").fetchall()
    raw.close()
    return found


def changed(path: Path, *statements: str) -> None:
    with sqlite3.connect(path) as raw:
        for statement in statements:
            raw.execute(statement)
    raw.close()


def test_a_new_file_has_all_tables_and_triggers_and_is_private(path: Path) -> None:
    file = SqliteFile(path, NEW)
    file.run_many("INSERT INTO things VALUES (?)", [("a",), ("b",)])
    assert file.rows("SELECT * FROM total") == [(2, 7)]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    file.close()


def test_an_older_file_ends_like_a_new_one_and_keeps_its_rows(path: Path, tmp_path: Path) -> None:
    old = SqliteFile(path, OLD)
    old.run("INSERT INTO things VALUES ('a')")
    old.close()
    file = SqliteFile(path, NEW)
    assert file.row("SELECT * FROM total") == (1, 7)
    file.close()
    SqliteFile(tmp_path / "new", NEW).close()
    assert tables(path) == tables(tmp_path / "new")


def test_a_new_file_begins_with_its_first_rows_and_an_older_one_does_not(path: Path) -> None:
    filled = dataclasses.replace(NEW, fill=lambda sqlite: sqlite.execute("INSERT INTO things VALUES ('a')"))
    for _ in range(2):
        file = SqliteFile(path, filled)
        assert file.rows("SELECT * FROM total") == [(1, 7)]
        file.close()


def test_tables_that_are_not_of_the_kind_are_told(path: Path) -> None:
    file = SqliteFile(path, NEW)
    assert file.inspect() == []
    file.run("DROP TRIGGER added")
    assert file.inspect() == ["the tables are not those of a box"]
    file.close()


def test_a_step_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    SqliteFile(path, OLD).close()
    before = tables(path)
    broken = dataclasses.replace(OLD, steps=(FIRST, f"{SECOND}\nDROP TABLE nothing;"))
    with pytest.raises(StoreFailed, match="the box failed"):
        SqliteFile(path, broken)
    assert tables(path) == before


@pytest.mark.parametrize("version", [-1, 0, 3])
def test_other_versions_are_refused(path: Path, version: int) -> None:
    SqliteFile(path, NEW).close()
    changed(path, f"PRAGMA user_version = {version}")
    with pytest.raises(UnknownVersion, match="box"):
        SqliteFile(path, NEW)


def test_a_version_that_the_driver_sets_itself_is_read(path: Path) -> None:
    SqliteFile(path, NEW).close()
    changed(path, "PRAGMA user_version = 3")
    SqliteFile(path, dataclasses.replace(NEW, version_max=3)).close()
    assert tables(path)[-1] == (3,)


def test_what_is_of_another_program_is_left(path: Path) -> None:
    changed(path, "CREATE TABLE theirs (x)")
    before = path.read_bytes()
    with pytest.raises(StoreFailed, match="this is not a box; move it away"):
        SqliteFile(path, NEW)
    assert path.read_bytes() == before


def test_what_is_no_database_is_told_with_advice(path: Path) -> None:
    path.write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(StoreFailed, match="move it away"):
        SqliteFile(path, NEW)


def test_a_file_opens_while_another_process_writes(path: Path) -> None:
    SqliteFile(path, NEW).close()
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO things VALUES ('a')")
    file = SqliteFile(path, NEW)
    assert file.rows("SELECT * FROM things") == []
    other.execute("COMMIT")
    assert file.rows("SELECT * FROM things") == [("a",)]
    file.close()
    other.close()


def one_transaction(file: SqliteFile, *statements: str) -> None:
    with file.transaction() as sqlite:
        for statement in statements:
            sqlite.execute(statement)


def test_a_transaction_is_all_or_nothing_and_errors_are_translated(path: Path) -> None:
    file, add = SqliteFile(path, NEW), "INSERT INTO things VALUES ('a')"
    with pytest.raises(StoreFailed, match="no such table"):
        one_transaction(file, add, "INSERT INTO absent VALUES ('a')")
    file.run("PRAGMA max_page_count = 10")
    with pytest.raises(DiskFull), file.transaction():
        file.run_many("INSERT INTO things VALUES (?)", [("x" * 10_000,)] * 10)
    assert file.rows("SELECT * FROM things") == []
    file.close()


def test_what_is_wrong_with_the_callers_own_files_stays_what_it_was(path: Path) -> None:
    file = SqliteFile(path, NEW)
    with pytest.raises(FileNotFoundError), file.transaction():
        (path.parent / "nothing").read_bytes()
    file.close()

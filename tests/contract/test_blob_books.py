"""The contract of blob books, for every driver, and what is special to one in a file."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from muniment.books.memory import MemoryBlobBook
from muniment.books.sqlite import SqliteBlobBook
from muniment.errors import StoreFailed, UnknownVersion
from muniment.testing.contracts.blob_book import BlobBookContract, OpenBook, adds, blob, slot


class TestMemory(BlobBookContract):
    """In memory."""

    @pytest.fixture
    def opened(self) -> OpenBook:
        book = MemoryBlobBook()
        return lambda: book


class TestSqlite(BlobBookContract):
    """In a file."""

    @pytest.fixture
    def opened(self, tmp_path: Path) -> OpenBook:
        return lambda: SqliteBlobBook(tmp_path / "book")

    def test_everything_is_there_again_after_it_was_opened_anew(self, opened: OpenBook) -> None:
        book = opened()
        book.take_in(0, [adds(1)])
        book.note([(blob(1).blob, slot(0, 1))], [], now_s=1.0, proven=True)
        book.answered([slot(0, 1).node], 1.0)
        book.close()
        again = opened()
        assert (again.size, list(again.kept(None, 5)), again.last_answers()) == (
            1,
            [blob(1)],
            {slot(0, 1).node: 1.0},
        )
        assert len(again.sightings([blob(1).blob])[0]) == 1

    def test_one_of_the_version_before_does_not_know_what_it_was_made_from(
        self, opened: OpenBook, tmp_path: Path
    ) -> None:
        book = opened()
        book.take_in(0, [adds(1)], bound=b"this")
        book.close()
        with sqlite3.connect(tmp_path / "book") as earlier:
            earlier.executescript("ALTER TABLE head DROP COLUMN bound; PRAGMA user_version = 1;")
        earlier.close()
        again = opened()
        assert (again.size, again.bound) == (1, b"")
        again.take_in(1, [adds(2)], bound=b"that")
        assert again.bound == b"that"

    def test_nobody_else_may_read_the_file(self, opened: OpenBook, tmp_path: Path) -> None:
        opened().take_in(0, [adds(1)])
        assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}

    def test_another_file_and_a_later_version_are_refused_and_left_alone(self, tmp_path: Path) -> None:
        (tmp_path / "other").write_bytes(b"something else, and long enough to be looked at" * 10)
        with pytest.raises(StoreFailed, match="written anew from the log"):
            SqliteBlobBook(tmp_path / "other")
        with sqlite3.connect(tmp_path / "foreign") as foreign:
            foreign.execute("CREATE TABLE t (x)")
        with pytest.raises(StoreFailed, match="not a blob book"):
            SqliteBlobBook(tmp_path / "foreign")
        SqliteBlobBook(tmp_path / "later").close()
        with sqlite3.connect(tmp_path / "later") as later:
            later.execute("PRAGMA user_version = 3")
        with pytest.raises(UnknownVersion):
            SqliteBlobBook(tmp_path / "later")

"""Every view under the one suite, and what is particular to the one in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from muniment.testing.contracts.view import ViewContract
from muniment.views.memory import MemoryView
from muniment.views.sqlite import SqliteView


class Nowhere:
    keeps = False

    def open(self) -> MemoryView:
        return MemoryView()

    def another(self) -> Nowhere:
        return Nowhere()


class File:
    keeps = True

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> SqliteView:
        return SqliteView(self.path)

    def another(self) -> File:
        return File(self.path.with_name("another"))


class TestMemory(ViewContract):
    @pytest.fixture
    def medium(self) -> Nowhere:
        return Nowhere()


class TestSqlite(ViewContract):
    @pytest.fixture
    def medium(self, tmp_path: Path) -> File:
        return File(tmp_path / "view")

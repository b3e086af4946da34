"""What views and logs show to an audit: both drivers the same, and all of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.audit.support import lived

from muniment.audit.tree_oracle import TreeOracle
from muniment.audit.view_check import RowSums
from muniment.core.tree_state import Changes
from muniment.logs.memory import MemoryLog
from muniment.logs.sqlite import SqliteLog
from muniment.ports import AuditedView, RowVersion
from muniment.testing.sample_volume import RandomVolume, entry_meta, folded, tree_of
from muniment.views import sqlite_content
from muniment.views.memory import MemoryView
from muniment.views.sqlite import SqliteView


@pytest.fixture
def views(tmp_path: Path) -> Iterator[tuple[MemoryView, SqliteView]]:
    memory, file = MemoryView(), SqliteView(tmp_path / "view")
    yield memory, file
    file.close()


def fill(views: tuple[AuditedView, ...], seed: int, count: int = 60) -> tuple[TreeOracle, list[RowVersion]]:
    """Fold the same transactions into all; returns the oracle after them and the rows that went."""
    oracle, chance, gone = TreeOracle(), RandomVolume(seed), list[RowVersion]()
    for start in range(0, count, 20):
        transactions = []
        for index in range(start, start + 20):
            transaction = chance.transaction(oracle)
            outcome = folded(oracle, transaction, index)
            if isinstance(outcome, Changes):
                gone += oracle.apply(outcome)
            transactions.append((index, outcome))
        for view in views:
            with view.batch() as batch:
                for index, outcome in transactions:
                    batch.record(index, entry_meta(index, f"entry {index}"), outcome)
    return oracle, gone


@pytest.mark.parametrize("seed", range(6))
def test_views_show_every_version_of_every_row(
    views: tuple[MemoryView, SqliteView], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_content, "_PAGE", 7)
    oracle, gone = fill(views, seed)
    expected = Counter([*gone, *oracle.open_rows()])
    for view in views:
        assert Counter(view.row_versions()) == expected
        assert view.inspect() in ([], ())
    memory, file = views
    assert list(memory.entry_rows(0, 60)) == list(file.entry_rows(0, 60))
    assert list(file.entry_rows(58, 99)) == list(memory.entry_rows(58, 99))
    assert len(file.entry_rows(58, 99)) == 2


@pytest.mark.parametrize("seed", range(6))
def test_the_oracle_is_a_state_like_any_other(views: tuple[MemoryView, SqliteView], seed: int) -> None:
    oracle, _ = fill(views, seed)
    memory, file = views
    assert tree_of(oracle) == tree_of(memory.reading()) == tree_of(file.reading())
    assert oracle.state_hash() == memory.state_hash() == file.state_hash()


def test_sums_differ_where_one_row_differs_and_not_by_order() -> None:
    rows = [RowVersion(b"row %d" % at, at, None if at % 2 else at + 5) for at in range(100)]
    one, other = RowSums(b"k" * 32), RowSums(b"k" * 32)
    for row in rows:
        one.add(row)
    for row in reversed(rows):
        other.add(row)
    assert one.sums == other.sums
    other.add(rows[3])
    assert one.differing(other) == {one.digest(rows[3])[0]}
    assert RowSums(b"j" * 32).digest(rows[3]) != one.digest(rows[3])


async def test_logs_are_inspected(tmp_path: Path) -> None:
    files = await lived(tmp_path, changes=10)
    log = SqliteLog(files.log)
    assert log.inspect() == []
    log.close()
    assert MemoryLog().inspect() == ()

"""`muni keeper`: what it tells of a volume's log."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.cli.support import FakeComposition
from tests.unit.cli.volume_support import Person, serve_log


@pytest.fixture
def world() -> FakeComposition:
    return FakeComposition()


@pytest.fixture
def anna(world: FakeComposition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Person:
    """Somebody with a volume."""
    serve_log(tmp_path / "log", monkeypatch)
    person = Person(world, tmp_path, "anna")
    person.create()
    return person


def test_once_archives_all_of_the_log_whatever_its_age_and_says_so(anna: Person) -> None:
    assert anna.muni("mkdir", "books:/new").code == 0
    looked = anna.muni("log", "archive", "books", "--look", "--json").json
    assert looked["archived"] == 0
    done = anna.muni("keeper", "once", "books")
    assert done.code == 0, done.text
    assert f"log: {looked['entries']} of {looked['entries']} entries archived" in done.text
    (kept,) = anna.muni("keeper", "once", "books", "--json").json["kept"]
    archive = kept["archive"]
    assert archive["archived"] == archive["entries"] == looked["entries"]
    assert (archive["tiles"], archive["weak_tiles"], archive["silent_nodes"]) == (1, 0, 0)
    assert anna.muni("mkdir", "books:/newer").code == 0
    (kept,) = anna.muni("keeper", "once", "books", "--json").json["kept"]
    assert kept["archive"]["archived"] == looked["entries"] + 1


def test_once_says_where_the_log_is_not_on_the_grid(world: FakeComposition, anna: Person) -> None:
    for node in world.grid.nodes[1:]:
        node.faults.down = "switched off"
    done = anna.muni("keeper", "once", "books")
    assert done.code == 10
    assert "the log is not whole on the grid: see 'muni queue list', and run this again" in done.text

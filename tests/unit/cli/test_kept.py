"""A keeper's home reports on the log, and whoever uses the volume sees who keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.cli.support import FakeComposition
from tests.unit.cli.volume_support import Person, serve_log, two

from muniment.engine.keeping import reports

CONTENT = bytes(range(256)) * 20


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeComposition:
    serve_log(tmp_path / "log", monkeypatch)
    return FakeComposition()


def test_an_auditor_keeps_and_reports(world: FakeComposition, tmp_path: Path) -> None:
    anna, otto = two(world, tmp_path, "auditor")
    anna.name, otto.name = "anna", "otto"
    assert anna.muni("put", "-", "books:/file", stdin=CONTENT).code == 0
    empty = anna.muni("keeper", "log", "books")
    assert (empty.code, empty.text, "nobody has reported" in empty.err) == (0, "", True)
    assert otto.muni("keeper", "once", "books").code == 0
    (report,) = anna.muni("keeper", "log", "books", "--json").json["reports"]
    assert (report["author"], report["record"]["blobs"], report["record"]["whole"]) == ("bert", 1, 1)
    assert report["record"]["archived_entries"] > 0
    assert anna.muni("history", "books:").lines[0].endswith("reports")
    info = anna.muni("volume", "info", "books")
    assert "by bert, " in next(line for line in info.lines if line.startswith("kept "))
    assert info.err == ""
    assert otto.muni("keeper", "log", "books").lines == anna.muni("keeper", "log", "books").lines
    assert otto.muni("keeper", "once", "books").code == 0  # within the hour
    assert len(anna.muni("keeper", "log", "books").lines) == 1
    assert anna.muni("put", "-", "books:/more", stdin=CONTENT).err.startswith("-")


def test_a_capability_that_checks_keeps_and_does_not_report(world: FakeComposition, tmp_path: Path) -> None:
    anna, keeper = Person(world, tmp_path, "anna"), Person(world, tmp_path, "keeper")
    anna.create()
    assert anna.muni("put", "-", "books:/file", stdin=CONTENT).code == 0
    cap = anna.muni("volume", "cap", "books", "--right", "verify").text.strip()
    assert keeper.muni("volume", "join", cap).code == 0
    assert keeper.muni("keeper", "once", "books").code == 0
    assert anna.muni("keeper", "log", "books").text == ""


def test_silence_is_warned_of_where_something_is_stored(
    world: FakeComposition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    anna = Person(world, tmp_path, "anna")
    anna.create()
    assert anna.muni("put", "-", "books:/file", stdin=CONTENT).code == 0
    # Patched: the clock of a log cannot be three weeks ahead of this machine's.
    monkeypatch.setattr(reports, "SILENT_S", -1)
    for words in (["put", "-", "books:/other"], ["-q", "volume", "info", "books"]):
        done = anna.muni(*words, stdin=CONTENT)
        assert (done.code, "no keeper has reported for 0 days" in done.err) == (0, True)

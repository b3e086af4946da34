"""volume checkpoints and compare, over real logs and real homes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.unit.cli.support import FakeComposition, muni
from tests.unit.cli.volume_support import Person, serve_log, two

from muniment.spec.checkpoint import NOTES_BYTES_MAX, decode_notes


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeComposition:
    serve_log(tmp_path / "log", monkeypatch)
    return FakeComposition()


def export(person: Person, name: str = "seen") -> Path:
    file = person.home / name
    done = person.muni("volume", "checkpoints", "books", "--export", file)
    assert done.code == 0, done.err
    return file


def fork(anna: Person, bert: Person, folder: Path) -> None:
    """The service shows each of them a log of his own, of one size."""
    logs, other = folder / "log" / "logs", folder / "other"
    shutil.copytree(logs, other)
    assert anna.muni("mkdir", "books:/on-one-side").code == 0
    logs.rename(folder / "hers")
    other.rename(logs)
    assert bert.muni("mkdir", "books:/on-the-other").code == 0


def test_what_was_seen_is_listed_newest_first(world: FakeComposition, tmp_path: Path) -> None:
    anna, bert = two(world, tmp_path)
    for name in "abc":
        assert anna.muni("mkdir", f"books:/{name}").code == 0
    told = anna.muni("volume", "checkpoints", "books", "--json").json
    assert told["seen"] == len(told["checkpoints"])
    sizes = [one["entries"] for one in told["checkpoints"]]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == 6
    assert [
        one["entries"] for one in bert.muni("volume", "checkpoints", "books", "--json").json["checkpoints"]
    ] == [2, 1]
    limited = anna.muni("volume", "checkpoints", "books", "--limit", "2").lines
    assert [line.split()[0] for line in limited] == ["entries", "6", "5"]
    assert told["checkpoints"][0]["root"] in limited[1]


def test_an_export_is_what_another_compares(world: FakeComposition, tmp_path: Path) -> None:
    anna, bert = two(world, tmp_path)
    assert anna.muni("mkdir", "books:/a").code == 0
    file = export(anna)
    printed = anna.muni("volume", "checkpoints", "books", "--export", "-")
    assert printed.out == file.read_bytes()
    assert (
        anna.muni("volume", "checkpoints", "books", "--export", "-", "--json").json["notes"] == printed.text
    )
    again = anna.muni("volume", "checkpoints", "books", "--export", file)
    assert (again.code, "choose another name" in again.err) == (2, True)
    count = len(decode_notes(file.read_bytes()))
    for done in (
        bert.muni("volume", "compare", "books", file),
        bert.muni("volume", "compare", "books", "-", stdin=file.read_bytes()),
    ):
        assert (done.code, done.text) == (0, f"consistent: {count} checkpoints of the same log\n")


def test_both_get_evidence_that_a_stranger_verifies(world: FakeComposition, tmp_path: Path) -> None:
    anna, bert = two(world, tmp_path)
    fork(anna, bert, tmp_path)
    hers, his = export(anna), export(bert)
    shutil.rmtree(tmp_path / "log" / "logs")  # whatever the service may say now
    for person, theirs in ((anna, his), (bert, hers)):
        done = person.muni("volume", "compare", "books", theirs)
        assert (done.code, done.text) == (5, "")
        assert "two different logs of 4 entries; evidence: " in done.err
        (evidence,) = person.home.glob("volumes/*/evidence-*")
        world.home = tmp_path / "nobody"
        verdict = muni(world, "evidence", "verify", evidence)
        assert (verdict.code, "two different logs of 4 entries" in verdict.text) == (0, True)
        assert person.muni("volume", "checkpoints", "books").code == 0  # what was seen can still be shown
    (tmp_path / "hers").rename(tmp_path / "log" / "logs")
    for person in (anna, bert):
        error = person.muni("volume", "info", "books", "--json").json["error"]
        assert error["code"] == "log-forked"
        assert "refused before; evidence: " in error["message"]


def test_evidence_is_taken_from_another_member(world: FakeComposition, tmp_path: Path) -> None:
    anna, bert = two(world, tmp_path)
    fork(anna, bert, tmp_path)
    assert anna.muni("volume", "compare", "books", export(bert)).code == 5
    (evidence,) = anna.home.glob("volumes/*/evidence-*")
    assert bert.muni("volume", "info", "books").code == 0
    done = bert.muni("volume", "compare", "books", evidence)
    assert (done.code, "evidence: " in done.err) == (5, True)
    assert bert.muni("volume", "info", "books").code == 5


HOSTILE = {
    "nothing": b"",
    "no note": b"\x00\xff" * 1000,
    "too long": b"x" * (NOTES_BYTES_MAX + 1),
    "no evidence": b"MUNEVIDE" + b"x" * 100,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_hostile_bytes_are_one_error(world: FakeComposition, tmp_path: Path, data: bytes) -> None:
    anna = Person(world, tmp_path, "anna")
    anna.create()
    before = anna.muni("volume", "checkpoints", "books").text
    done = anna.muni("volume", "compare", "books", "-", stdin=data)
    assert (done.code, done.text) == (4, "")
    assert len(done.err.splitlines()) == 2
    assert anna.muni("volume", "checkpoints", "books").text == before


def test_a_file_that_is_not_there(world: FakeComposition, tmp_path: Path) -> None:
    anna = Person(world, tmp_path, "anna")
    anna.create()
    assert anna.muni("volume", "compare", "books", tmp_path / "none").code == 6
    assert anna.muni("volume", "checkpoints", "books", "--export", tmp_path / "no" / "folder").code == 6
    assert anna.muni("volume", "compare", "nothing", "-", stdin=b"").code == 2

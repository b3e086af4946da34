"""What can be read of a volume when its log service is away, or when the reader has no keys to all of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.unit.cli.support import FakeComposition
from tests.unit.cli.volume_support import Person, serve_log, two

from muniment.engine.opened import OpenVolume
from muniment.errors import NodeUnreachable
from muniment.gateways.cli.composition import Passphrase


@dataclass
class World(FakeComposition):
    """Its log service goes away and comes back."""

    away: bool = False

    @contextlib.asynccontextmanager
    async def open_volume(self, home: Path, name: str, passphrase: Passphrase) -> AsyncIterator[OpenVolume]:
        if self.away:
            raise NodeUnreachable(node=b"l" * 32, reason="connection refused")
        async with super().open_volume(home, name, passphrase) as opened:
            yield opened


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    serve_log(tmp_path / "log", monkeypatch)
    return World()


def test_what_was_seen_can_be_read_while_the_log_service_is_away(world: World, tmp_path: Path) -> None:
    anna = Person(world, tmp_path, "anna")
    anna.create()
    assert anna.muni("put", "-", "books:/file", stdin=b"hello\n").code == 0
    assert anna.muni("mkdir", "books:/folder").code == 0
    world.away = True
    for words in ("ls", "books:"), ("ls", "books:", "--at", "1"), ("tree", "books:"), ("find", "books:"):
        done = anna.muni(*words)
        assert (done.code, "file" in done.text) == (0, True), done.err
        assert "cannot be reached: connection refused; this is books after entry 2 of 2" in done.err
    assert anna.muni("cat", "books:/file").text == "hello\n"
    assert anna.muni("-q", "get", "books:/file", tmp_path / "got").err.startswith("muni: the log service ")
    assert (tmp_path / "got").read_bytes() == b"hello\n"
    assert anna.muni("diff", "books:", "1").lines == ["+ /folder/"]
    assert [one["entry"] for one in anna.muni("history", "books:", "--json").json["entries"]] == [2, 1, 0]
    assert anna.muni("ls", "books:/nowhere").code == 2
    refused = anna.muni("mkdir", "books:/other")
    assert (refused.code, "connection refused" in refused.err) == (3, True)
    world.away = False
    assert anna.muni("ls", "books:").err == ""


def test_of_a_volume_never_seen_nothing_is_shown(world: World, tmp_path: Path) -> None:
    anna = Person(world, tmp_path, "anna")
    anna.create()
    world.away = True
    assert anna.muni("ls", "nobooks:").code == 2


def test_who_waits_is_told_so(world: World, tmp_path: Path) -> None:
    anna, bert = Person(world, tmp_path, "anna"), Person(world, tmp_path, "bert")
    anna.create()
    assert anna.muni("mkdir", "books:/of-anna").code == 0
    bert.join(anna)
    refused = bert.muni("ls", "books:")
    assert (refused.code, refused.text) == (2, "")
    assert "you wait to be accepted in books" in refused.err
    assert "muni identity show" in refused.err


def test_an_auditor_is_told_that_he_does_not_read(world: World, tmp_path: Path) -> None:
    anna, bert = two(world, tmp_path, "auditor")
    assert anna.muni("mkdir", "books:/of-anna").code == 0
    refused = bert.muni("ls", "books:")
    assert (refused.code, "you may check books, and not read it" in refused.err) == (2, True)


def test_a_witness_is_told_that_he_does_not_read(world: World, tmp_path: Path) -> None:
    anna, bert = two(world, tmp_path, "witness")
    assert anna.muni("mkdir", "books:/of-anna").code == 0
    refused = bert.muni("ls", "books:")
    assert (refused.code, "you are a witness of books, and cannot read it" in refused.err) == (2, True)


def test_who_was_removed_reads_what_was_before_and_is_told(world: World, tmp_path: Path) -> None:
    anna, bert = two(world, tmp_path, "writer")
    assert anna.muni("mkdir", "books:/before").code == 0
    assert anna.muni("member", "kick", "books", "bert", "-y").code == 0
    assert anna.muni("mkdir", "books:/after").code == 0
    told = bert.muni("ls", "books:")
    assert (told.code, told.lines) == (0, ["before"])
    assert "entry 5 and later ones of books are closed to you" in told.err

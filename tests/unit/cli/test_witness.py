"""witness run, and what members see of it: over real logs and real homes."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
from tests.unit.cli.support import FakeComposition
from tests.unit.cli.volume_support import Person, serve_log, two

from muniment.node.folder import FolderLock


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeComposition:
    serve_log(tmp_path / "log", monkeypatch)
    return FakeComposition()


def folder(person: Person) -> Path:
    """Where a home keeps its one volume."""
    (found,) = (person.home / "volumes").iterdir()
    return found


def test_members_see_who_cosigned_and_when(world: FakeComposition, tmp_path: Path) -> None:
    anna, wanda = two(world, tmp_path, "witness")
    before = anna.muni("volume", "info", "books", "--json").json
    assert (before["cosigned"], before["witnesses"]) == ([], 1)
    assert "by 0 of 1 witness" in anna.muni("volume", "info", "books").text
    done = wanda.muni("witness", "run", "books", "--once")
    assert (done.code, done.err) == (0, "")
    root = before["checkpoint"].split("\n")[2]
    assert done.lines[0].endswith(f"  books  3 entries  {root}")
    after = anna.muni("volume", "info", "books", "--json").json
    (by,) = after["cosigned"]
    assert (by["member"], by["name"], by["role"]) == (wanda.id, "bert", "witness")
    assert "by 1 of 1 witness: bert" in anna.muni("volume", "info", "books").text
    assert anna.muni("mkdir", "books:/more").code == 0
    assert anna.muni("volume", "info", "books", "--json").json["cosigned"] == []


def test_once_tells_of_each_volume(world: FakeComposition, tmp_path: Path) -> None:
    anna, wanda = two(world, tmp_path, "witness")
    assert wanda.muni("volume", "create", "mine").code == 0
    done = wanda.muni("witness", "run", "books", "books", "--once", "--json")
    assert done.code == 0
    assert [one["entries"] for one in done.json["cosigned"]] == [3]
    for words, code, says in (
        (["books", "mine"], 2, "on this machine only"),
        (["books", "nothing"], 2, "no volume nothing"),
        ([], 2, "Missing argument"),
    ):
        refused = wanda.muni("witness", "run", *words, "--once")
        assert (refused.code, refused.text, says in refused.err) == (code, "", True)
    assert anna.muni("member", "kick", "books", "bert", "-y").code == 0
    kicked = wanda.muni("witness", "run", "books", "--once", "--json")
    assert kicked.code == 2
    (failed,) = kicked.json["failed"]
    assert (failed["error"]["code"], failed["again_s"]) == ("not-member", None)
    assert "ask its owners" in wanda.muni("witness", "run", "books", "--once").err


def test_who_only_reads_cannot_cosign(world: FakeComposition, tmp_path: Path) -> None:
    anna, reader = Person(world, tmp_path, "anna"), Person(world, tmp_path, "reader")
    anna.create()
    cap = anna.muni("volume", "cap", "books", "--right", "read").text.strip()
    assert reader.muni("volume", "join", cap).code == 0
    done = reader.muni("witness", "run", "books", "--once")
    assert (done.code, "needs a volume write capability" in done.err) == (2, True)


def test_one_process_cosigns_a_volume(world: FakeComposition, tmp_path: Path) -> None:
    _, wanda = two(world, tmp_path, "witness")
    assert wanda.muni("witness", "run", "books", "--once").code == 0
    lock = FolderLock(folder(wanda) / "cosigned")
    try:
        done = wanda.muni("witness", "run", "books", "--once")
        assert (done.code, "another process" in done.err) == (6, True)
        assert wanda.muni("volume", "info", "books").code == 0  # what else there is goes on
    finally:
        lock.close()


def test_a_log_that_is_refused_ends_the_process_and_its_code_tells(
    world: FakeComposition, tmp_path: Path
) -> None:
    _, wanda = two(world, tmp_path, "witness")
    (folder(wanda) / "refused").write_text("evidence-of-it\n")
    done = wanda.muni("witness", "run", "books")
    assert (done.code, done.text) == (5, "")
    assert "muni: books: the log of volume" in done.err
    assert "evidence-of-it" in done.err
    told = json.loads(wanda.muni("witness", "run", "books", "--json").out)
    assert (told["error"]["code"], told["again_s"]) == ("log-forked", None)
    once = wanda.muni("witness", "run", "books", "--once", "--json")
    assert (once.code, once.json["cosigned"]) == (5, [])


def test_a_witness_has_nothing_that_could_be_read(world: FakeComposition, tmp_path: Path) -> None:
    """Not a name, not a byte: in no file of his home, and none of his keys opens what he has."""
    anna, wanda = two(world, tmp_path, "witness")
    content, name = b"The colonel did it, in the library." * 3, "the-secret-of-the-library"
    (tmp_path / "file").write_bytes(content)
    assert anna.muni("put", tmp_path / "file", f"books:/{name}").code == 0
    assert anna.muni("cat", f"books:/{name}").out == content
    assert wanda.muni("witness", "run", "books", "--once").code == 0
    for words in (
        ["ls", "books:/"],
        ["cat", f"books:/{name}"],
        ["history", "books:"],
        ["volume", "info", "books"],
    ):
        done = wanda.muni(*words)
        assert name not in done.text
        assert content[:20] not in done.out
    assert wanda.muni("cat", f"books:/{name}").code == 2
    told = wanda.muni("volume", "info", "books", "--json").json
    assert (told["role"], told["entries"], told["folded"]) == ("witness", 4, 3)
    held = b"".join(file.read_bytes() for file in wanda.home.rglob("*") if file.is_file())
    assert len(held) > 1000
    for secret in (content[:20], name.encode()):
        assert secret not in held
        assert base64.b64encode(secret)[:-4] not in held

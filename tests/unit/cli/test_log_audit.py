"""`muni log audit`: a log service's own folder, looked through by whoever runs it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from tests.unit.cli.log_support import log_words
from tests.unit.cli.support import FakeComposition, muni

from muniment.node.folder import FolderLock, make_identity


@pytest.fixture
def world() -> FakeComposition:
    return FakeComposition()


@pytest.fixture
def folder(world: FakeComposition, tmp_path: Path) -> Path:
    """A service that has one log."""
    log_words("log audit", world, tmp_path)
    return tmp_path / "log"


def test_a_service_whose_logs_are_whole_is_clean(world: FakeComposition, folder: Path) -> None:
    done = muni(world, "log", "audit", folder, "--json")
    assert (done.code, done.json["verdict"], done.json["findings"]) == (0, "clean", [])
    (log,) = done.json["logs"]
    assert (log["entries"], log["signatures"], log["judged"], log["notes"]) == (1, 1, 1, 1)
    assert log["content_unchecked"]
    assert muni(world, "log", "audit", folder).lines[0] == f"clean: {folder}, 1 logs"


def test_it_goes_on_meanwhile_and_nothing_is_left_behind(world: FakeComposition, folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    with contextlib.closing(FolderLock(folder)):  # as a service has it that runs
        done = muni(world, "log", "audit", folder, "--json")
        assert (done.code, len(done.json["logs"])) == (0, 1)
        (log,) = folder.glob("logs/*.log")
        log.write_bytes(log.read_bytes().replace(b"books", b"bOoks"))
        assert muni(world, "log", "audit", folder).code == 12
        log.write_bytes(b"no database at all")
        done = muni(world, "log", "audit", folder, "--json")
        assert (done.code, done.json["logs"]) == (12, [])
        assert "cannot serve" in done.json["findings"][0]["consequence"]
    assert sorted(folder.rglob("*")) == before


PLACES: dict[str, tuple[str, int | bytes, str]] = {
    "an entry": ("logs/*.log", b"books", "entry 0"),
    "the checkpoint": ("logs/*.log", b"muniment.log/", "checkpoint"),
    "its signature": ("logs/*.log", "\N{EM DASH} ".encode(), "checkpoint"),
    "the file's head": ("logs/*.log", 3, "file"),
    "the tables": ("logs/*.log", b"CREATE TABLE entries", "file"),
    "the clear part": ("logs/*.clear", 30, ".clear"),
    "the key": ("key", 20, "/key"),
}


@pytest.mark.parametrize("what", PLACES)
def test_one_flipped_byte_is_told_with_its_place(world: FakeComposition, folder: Path, what: str) -> None:
    pattern, at, place = PLACES[what]
    if what == "the clear part":
        keep_clear(folder)
    (file,) = folder.glob(pattern)
    data = bytearray(file.read_bytes())
    where = data.index(at) + 4 if isinstance(at, bytes) else at
    data[where] ^= 0x01
    file.write_bytes(data)
    done = muni(world, "log", "audit", folder, "--json")
    assert (done.code, done.json["verdict"]) == (12, "damaged"), done.text
    findings = done.json["findings"] + [one for log in done.json["logs"] for one in log["findings"]]
    assert any(place in one["place"] and one["consequence"] for one in findings), done.text
    assert muni(world, "log", "audit", folder).code == 12


def keep_clear(folder: Path) -> None:
    """The cache beside the log, as a service keeps it when it stops."""
    from muniment.core.clear_part import clear_part, dump_clear
    from muniment.engine.sequencer import replay
    from muniment.logs.sqlite import SqliteLog

    (path,) = folder.glob("logs/*.log")
    with contextlib.closing(SqliteLog(path)) as log:
        membership, frontier = replay(log)
        part = clear_part(membership, frontier, log.node, lambda at: log.read(at, at + 1, bytes_max=1)[0])
    path.with_suffix(".clear").write_bytes(dump_clear(part))


def test_another_key_is_the_key_file_and_no_damage_of_a_log(world: FakeComposition, folder: Path) -> None:
    (folder / "key").unlink()
    make_identity(folder / "key", lambda size: b"k" * size)
    done = muni(world, "log", "audit", folder, "--json")
    assert done.code == 12
    assert "restore the file" in done.json["findings"][0]["consequence"]
    (folder / "key").unlink()
    assert (
        muni(world, "log", "audit", folder, "--json").json["findings"][0]["what"] == "the key file is missing"
    )


def test_a_file_under_another_name_is_told(world: FakeComposition, folder: Path) -> None:
    (path,) = folder.glob("logs/*.log")
    path.rename(path.with_name("old.log"))
    done = muni(world, "log", "audit", folder, "--json")
    assert (done.code, done.json["logs"]) == (12, [])
    (path,) = folder.glob("logs/*.log")
    path.rename(path.with_name("a" * 52 + ".log"))
    done = muni(world, "log", "audit", folder, "--json")
    assert done.code in (12, 13)
    assert done.json["logs"][0]["findings"]


def test_a_folder_of_no_service_is_refused(world: FakeComposition, tmp_path: Path) -> None:
    assert muni(world, "log", "audit", tmp_path).code == 6

"""Commands on logs: backup, rehost, audit and evidence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.unit.cli.log_support import LIAR, evidence_file, home_with_volume, log_words
from tests.unit.cli.support import FakeComposition, muni

from muniment.errors import GridUnknown
from muniment.ids import id_text


@pytest.fixture
def world() -> FakeComposition:
    return FakeComposition()


def test_an_honest_volume_is_clean_and_a_changed_one_is_not(world: FakeComposition, tmp_path: Path) -> None:
    home = home_with_volume(world, tmp_path)
    done = muni(world, "--home", home, "audit", "--offline", "books")
    assert (done.code, done.lines[0].split(":")[0]) == (0, "clean")
    (log,) = home.glob("volumes/*/log.sqlite")
    data = bytearray(log.read_bytes())
    at = data.rindex(b"books")
    data[at] ^= 1
    log.write_bytes(data)
    done = muni(world, "--home", home, "audit", "--offline", "books")
    assert done.code == 12
    assert "entry 0" in done.text
    assert muni(world, "--home", home, "audit", "--offline", "books", "--json").json["verdict"] == "damaged"


PLACES: dict[str, tuple[str, int | bytes, str]] = {
    "log database": ("logs/*.log", b"books", ".log: entry 0"),
    "replica": ("volumes/*/log.sqlite", b"books", "entry 0"),
    "view": ("volumes/*/view.sqlite", 4096 * 3 - 20, "view"),
    "checkpoints, a size": ("volumes/*/checkpoints/*.notes", 7, "kept checkpoints"),
    "checkpoints, a length": ("volumes/*/checkpoints/*.notes", 11, "kept checkpoints"),
    "checkpoints, a note": ("volumes/*/checkpoints/*.notes", 60, "kept checkpoints"),
    "key file, its kind": ("identity.key", 2, "identity.key"),
    "key file, the seed": ("identity.key", 60, "identity.key"),
    "key of the log": ("log.key", 20, "log.key"),
    "settings, the name": ("volumes/*/volume.json", b"books", "volume.json"),
    "settings, the key": ("volumes/*/volume.json", b"log_key", "volume.json"),
    "settings, the log": ("volumes/*/volume.json", b"local", "volume.json"),
    "settings, a key's digit": ("volumes/*/volume.json", b'",\n  "check"', "volume.json"),
}


@pytest.mark.parametrize("what", PLACES)
def test_one_flipped_byte_is_told_with_its_place(world: FakeComposition, tmp_path: Path, what: str) -> None:
    home = home_with_volume(world, tmp_path)
    assert muni(world, "--home", home, "mkdir", "books:/a").code == 0
    pattern, at, place = PLACES[what]
    (file,) = home.glob(pattern)
    data = bytearray(file.read_bytes())
    data[data.rindex(at) if isinstance(at, bytes) else at] ^= 0x11
    file.write_bytes(data)
    done = muni(world, "--home", home, "audit", "--offline", "books", "--json")
    assert (done.code, done.json["verdict"]) == (12, "damaged"), done.text
    assert any(place in one["place"] and one["consequence"] for one in done.json["findings"]), done.text
    assert muni(world, "--home", home, "audit", "--offline", "books").code == 12


def test_settings_of_another_volume_are_no_forgery(world: FakeComposition, tmp_path: Path) -> None:
    home = home_with_volume(world, tmp_path)
    (file,) = home.glob("volumes/*/volume.json")
    file.write_text(file.read_text().replace(file.parent.name, file.parent.name[::-1][:-1] + "a"))
    done = muni(world, "--home", home, "audit", "--offline", "books")
    assert done.code == 12
    assert "volume.json" in done.text
    assert muni(world, "--home", home, "ls", "books:").code == 6
    assert muni(world, "--home", home, "audit", "--offline", "letters").code == 12  # it may be what it was
    assert muni(world, "--home", home, "volume", "create", "letters").code == 6


def test_a_volume_is_audited_though_the_settings_of_another_are_damaged(
    world: FakeComposition, tmp_path: Path
) -> None:
    home = home_with_volume(world, tmp_path)
    (file,) = home.glob("volumes/*/volume.json")
    assert muni(world, "--home", home, "volume", "create", "letters").code == 0
    file.write_text(file.read_text().replace("books", "boots"))
    assert muni(world, "--home", home, "audit", "--offline", "letters").code == 0
    assert muni(world, "--home", home, "audit", "--offline", "books").code == 12


def test_settings_without_a_checksum_are_those_of_an_older_home(
    world: FakeComposition, tmp_path: Path
) -> None:
    home = home_with_volume(world, tmp_path)
    (file,) = home.glob("volumes/*/volume.json")
    settings = json.loads(file.read_text())
    assert len(settings.pop("check")) == 16
    file.write_text(json.dumps(settings))
    assert muni(world, "--home", home, "audit", "--offline", "books").code == 0


def test_without_a_grid_all_is_audited_but_the_blobs(world: FakeComposition, tmp_path: Path) -> None:
    home = home_with_volume(world, tmp_path)
    world.fails = GridUnknown(home=str(home))
    done = muni(world, "--home", home, "audit", "books", "--json")
    assert (done.code, done.json["verdict"]) == (0, "clean")
    assert done.json["blobs_checked"] == 0
    assert "muni grid join" in done.json["blobs_unchecked"]
    assert done.json["content_unchecked"] is None
    assert muni(world, "--home", home, "audit", "--deep", "books").code == 0
    (log,) = home.glob("logs/*.log")
    log.write_bytes(log.read_bytes().replace(b"books", b"bOoks"))
    assert muni(world, "--home", home, "audit", "books").code == 12


def test_an_audit_of_nothing(world: FakeComposition, tmp_path: Path) -> None:
    assert muni(world, "--home", tmp_path, "audit", "--offline", "books").code == 2
    assert muni(world, "--home", tmp_path, "audit", "--offline", "--deep", "books").code == 2


def test_evidence_is_checked_by_anybody(world: FakeComposition, tmp_path: Path) -> None:
    file = evidence_file(tmp_path)
    done = muni(world, "evidence", "verify", file)
    assert done.code == 0
    assert LIAR.public_key.hex() in done.text
    file.write_bytes(file.read_bytes()[:-1])
    assert muni(world, "evidence", "verify", file).code == 4
    assert muni(world, "evidence", "verify", tmp_path / "none").code == 6


def test_a_replica_is_hosted_and_backed_up(world: FakeComposition, tmp_path: Path) -> None:
    words = log_words("log rehost", world, tmp_path)
    document = muni(world, *words, "--json").json
    assert document["entries"] == 1
    assert muni(world, *words).code == 0
    copies = muni(world, "log", "backup", tmp_path / "log", tmp_path / "copies", "--json").json["copies"]
    assert [Path(copy).name for copy in copies] == [f"{document['volume']}.log"]
    assert len(document["volume"]) == len(id_text(bytes(32)))
    assert muni(world, "log", "backup", tmp_path / "nothing", tmp_path / "copies").code == 6


def test_a_log_is_archived_on_the_grid_and_hosted_from_there(world: FakeComposition, tmp_path: Path) -> None:
    words = log_words("log archive", world, tmp_path)
    home = words[1]
    looked = muni(world, *words, "--look", "--json").json
    assert (looked["entries"], looked["archived"], looked["written"]) == (1, 0, 0)
    assert "ARE NOT" in muni(world, *words, "--look").text
    done = muni(world, *words, "--json").json
    assert (done["entries"], done["archived"], done["tiles"], done["written"]) == (1, 1, 1, 1)
    assert muni(world, *words).lines[0].startswith("1 of 1 entry are on the grid, in 1 tile")
    hosted = muni(
        world, "--home", home, "log", "rehost", "--from-grid", "books", tmp_path / "log", "--json"
    ).json
    assert (hosted["entries"], hosted["tiles"], hosted["missing_from"]) == (1, 1, None)
    assert hosted["volume"] == done["volume"]
    assert hosted["name"] is None
    told = muni(world, "--home", home, "log", "rehost", "--from-grid", "books", tmp_path / "log")
    assert "muni volume move" in told.err


def test_of_an_empty_archive_a_log_is_not_hosted(world: FakeComposition, tmp_path: Path) -> None:
    words = log_words("log archive", world, tmp_path)
    (replica,) = Path(words[1]).glob("volumes/*/log.sqlite")
    replica.unlink()
    done = muni(world, "--home", words[1], "log", "rehost", "--from-grid", "books", tmp_path / "log")
    assert done.code == 3
    assert "lacks all entries of the log" in done.err
    assert not list((tmp_path / "log" / "logs").iterdir())


def test_options_of_one_way_to_host_do_not_go_with_the_other(world: FakeComposition, tmp_path: Path) -> None:
    for option in (["--incomplete"], ["--name", "n"]):
        done = muni(world, "log", "rehost", *option, "books", tmp_path)
        assert done.code == 2
        assert "--from-grid" in done.err
    invitation = "mun:volume:invite:" + "a" * 40
    assert muni(world, "log", "rehost", "--from-grid", invitation, tmp_path).code == 2


def test_a_keeper_archives_the_log(world: FakeComposition, tmp_path: Path) -> None:
    home = home_with_volume(world, tmp_path)
    assert muni(world, "--home", home, "keeper", "once", "books").code == 0
    jobs = muni(world, "--home", home, "queue", "list", "--json").json["jobs"]
    (job,) = (one for one in jobs if one["kind"].startswith("archive."))
    assert job["done"] == job["total"] > 0
    assert job["error"] == ""

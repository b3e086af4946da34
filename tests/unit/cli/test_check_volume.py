"""`muni check` in a volume: each file's state, the worst ones first, and how likely it is lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.cli.support import FakeComposition, muni

from muniment.core.keeping.survival import Hazard, loss_probability
from muniment.ids import NodeId, id_text

YEAR_S, DAY_S = 365 * 86400.0, 86400.0


@pytest.fixture
def world(tmp_path: Path) -> FakeComposition:
    """A file of one blob, one of three, and one that lies in the log; of 4/6, on six nodes without zones."""
    world = FakeComposition()
    world.home = tmp_path / "home"
    for words, content in (
        (["identity", "new", "--unlocked"], b""),
        (["volume", "create", "b", "--coding", "4/6", "--chunk", "64KiB"], b""),
        (["mkdir", "b:/books"], b""),
        (["put", "-", "b:/books/one"], bytes(range(256)) * 20),
        (["put", "-", "b:/books/three"], b"".join(bytes([at]) * 65536 for at in range(3))),
        (["put", "-", "b:/tiny"], b"in the log"),
    ):
        done = muni(world, *words, stdin=content)
        assert done.code == 0, done.err
    return world


def test_every_file_is_told_with_the_chance_of_its_loss(world: FakeComposition) -> None:
    done = muni(world, "check", "b", "--json")
    assert done.code == 0
    told = done.json
    assert (told["healthy"], told["files"], told["degraded"], told["lost"]) == (True, 3, 0, 0)
    three, one, tiny = told["details"]
    assert [file["path"] for file in (three, one, tiny)] == ["/books/three", "/books/one", "/tiny"]
    assert (one["k"], one["n"], one["live_shares"], one["nodes"], one["zones"]) == (4, 6, 6, 6, 6)
    assert (one["last_proven_s"], tiny["k"], tiny["loss_probability"]) == (None, None, 0.0)
    places = [(NodeId(bytes([at]) * 32), "") for at in range(6)]
    expected = loss_probability(4, places, Hazard(YEAR_S, 10 * YEAR_S, DAY_S))
    assert one["loss_probability"] == pytest.approx(expected)
    assert three["loss_probability"] == pytest.approx(3 * expected)
    sooner = muni(world, "check", "b:/books/one", "--mttf", "30d", "--json").json["details"]
    assert [file["path"] for file in sooner] == ["/books/one"]
    assert sooner[0]["loss_probability"] > 100 * expected


def test_the_nodes_that_hold_a_file_are_named(world: FakeComposition) -> None:
    down, *others = world.grid.nodes
    down.faults.down = "off"
    names = [id_text(node) for node in sorted(one.node for one in others)]
    done = muni(world, "check", "b:/books/one")
    assert done.lines[done.lines.index("held by:") + 1 :][: len(names)] == [f"  {name}" for name in names]
    three, one, tiny = muni(world, "check", "b", "--json").json["details"]
    assert (three["held_by"], one["held_by"], tiny["held_by"]) == (names, names, [])


def test_a_keeper_of_this_home_tells_when_it_was_proven(world: FakeComposition) -> None:
    assert muni(world, "keeper", "once", "b").code == 0
    one, *_ = muni(world, "check", "b:/books", "--json").json["details"]
    assert one["last_proven_s"] > 1_700_000_000
    assert "0 min ago" in muni(world, "check", "b:/books").text


def test_what_is_worst_off_comes_first_and_decides_the_exit_code(world: FakeComposition) -> None:
    whole = muni(world, "check", "b")
    assert whole.lines[0] == "healthy: 3 files at b:/"
    assert "in the log" in whole.text
    assert "365 days" in whole.lines[-1]
    for node in world.grid.nodes[:2]:
        node.faults.down = "off"
    degraded = muni(world, "check", "b", "--json")
    assert degraded.code == 10
    assert (degraded.json["degraded"], degraded.json["lost"]) == (2, 0)
    world.grid.nodes[2].faults.down = "off"
    lost = muni(world, "check", "b")
    assert (lost.code, lost.lines[0]) == (11, "NOT READABLE: 3 files at b:/")
    assert "certain" in lost.lines[2]
    assert muni(world, "check", "b:/tiny").code == 0


def test_verify_reads_every_share(world: FakeComposition) -> None:
    world.grid.damage(lambda key: key.number == 0)
    assert muni(world, "check", "b").code == 0
    read = muni(world, "check", "b", "--verify", "--json")
    assert (read.code, read.json["verified"], read.json["details"][0]["live_shares"]) == (10, True, 5)


@pytest.mark.parametrize(
    "words", [["nothing"], ["b:/nowhere"], ["b", "--mttf", "forever"], ["b", "--mttf", "0"]]
)
def test_what_is_neither_is_refused(world: FakeComposition, words: list[str]) -> None:
    assert muni(world, "check", *words).code == 2

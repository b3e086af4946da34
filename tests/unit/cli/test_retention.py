"""`muni retention`, `hold` and `prune`: rules are set and shown, and what goes is told before and after."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.cli.support import FakeComposition, muni

OLD, NEW = bytes(range(256)) * 20, bytes(range(255, -1, -1)) * 20


@pytest.fixture
def world(tmp_path: Path) -> FakeComposition:
    world = FakeComposition()
    world.home = tmp_path / "home"
    for words in (["identity", "new", "--unlocked"], ["volume", "create", "b"], ["mkdir", "b:/books"]):
        assert muni(world, *words).code == 0
    for content in (OLD, NEW):
        assert muni(world, "put", "-", "b:/books/ledger", stdin=content).code == 0
    return world


def test_rules_are_set_shown_and_taken_away(world: FakeComposition) -> None:
    shown = muni(world, "retention", "show", "b:/books/ledger")
    assert shown.text.strip() == "versions at b:/books/ledger are kept for ever: no rule says else"
    assert muni(world, "retention", "set", "b:", "--keep", "3y").code == 0
    assert muni(world, "retention", "set", "b:/books", "--keep", "36h").code == 0
    lines = muni(world, "retention", "show", "b:/books/ledger").lines
    assert lines[0] == "versions at b:/books/ledger are kept 36 hours"
    assert [line.split()[0] for line in lines[1:]] == ["b:/", "b:/books"]
    assert muni(world, "retention", "show", "b:").lines[0] == "versions at b:/ are kept 3 years"
    assert muni(world, "retention", "set", "b:/books", "--inherit").code == 0
    document = muni(world, "retention", "show", "b:/books/ledger", "--json").json
    assert (document["keep_s"], len(document["rules"])) == (3 * 365 * 86400, 1)
    again = muni(world, "retention", "set", "b:", "--keep", "3y")
    assert (again.code, "already" in again.err) == (2, True)


@pytest.mark.parametrize(
    "words", [["--keep", "3 y"], ["--keep", "-1"], ["--keep", "9999y"], [], ["--keep", "1d", "--inherit"]]
)
def test_a_time_that_is_none_is_refused(world: FakeComposition, words: list[str]) -> None:
    assert muni(world, "retention", "set", "b:", *words).code == 2


def test_a_prune_is_shown_asked_for_and_told(world: FakeComposition) -> None:
    nothing = muni(world, "prune", "b", "-y")
    assert (nothing.code, nothing.err.strip()) == (0, "nothing is to go")
    assert muni(world, "retention", "set", "b:", "--keep", "0").code == 0
    dry = muni(world, "prune", "-n", "b")
    assert (dry.code, dry.lines[1].split()[0]) == (0, "b:/books/ledger")
    assert "1 version" in dry.lines[1]
    assert "would go" in dry.err
    assert muni(world, "cat", "b:/books/ledger", "--at", "2").code == 0
    unasked = muni(world, "prune", "b")
    assert (unasked.code, "say so with -y" in unasked.err) == (2, True)
    done = muni(world, "prune", "b", "-y")
    assert (done.code, "in entry 5" in done.err) == (0, True)

    assert muni(world, "cat", "b:/books/ledger").out == NEW
    assert muni(world, "cat", "b:/books/ledger", "--at", "3").out == NEW
    for words in (
        ["cat", "b:/books/ledger", "--at", "2"],
        ["get", "b:/books/ledger", world.home / "back", "--at", "2"],
        ["get", "-r", "b:", world.home / "all", "--at", "2"],
        ["restore", "b:/books/ledger", "--at", "2"],
        ["cp", "b:/books/ledger", "b:/old", "--at", "2"],
        ["share", "b:/books/ledger", "--at", "2"],
    ):
        gone = muni(world, *words)
        assert gone.code == 2, words
        assert "pruned: by entry 5 under the rule of entry 4" in gone.err, words
    assert not (world.home / "back").exists()
    assert not (world.home / "all").exists()
    assert muni(world, "ls", "b:/books", "--at", "2").text.strip() == "ledger"
    history = muni(world, "history", "b:", "--json").json["entries"]
    assert [one["what"] for one in history[:2]] == [
        "prunes 1 blob",
        "lets versions of inode 1 be kept 0 seconds",
    ]


def test_a_hold_keeps_what_a_rule_lets_go(world: FakeComposition) -> None:
    assert muni(world, "retention", "set", "b:", "--keep", "0").code == 0
    assert muni(world, "hold", "on", "b:/books", "--reason", "case 7").code == 0
    shown = muni(world, "retention", "show", "b:/books/ledger")
    assert "a hold keeps them whatever rules say" in shown.lines[0]
    assert "case 7" in shown.text
    kept = muni(world, "prune", "b", "-y")
    assert (kept.code, kept.err.strip()) == (0, "nothing is to go; holds keep 1 blob")
    assert muni(world, "hold", "off", "b:/books", "--reason", "case 7 is closed").code == 0
    assert muni(world, "prune", "b", "-y", "--json").json["blobs"] == 1


def test_a_hold_needs_a_reason(world: FakeComposition) -> None:
    for words in (
        ["hold", "on", "b:"],
        ["hold", "on", "b:", "--reason", ""],
        ["hold", "on", "b:", "--reason", "a\nb"],
    ):
        assert muni(world, *words).code == 2

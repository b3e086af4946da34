"""`muni queue`: what a person sees of a keeper's work, and puts right."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from tests.unit.cli.queue_support import BLOB, NOW_S, home_with_queue
from tests.unit.cli.support import FakeComposition, muni

from muniment.core.keeping.job import new_job
from muniment.ids import JobId, id_text
from muniment.node.home_queue import open_queue


@pytest.fixture
def world(tmp_path: Path) -> FakeComposition:
    return FakeComposition(home=home_with_queue(tmp_path / "home"))


def states(world: FakeComposition) -> dict[int, str]:
    return {job["id"]: job["state"] for job in muni(world, "queue", "list", "--json").json["jobs"]}


def test_a_home_without_a_queue_has_nothing_to_do_and_gets_none(tmp_path: Path) -> None:
    world = FakeComposition(home=tmp_path / "home")
    done = muni(world, "queue", "list")
    assert (done.code, done.text) == (0, "0 jobs to do, 0 set aside\n")
    assert muni(world, "queue", "list", "--json").json == {"jobs": [], "complete": True, "kinds": {}}
    assert muni(world, "queue", "retry", "--all").text == "0 jobs taken up again\n"
    assert not world.home.exists()


def test_the_list_shows_all_kinds_and_what_failed(world: FakeComposition) -> None:
    lines = muni(world, "queue", "list").text.splitlines()
    assert lines[0].split() == ["id", "kind", "key", "step", "left", "progress", "state", "error"]
    assert lines[1].split() == ["1", "scan", "books", "run", "1", "1000", "of", "4100", "due"]
    assert " set aside after 1 try " in lines[2]
    assert lines[2].endswith(" too-few-shares: blob aaaqeaye needs 4 good shares")
    assert lines[3].split()[3:8] == ["verify", "3", "-", "waits", "until"]
    assert lines[4].split()[:2] == ["4", "from-tomorrow"]
    assert lines[5] == "3 jobs to do, 1 set aside"


def test_a_list_can_be_a_part(world: FakeComposition) -> None:
    def ids(*words: str) -> list[int]:
        return [job["id"] for job in muni(world, "queue", "list", *words, "--json").json["jobs"]]

    assert ids("--aside") == [2]
    assert ids("--kind", "move") == [3]
    assert ids("--limit", "2") == [1, 2]
    assert not muni(world, "queue", "list", "--limit", "2", "--json").json["complete"]
    assert muni(world, "queue", "list", "--limit", "4", "--json").json["complete"]
    part = muni(world, "queue", "list", "--limit", "2")
    assert part.err == "only the first 2 are shown; '--limit 0' shows all\n"
    assert part.text.endswith("3 jobs to do, 1 set aside\n")


def test_a_long_list_is_whole(world: FakeComposition) -> None:
    with open_queue(world.home) as queue:
        queue.add([new_job("scan", str(at)) for at in range(2500)], NOW_S)
    assert len(muni(world, "queue", "list", "--limit", "0", "--json").json["jobs"]) == 2504


def test_one_job_is_told_whole(world: FakeComposition) -> None:
    told = muni(world, "queue", "show", "3", "--json").json
    assert (told["state"], told["due_s"], told["args"]) == ("waiting", 9e9, [id_text(BLOB), 3])
    assert [(step["number"], step["name"], step["last"], step["args"]) for step in told["steps"]] == [
        (1, "verify", False, None), (3, "tell", False, ["who"]), (2, "give-up", True, None),
    ]  # fmt: skip
    text = muni(world, "queue", "show", "3").text
    assert f'arguments  ["{id_text(BLOB)}", 3]\n' in text
    assert 'step 3     tell ["who"]\nstep 2     give-up (last)\n' in text
    assert f"box after  {id_text(BLOB)}" in muni(world, "queue", "show", "1").text
    assert "error     too-few-shares: " in muni(world, "queue", "show", "2").text


def test_a_value_that_cannot_be_read_is_shown_all_the_same(world: FakeComposition) -> None:
    with sqlite3.connect(world.home / "queue.sqlite") as sqlite:
        sqlite.execute("UPDATE jobs SET args = x'ffff'")
    sqlite.close()
    assert muni(world, "queue", "show", "1", "--json").json["args"] == "777q"


def test_a_job_is_taken_up_again(world: FakeComposition) -> None:
    assert states(world) == {1: "due", 2: "aside", 3: "waiting", 4: "due"}
    assert muni(world, "queue", "retry", "3", "3").text == "1 job taken up again\n"
    assert states(world) == {1: "due", 2: "aside", 3: "due", 4: "due"}
    assert muni(world, "queue", "retry", "--all", "--json").json == {"retried": [2]}
    assert set(states(world).values()) == {"due"}


def test_retry_needs_to_know_which(world: FakeComposition) -> None:
    for words in ([], ["2", "--all"]):
        done = muni(world, "queue", "retry", *words)
        assert done.code == 2
        assert "name jobs, or give --all" in done.err


def test_a_job_is_dropped(world: FakeComposition) -> None:
    assert muni(world, "queue", "drop", "2", "4").text == "2 jobs dropped\n"
    assert set(states(world)) == {1, 3}


@pytest.mark.parametrize("command", ["show", "retry", "drop"])
def test_a_job_that_is_not_there_is_told_and_no_other_is_changed(
    world: FakeComposition, command: str
) -> None:
    before = states(world)
    words = ["9"] if command == "show" else ["2", "9"]
    done = muni(world, "queue", command, *words)
    assert done.code == 2
    assert done.err.splitlines()[0] == "muni: there is no job 9 in the queue"
    assert states(world) == before


def test_a_queue_of_a_later_version_is_refused(world: FakeComposition) -> None:
    with sqlite3.connect(world.home / "queue.sqlite") as sqlite:
        sqlite.execute("PRAGMA user_version = 3")
    sqlite.close()
    done = muni(world, "queue", "list")
    assert done.code == 4
    assert done.err.startswith("muni: work queue has version 3, which this program does not know\n")


def test_what_a_terminal_would_obey_is_not_printed(world: FakeComposition) -> None:
    with sqlite3.connect(world.home / "queue.sqlite") as sqlite:
        sqlite.execute("UPDATE jobs SET error = 'red \x1b[31m' WHERE id = 2")
    sqlite.close()
    assert "red \\x1b[31m" in muni(world, "queue", "list").text


def test_a_keeper_that_works_meanwhile_sees_it(world: FakeComposition) -> None:
    with open_queue(world.home) as keeper:
        assert muni(world, "queue", "drop", "1").code == 0
        assert keeper.job(JobId(1)) is None
        assert muni(world, "queue", "retry", "2").code == 0
        assert [job.id for job in keeper.ready(NOW_S, ["repair"], without=(), limit=9).jobs] == [2]

"""A keeper over real processes: what is lost comes back, with the verify right only."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.muni_command import PATIENCE_S, Done, User
from tests.e2e.node_processes import Running, running_node

DATA = random.Random(11).randbytes(9_000_000)


def good(done: Done) -> str:
    assert done.code == 0, done.err
    return done.text


class Place:
    """Eight nodes and a log service, an author with a volume, and a keeper who has a verify capability."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self.nodes: dict[Path, tuple[contextlib.ExitStack, Running]] = {}
        roster = folder / "roster"
        self.author, self.keeper = (User(folder / name, grid=str(roster)) for name in ("author", "keeper"))
        for user in (self.author, self.keeper):
            user.home.mkdir()
        for at in range(8):
            stack = self._stack.enter_context(contextlib.ExitStack())
            home = folder / f"node{at}"
            self.nodes[home] = stack, stack.enter_context(running_node(home))
        roster.write_text("".join(f"{node.address}\n" for _, node in self.nodes.values()))

    def __enter__(self) -> Place:
        service = self._folder / "log"
        address = good(self.author.muni("log", "init", service))
        process = self._stack.enter_context(
            self.author.starting("log", "run", service, stderr=subprocess.DEVNULL)
        )
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"serving ")
        (self.author.home / "big").write_bytes(DATA)
        good(self.author.muni("identity", "new", "--unlocked"))
        good(self.author.muni("volume", "create", "books", "--log", address, "--own-name", "anna"))
        good(self.author.muni("put", "big", "books:/big"))
        cap = good(self.author.muni("volume", "cap", "books", "--right", "verify"))
        good(self.keeper.muni("volume", "join", "-", stdin=cap.encode()))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def kill(self, count: int) -> None:
        """So many nodes that hold shares end for good."""
        holding = [home for home in self.nodes if any((home / "store" / "shares").glob("*/*"))]
        for home in holding[:count]:
            self.nodes.pop(home)[0].close()

    def kept(self, *words: str) -> tuple[int, dict[str, Any]]:
        """What the keeper did."""
        done = self.keeper.muni("keeper", "once", "books", "--json", *words)
        assert done.out, done.err
        return done.code, json.loads(done.out)["kept"][0]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with Place(tmp_path_factory.mktemp("keeper")) as made:
        yield made


def test_shares_of_dead_nodes_come_back_by_the_verify_right_alone(place: Place) -> None:
    assert place.keeper.muni("cat", "books:/big").code != 0
    code, first = place.kept()
    assert (code, first["conditions"]["whole"], first["leased"]) == (0, 3, 18)
    place.kill(2)
    code, waiting = place.kept()
    assert (code, waiting["rebuilt_shares"]) == (0, 0)  # they may come back within a day
    code, repaired = place.kept("--patience", "0")
    assert code == 0
    assert repaired["rebuilt_shares"] > 0
    place.kill(2)  # what is left would not do without the shares that were rebuilt
    good(place.author.muni("get", "books:/big", "back"))
    assert (place.author.home / "back").read_bytes() == DATA


def test_a_keeper_runs_until_it_is_stopped_and_leaves_other_commands_alone(place: Place) -> None:
    words = ("keeper", "run", "books", "--every", "0.0001", "--patience", "0", "--json")
    with place.keeper.starting(*words) as process:
        assert process.stdout is not None
        scans = [json.loads(process.stdout.readline())["scans"] for _ in range(3)]
        assert scans == [1, 2, 3]
        assert "books" in good(place.keeper.muni("volume", "info", "books"))
        assert good(place.keeper.muni("queue", "list"))
        second = place.keeper.muni("keeper", "once", "books")
        assert second.code != 0
        assert "another process is using" in second.err
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0


def test_what_was_put_is_left_to_a_keeper_elsewhere_that_has_reported_it(tmp_path: Path) -> None:
    with Place(tmp_path) as place:
        deputy = User(tmp_path / "deputy", grid=place.author.grid)
        shutil.copytree(place.author.home, deputy.home)
        (deputy.home / "muniment" / "account.key").unlink()
        (place.author.home / "note").write_bytes(b"hello")

        def own() -> tuple[int, int]:
            """Shares that the author's account has, and of them in the trash."""
            total = json.loads(good(place.author.muni("usage", "--json")))["accounts"][0]["total"]
            return total["share_count"], total["trashed_count"]

        good(place.author.muni("put", "note", "books:/note"))  # nobody has reported anything
        assert own() == (18, 0)
        good(deputy.muni("keeper", "once", "books"))
        assert own() == (18, 0)
        good(place.author.muni("put", "note", "books:/again"))
        assert own() == (18, 18)
        good(place.author.muni("get", "books:/big", "back"))
        assert (place.author.home / "back").read_bytes() == DATA

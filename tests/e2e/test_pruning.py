"""A volume's past given up, over real processes: from the rule to the disks of the nodes, and its audit."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.muni_command import Done, User
from tests.e2e.node_processes import eventually, running_node

from muniment.core.tree_state import TreeReading
from muniment.engine.volume_tree import find
from muniment.net.server import free_port
from muniment.node import volumes
from muniment.node.config import NodeConfig, Times
from muniment.spec.act import Prune
from muniment.spec.blob import BlobName
from muniment.spec.statement import encode_pruned

NODES = 6
CHANCE = random.Random(7)
OLD, NEW, HELD, AFTER = (CHANCE.randbytes(20_000) for _ in range(4))


def good(done: Done) -> str:
    assert done.code == 0, done.err
    return done.text


class Place:
    """Six nodes, a log service, an author, and a keeper who has joined as auditor.

    The nodes' leases for uploads end at once, so what no keeper leases goes; first into a trash that keeps
    for long, and from `purge` on for a second.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes = [folder / f"node{at}" for at in range(NODES)]
        self._stack, self._nodes = contextlib.ExitStack(), contextlib.ExitStack()
        roster = folder / "roster"
        self.author, self.keeper = (User(folder / name, grid=str(roster)) for name in ("author", "keeper"))
        for user in (self.author, self.keeper):
            user.home.mkdir()
        lines = []
        for home in self.nodes:
            times = Times(lease_s=1, trash_grace_s=3600)
            config = NodeConfig(capacity_bytes=1 << 30, port=free_port("127.0.0.1"), times=times)
            lines.append(f"{self._nodes.enter_context(running_node(home, config)).address}\n")
        roster.write_text("".join(lines))

    def __enter__(self) -> Place:
        service = self.folder / "log"
        address = good(self.author.muni("log", "init", service))
        process = self._stack.enter_context(
            self.author.starting("log", "run", service, stderr=subprocess.DEVNULL)
        )
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"serving ")
        for user, name in ((self.author, "anna"), (self.keeper, "otto")):
            good(user.muni("identity", "new", "--unlocked"))
            if user is self.author:
                good(user.muni("volume", "create", "books", "--log", address, "--own-name", name))
                invitation = good(user.muni("member", "invite", "books"))
        good(self.keeper.muni("volume", "join", invitation, "--role", "auditor", "--own-name", "otto"))
        good(self.author.muni("member", "accept", "books", "otto", "--role", "auditor"))
        return self

    def __exit__(self, *_: object) -> None:
        self._nodes.close()
        self._stack.close()

    def put(self, content: bytes, path: str) -> None:
        good(self.author.muni("put", "-", path, stdin=content))

    def keep(self) -> dict[str, Any]:
        kept: list[dict[str, Any]] = json.loads(good(self.keeper.muni("keeper", "once", "books", "--json")))[
            "kept"
        ]
        return kept[0]

    def purge(self) -> None:
        """Start the nodes anew; from now on they delete what is a second in the trash."""
        self._nodes.close()
        for home in self.nodes:
            config = (home / "node.toml").read_text()
            (home / "node.toml").write_text(config.replace("trash_grace_s = 3600", "trash_grace_s = 1"))
            self._nodes.enter_context(running_node(home))

    def shares(self) -> list[str]:
        """The names of all share files on the nodes' disks."""
        found = (path for home in self.nodes for path in (home / "store" / "shares").rglob("*"))
        return sorted(path.name for path in found if path.is_file())

    def forge(self, path: bytes) -> int:
        """Prune what a file has as its content now, as no program of ours would; returns the entry."""

        def blobs(state: TreeReading) -> tuple[BlobName, ...]:
            inode = find(state, path)
            extents = state.extents(inode.inode, 0, inode.size)
            return tuple(one.source.name for one in extents if not isinstance(one.source, bytes))

        async def run() -> int:
            home = self.author.home / "muniment"
            async with volumes.open_volume(home, "books", str) as opened:
                volume = opened.volume
                names = await volume.run(lambda: blobs(volume.view.reading()))
                statement = encode_pruned(names)
                done = await volume.declare(lambda s: (Prune(s.size, s.time_ns, len(names)), statement))
                return done.index

        return asyncio.run(run())


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with Place(tmp_path) as made:
        yield made


def test_what_a_rule_lets_go_leaves_the_disks_and_the_rest_stays(place: Place) -> None:
    author = place.author
    place.put(OLD, "books:/file")
    good(author.muni("mkdir", "books:/case"))
    place.put(HELD, "books:/case/file")
    place.put(NEW, "books:/file")
    place.put(AFTER, "books:/case/file")
    content = set(place.shares())  # nothing of the log yet, whose tiles come and go
    assert place.keep()["leased"] == len(content) == 4 * NODES
    good(author.muni("retention", "set", "books:", "--keep", "0"))
    good(author.muni("hold", "on", "books:/case", "--reason", "case 7"))
    pruned = json.loads(good(author.muni("prune", "books", "-y", "--json")))
    assert (pruned["blobs"], pruned["held_blobs"]) == (1, 1)
    assert [one["path"] for one in pruned["files"]] == ["/file"]

    assert place.keep()["collected"] == NODES
    assert content <= set(place.shares())
    place.purge()
    eventually(lambda: len(content & set(place.shares())) <= 3 * NODES)
    left = content & set(place.shares())
    assert (len(left), len({name.partition(".")[0] for name in left})) == (3 * NODES, 3)  # one blob went

    history = json.loads(good(author.muni("history", "books:/case/file", "--json")))["versions"]
    first = str(history[-1]["entry"])
    assert author.muni("cat", "books:/case/file", "--at", first).out == HELD
    assert author.muni("cat", "books:/case/file").out == AFTER
    assert author.muni("cat", "books:/file").out == NEW
    versions = json.loads(good(author.muni("history", "books:/file", "--json")))["versions"]
    gone = author.muni("cat", "books:/file", "--at", str(versions[-1]["entry"]))
    assert gone.code == 2
    assert f"pruned: by entry {pruned['entries'][0]} under the rule" in gone.err

    good(author.muni("check", "books"))
    assert author.muni("audit", "--deep", "books").text.startswith("clean")
    checks = place.keeper.muni("audit", "books")
    assert (checks.code, "not checked: prunes" in checks.text) == (0, True)
    (report,) = json.loads(good(author.muni("keeper", "log", "books", "--json")))["reports"]
    assert (report["author"], report["record"]["blobs"]) == ("otto", 4)

    forged = place.forge(b"file")
    told = author.muni("audit", "books", "--json")
    assert told.code == 13
    findings = json.loads(told.out)["findings"]
    assert [one["place"] for one in findings] == [f"entry {forged}"]
    anna = json.loads(good(author.muni("volume", "info", "books", "--json")))["member"]
    assert anna in findings[0]["what"]

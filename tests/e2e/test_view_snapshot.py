"""A newcomer to a long log, as processes: a state that somebody signed, the entries behind it, no others."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.muni_command import PATIENCE_S, User
from tests.e2e.node_processes import eventually, running_node

from muniment.core.entries import Place, seal_transaction
from muniment.crypto.entries import entry_hash, sign_entry
from muniment.crypto.member import MemberSecret
from muniment.logs.sqlite import SqliteLog
from muniment.node import volumes
from muniment.node.volume_home import REPLICA_FILE, find_volume
from muniment.spec.operation import ROOT, Kind, Make
from muniment.spec.transaction import Transaction

ENTRIES = 2000
"""Of the author's log before the snapshot."""


@dataclass(frozen=True)
class World:
    """A grid and a log service, as processes; two people."""

    address: str
    anna: User
    bert: User


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(running_node(tmp_path / f"node{at}")) for at in range(2)]
        roster = tmp_path / "roster"
        roster.write_text("".join(f"{node.address}\n" for node in nodes))
        anna, bert = (User(tmp_path / name, grid=str(roster)) for name in ("anna", "bert"))
        for user in (anna, bert):
            user.home.mkdir()
        folder, printed = tmp_path / "log", tmp_path / "printed"
        address = anna.muni("log", "init", folder).text
        with printed.open("wb") as output:
            process = stack.enter_context(anna.starting("log", "run", folder, stdout=output, stderr=output))
            eventually(lambda: f"serving {address}" in printed.read_text())
            yield World(address, anna, bert)
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0


def good(user: User, *words: str | Path) -> str:
    done = user.muni(*words)
    assert done.code == 0, done.err
    return done.text


def document(user: User, *words: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(good(user, *words, "--json"))
    return found


async def write(user: User, count: int) -> None:
    """So many folders, each an entry; sent together, since what comes here is not about them."""
    async with volumes.open_volume(user.home / "muniment", "books", lambda: "") as opened:
        volume, secret, signed = opened.volume, opened.held, list[bytes]()
        assert isinstance(secret, MemberSecret)
        frontier = volume.follower.frontier
        place = Place.next(
            volume.membership,
            secret.member,
            seen_size=frontier.size,
            seen_root=frontier.root(),
            now_ns=volume.now_ns(),
        )
        keys = volume.newest_keys()
        for number in range(count):
            made = Transaction((Make(ROOT, b"%04d" % number, Kind.FOLDER, 0o755),))
            entry = seal_transaction(place, made, keys, os.urandom)
            signed.append(sign_entry(secret.identity, entry))
            place = place.after(entry_hash(signed[-1]))
        await volume._send(signed)
        await volume.sync()


def replica(user: User) -> tuple[int, int]:
    """First entry, and the index behind the last."""
    path = find_volume(user.home / "muniment", "books").folder / REPLICA_FILE
    if not path.exists():
        return 0, 0
    store = SqliteLog(path)
    try:
        return store.start, store.size
    finally:
        store.close()


async def test_a_new_member_fetches_the_state_and_the_tail(world: World) -> None:
    anna, bert = world.anna, world.bert
    for user in (anna, bert):
        good(user, "identity", "new", "--unlocked")
    words = ("--log", world.address, "--own-name", "anna", "--coding", "1/2", "--happy", "2")
    good(anna, "volume", "create", "books", *words)
    await write(anna, ENTRIES)
    made = document(anna, "volume", "snapshot-view", "books")
    assert made["entries"] == ENTRIES + 1
    assert made["size_bytes"] > 2048

    good(bert, "volume", "join", good(anna, "member", "invite", "books"), "--own-name", "bert")
    assert replica(bert) == (0, 0)  # asking takes no entries at all
    good(anna, "member", "accept", "books", "bert")
    size = document(anna, "volume", "info", "books")["entries"]
    tail = size - made["entries"]
    assert tail == 3

    listed = bert.muni("--log-level", "info", "ls", "books:/")
    assert listed.code == 0, listed.err
    assert len(listed.text.split()) == ENTRIES
    counted = re.search(r"entry (\d+): (\d+) entries fetched of (\d+)", listed.err)
    assert counted, listed.err
    assert [int(number) for number in counted.groups()] == [made["index"], tail + 1, size]
    assert replica(bert) == (made["entries"], size)
    infos = [document(user, "volume", "info", "books") for user in (anna, bert)]
    assert infos[0]["state_hash"] == infos[1]["state_hash"]

    good(bert, "mkdir", "books:/of-bert")
    early = bert.muni("ls", "books:/", "--at", "5")
    assert early.code == 3
    assert "muni volume fetch" in early.err
    assert "muni volume fetch" in bert.muni("audit", "books", "--offline").err
    told = bert.muni("history", "books:")
    assert (told.code, len(told.text.splitlines())) == (0, tail + 1)
    assert f"before entry {made['entries']} is not on this machine" in told.err
    assert document(bert, "volume", "fetch", "books") == {"fetched": True, "entries": size + 1}
    assert len(good(bert, "ls", "books:/", "--at", "5").split()) == 5
    assert document(bert, "volume", "fetch", "books") == {"fetched": False, "entries": 0}
    report = document(bert, "audit", "books")
    assert (report["verdict"], report["view_snapshots"], report["entries"]) == ("clean", 1, size + 1)

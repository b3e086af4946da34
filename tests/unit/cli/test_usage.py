"""`muni usage`: what the account and a volume use."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.cli.support import FakeComposition, muni
from tests.unit.cli.volume_support import Person, serve_log

from muniment.ids import id_text


@pytest.fixture
def world() -> FakeComposition:
    return FakeComposition()


def test_usage_of_the_own_account(world: FakeComposition, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 400)
    home = ("--home", tmp_path / "home")
    empty = muni(world, *home, "usage", "--json").json["accounts"]
    assert [one["total"]["share_count"] for one in empty] == [0]
    assert muni(world, *home, "put", tmp_path / "file").code == 0
    done = muni(world, *home, "usage")
    title, head, *rows, total = done.lines
    assert "your account: what you stored, until its leases end" in title
    assert head.split()[:3] == ["node", "shares", "used"]
    assert [row.split()[0] for row in rows] == [id_text(node.node)[:12] for node in world.grid.nodes]
    assert total.split()[:2] == ["all", "6"]
    (account,) = muni(world, *home, "usage", "--json").json["accounts"]
    assert account["kind"] == "own"
    assert account["total"]["used_bytes"] == world.grid.used_bytes
    assert account["total"]["share_count"] == sum(node["share_count"] for node in account["nodes"]) == 6
    assert account["total"]["first_expiry_s"] > 0


def test_a_node_that_is_away_is_named_and_the_others_summed(world: FakeComposition, tmp_path: Path) -> None:
    world.grid.nodes[0].faults.down = "switched off"
    done = muni(world, "--home", tmp_path / "home", "usage")
    assert done.code == 0
    assert "unreachable" in done.lines[2]
    assert "1 node did not answer: there may be more" in done.err


def test_a_volume_is_shown_by_the_account_that_keeps_it(
    world: FakeComposition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve_log(tmp_path / "log", monkeypatch)
    anna = Person(world, tmp_path, "anna")
    anna.create()
    (tmp_path / "file").write_bytes(bytes(range(256)) * 400)
    assert anna.muni("put", tmp_path / "file", "books:/file").code == 0
    assert anna.muni("keeper", "once", "books").code == 0
    accounts = {one["kind"]: one for one in anna.muni("usage", "books:", "--json").json["accounts"]}
    assert set(accounts) == {"own", "keeper", "archive"}
    printed = anna.muni("keeper", "account", "books", "--json").json
    assert printed == {kind: accounts[kind]["account"] for kind in ("keeper", "archive")}
    assert anna.muni("keeper", "account", "books").lines == [
        f"keeper   {printed['keeper']}",
        f"archive  {printed['archive']}",
    ]
    assert accounts["keeper"]["total"]["share_count"] >= 6
    assert accounts["own"]["total"]["share_count"] >= 6
    assert "the volume's content, as your keeper leases it" in anna.muni("usage", "books").text
    assert anna.muni("usage", "nothing").code == 2

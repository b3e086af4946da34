"""node, introducer, grid and version: what is passed on, and what is printed."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.cli.support import INTRODUCER_ADDRESS, NODE_ADDRESS, FakeComposition, muni

from muniment.errors import ConfigInvalid, FolderBusy, InvalidRequest, NodeUnreachable
from muniment.gateways.cli.composition import NewNode
from muniment.ids import id_text
from muniment.spec.wire import NodeStatus


@pytest.fixture
def world() -> FakeComposition:
    return FakeComposition()


def test_node_init_prints_the_address_and_what_comes_next(world: FakeComposition, tmp_path: Path) -> None:
    folder = tmp_path / "n"
    done = muni(world, "node", "init", folder)
    assert done.text == f"{NODE_ADDRESS}\n"
    assert f"muni node run {folder}" in done.err
    assert world.new_nodes == [NewNode(10 << 30)]


def test_node_init_passes_everything_on(world: FakeComposition) -> None:
    words = [
        "--capacity", "1.5TB", "--host", "::1", "--port", "4000", "--advertise", "me:4", "--zone", "attic",
        "--store", "s3://bucket", "--introducer", INTRODUCER_ADDRESS, "--introducer", "other",
        "--invite", "a" * 52, "--invite", "b" * 52 + ":10GB",
    ]  # fmt: skip
    done = muni(world, "node", "init", "n", *words, "--json")
    assert done.json == {"address": NODE_ADDRESS, "folder": "n", "capacity_bytes": 1_500_000_000_000}
    assert not done.err
    (new,) = world.new_nodes
    invited = (("a" * 52, -1), ("b" * 52, 10 * 10**9))
    assert new == NewNode(
        1_500_000_000_000, "::1", 4000, "me:4", "attic", "s3://bucket", (INTRODUCER_ADDRESS, "other"), invited
    )


@pytest.mark.parametrize("options", [["--capacity", "much"], ["--invite", "a:b"], ["--port", "70000"]])
def test_node_init_refuses_what_it_does_not_understand(world: FakeComposition, options: list[str]) -> None:
    assert muni(world, "node", "init", "n", *options).code == 2
    assert not world.new_nodes


@pytest.mark.parametrize(("kind", "address"), [("node", NODE_ADDRESS), ("introducer", INTRODUCER_ADDRESS)])
def test_run_prints_its_address_when_it_serves(
    world: FakeComposition, kind: str, address: str, tmp_path: Path
) -> None:
    assert muni(world, kind, "run", tmp_path).text == f"serving {address}\n"
    assert muni(world, kind, "run", tmp_path, "--json").json == {"serving": address}
    world.fails = FolderBusy("n")
    done = muni(world, kind, "run", tmp_path)
    assert (done.code, done.text) == (6, "")
    assert "another process is using n" in done.err


def test_introducer_init_prints_the_address(world: FakeComposition) -> None:
    done = muni(world, "introducer", "init", "i", "--port", "5000")
    assert done.lines == [INTRODUCER_ADDRESS]
    assert "muni introducer run i" in done.err


@pytest.mark.parametrize(
    "words", [["node", "run"], ["node", "status"], ["introducer", "run"], ["log", "run"]]
)
def test_a_folder_that_is_not_there_is_said_with_how_to_make_it(
    world: FakeComposition, words: list[str], tmp_path: Path
) -> None:
    done = muni(world, *words, tmp_path / "missing")
    assert done.code == 6
    assert f"there is no such folder; 'muni {words[0]} init {tmp_path / 'missing'}' makes one" in done.err


def test_node_status_for_people_programs_and_roster_files(world: FakeComposition, tmp_path: Path) -> None:
    world.left = [7, 6]
    done = muni(world, "node", "status", tmp_path)
    assert "4.0 MB in 7 shares" in done.text
    assert "5.0 MB" in done.text
    assert "2 shares" in done.text
    assert "7 (3.5 MB), without those in the trash" in done.text
    assert "25% of this round: 3 shares (1.5 MB)" in done.text
    assert "2 shares damaged or missing" in done.text
    document = muni(world, "node", "status", NODE_ADDRESS, "--json").json
    assert (document["free_bytes"], document["quarantined_count"]) == (5_000_000, 2)
    assert (document["scrub"]["done"], document["leased_count"]) == (0.25, 6)
    assert muni(world, "node", "status", NODE_ADDRESS, "--record").text.strip() == document["record"]


def test_drain_tells_what_is_left_until_nothing_is(
    world: FakeComposition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muniment.gateways.cli.drain._LOOK_S", 0.0)
    world.left = [2, 2, 1]
    done = muni(world, "node", "drain", tmp_path)
    assert (done.code, world.draining) == (0, True)
    assert done.err.splitlines() == ["2 leases left (1.0 MB)", "1 lease left (500.0 kB)"]
    assert done.text == "nobody has a lease on a share of this node any more: it may be stopped\n"
    assert "yes: takes no new shares" in muni(world, "node", "status", tmp_path).text


def test_drain_need_not_wait_and_can_be_undone(world: FakeComposition, tmp_path: Path) -> None:
    world.left = [2]
    done = muni(world, "node", "drain", "--no-wait", tmp_path)
    assert done.text == "the node is drained from now on: 2 leases left (1.0 MB)\n"
    undone = muni(world, "node", "drain", "--undo", tmp_path)
    assert (undone.text, world.draining) == ("the node takes shares again\n", False)


def test_a_node_that_is_stopped_meanwhile_ends_the_waiting(
    world: FakeComposition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muniment.gateways.cli.drain._LOOK_S", 0.0)

    async def gone(target: str) -> tuple[str, NodeStatus]:
        world.fails = ConfigInvalid(where="n", reason="its node does not run")
        raise NodeUnreachable(node=b"n" * 32, reason="connection refused")

    monkeypatch.setattr(world, "node_status", gone)
    done = muni(world, "node", "drain", tmp_path)
    assert (done.code, "its node does not run" in done.err) == (6, True)


def test_join_remembers_and_asks(world: FakeComposition) -> None:
    done = muni(world, "--home", "/h", "grid", "join", INTRODUCER_ADDRESS)
    assert done.text == f"joined {INTRODUCER_ADDRESS} (6 nodes)\n"
    assert world.joined == INTRODUCER_ADDRESS
    assert world.opened == [(Path("/h"), INTRODUCER_ADDRESS)]


def test_a_grid_that_does_not_answer_can_be_joined(world: FakeComposition) -> None:
    world.grid.nodes.clear()
    done = muni(world, "grid", "join", INTRODUCER_ADDRESS)
    assert done.code == 0
    assert "does not answer now: no node is known" in done.err
    assert muni(world, "grid", "join", INTRODUCER_ADDRESS, "--json").json["nodes"] == 0


def test_what_is_no_grid_is_not_joined(world: FakeComposition) -> None:
    def join_grid(home: Path, roster: str) -> str:
        raise InvalidRequest("an address looks otherwise")

    world.join_grid = join_grid  # type: ignore[method-assign]
    done = muni(world, "grid", "join", "mun:what")
    assert done.code == 2
    assert not world.opened
    done = muni(world, "grid", "join", "nonsense")
    assert done.code == 2
    assert "neither an introducer's address nor a roster file" in done.err
    assert "mun:introducer:ID@HOST:PORT" in done.err


def test_grid_status_shows_every_node(world: FakeComposition) -> None:
    world.grid.nodes[0].faults.down = "switched off"
    done = muni(world, "grid", "status")
    head, *rows, summary = done.lines
    assert head.split()[:3] == ["node", "zone", "state"]
    assert [row.split()[0] for row in rows] == [id_text(node.node)[:12] for node in world.grid.nodes]
    assert "unreachable" in rows[0]
    assert summary.startswith("5 of 6 nodes up")
    nodes = muni(world, "grid", "status", "--json").json["nodes"]
    assert [node["reachable"] for node in nodes] == [False, *[True] * 5]
    assert "switched off" in nodes[0]["error"]


def test_the_account_is_printed_for_the_operator(world: FakeComposition) -> None:
    assert muni(world, "grid", "account").text == "b" * 52 + "\n"


def test_home_and_grid_come_from_options_else_defaults(world: FakeComposition) -> None:
    muni(world, "grid", "status")
    muni(world, "--home", "/h", "--grid", "g", "grid", "status")
    assert world.opened == [(Path("/the/default/home"), None), (Path("/h"), "g")]


def test_home_and_grid_come_from_the_environment(
    world: FakeComposition, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from muniment.gateways.cli.app import run

    with CliRunner().isolation(env={"MUNIMENT_GRID": "g", "MUNIMENT_HOME": "/h"}):
        run(world, ["grid", "status"])
    assert world.opened == [(Path("/h"), "g")]


def test_a_setting_that_is_wrong_is_named(world: FakeComposition, tmp_path: Path) -> None:
    world.fails = ConfigInvalid(where="node.toml: capacity_bytes", reason="the key is missing")
    done = muni(world, "node", "run", tmp_path)
    assert done.code == 6
    assert "node.toml: capacity_bytes: the key is missing" in done.err


def test_version_names_what_computes(world: FakeComposition) -> None:
    short = muni(world, "version", "--json").json
    assert list(short) == ["muniment"]
    long = muni(world, "version", "-v", "--json").json
    assert long["muniment"] == short["muniment"]
    assert "OpenSSL" in long["tls"]
    assert "ISA-L" in long["erasure"] or "NumPy" in long["erasure"]
    assert "cryptography" in long["libraries"]
    text = muni(world, "version", "-v").text
    for word in (long["python"], long["erasure"], long["libraries"]["blake3"]):
        assert word in text

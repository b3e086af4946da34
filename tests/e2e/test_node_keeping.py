"""What node processes do to keep shares alive: read them again, and give them away when drained."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import msgspec
from tests.e2e.muni_command import User
from tests.e2e.node_processes import Plain, eventually, running_introducer, running_node

from muniment.net.server import free_port
from muniment.node.config import NodeConfig, Times
from muniment.spec import wire
from muniment.testing.sample_blob import sample_blob


def status(client: Plain) -> wire.NodeStatus:
    answer, body = client.ask("GET", "/v1/info")
    assert answer == 200, body
    return msgspec.json.decode(body, type=wire.NodeStatus)


def test_a_running_node_finds_the_bit_that_flipped_on_its_disk(tmp_path: Path) -> None:
    folder = tmp_path / "n"
    config = NodeConfig(capacity_bytes=1 << 20, times=Times(scrub_s=1))
    good, bad = sample_blob(1), sample_blob(2)
    with running_node(folder, config) as node, Plain(node.address) as client:
        for blob in (good, bad):
            assert client.reserve(blob, 0) == ["accepted"]
            assert client.put(blob, 0) == ["held"]
        (file,) = [
            p for p in (folder / "store").rglob("*") if p.is_file() and p.read_bytes() == bad.records[0]
        ]
        content = bytearray(file.read_bytes())
        content[-1] ^= 0x10
        file.write_bytes(content)
        eventually(
            lambda: (status(client).scrub or wire.ScrubStatus(0, 0, 0, 0, 0, 0, 0, 0, 0)).found_count == 1
        )
        answer, body = client.ask("GET", "/v1/quarantine")
        rows = msgspec.json.decode(body, type=wire.QuarantineList).shares
        assert (answer, [f"{row.blob}.{row.number}" for row in rows]) == (200, [str(bad.key(0))])
        assert client.get(good, 0) == (200, good.records[0])
        assert (status(client).share_count, status(client).quarantined_count) == (1, 1)
        assert node.stop() == 0


def test_a_drained_node_is_emptied_by_a_repair_and_can_be_killed(tmp_path: Path) -> None:
    books = tmp_path / "books"
    books.mkdir()
    for number in range(3):
        (books / f"book{number}").write_bytes(random.Random(number).randbytes(100_000 * (number + 1)))
    with contextlib.ExitStack() as stack:
        introducer = stack.enter_context(running_introducer(tmp_path / "i"))
        nodes = []
        for number in range(7):
            folder = tmp_path / f"n{number}"
            port = free_port("127.0.0.1")
            config = NodeConfig(capacity_bytes=1 << 30, port=port, introducers=[str(introducer.address)])
            nodes.append((folder, stack.enter_context(running_node(folder, config))))
        user = User(tmp_path, str(introducer.address))
        eventually(lambda: "7 of 7 nodes up" in user.muni("grid", "status").text)
        stored = user.muni("put", "-r", "books")
        assert stored.code == 0, stored.err

        held = []
        for folder, running in nodes:
            with Plain(running.address) as client:
                held.append((status(client).leased_count, folder, running))
        most, folder, leaving = max(held, key=lambda one: one[0])
        with user.starting("node", "drain", folder) as draining:
            assert draining.stderr is not None
            assert draining.stderr.readline().decode().startswith(f"{most} lease")
            eventually(lambda: " draining " in user.muni("grid", "status").text)
            repaired = user.muni("repair", "--move", stored.text)
            assert repaired.code == 0, (repaired.text, repaired.err)
            assert f"moved {most}," in repaired.text
            out, _ = draining.communicate(timeout=20)
        assert draining.returncode == 0
        assert out.decode() == "nobody has a lease on a share of this node any more: it may be stopped\n"
        with Plain(leaving.address) as client:
            assert (status(client).draining, status(client).leased_count) == (True, 0)
        leaving.kill()

        back = user.muni("get", stored.text, "back")
        assert back.code == 0, back.err
        for book in books.iterdir():
            assert (tmp_path / "back" / book.name).read_bytes() == book.read_bytes()
        refused = user.muni("node", "drain", folder, "--undo")
        assert (refused.code, "its node does not run; start it first" in refused.err) == (6, True)
        with running_node(folder) as again, Plain(again.address) as client:
            assert status(client).draining, "the wish outlives a restart"
            undone = user.muni("node", "drain", folder, "--undo")
            assert (undone.code, undone.text) == (0, "the node takes shares again")
            assert not status(client).draining

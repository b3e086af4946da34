"""What node processes do to keep shares alive: read them again, and give them away when drained."""

from __future__ import annotations

from pathlib import Path

import msgspec
from tests.e2e.node_processes import Plain, eventually, running_node

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

"""Metrics of running processes, on an address of their own and nowhere else."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.e2e.node_processes import Plain, in_time

from muniment.errors import ConfigInvalid, StoreFailed
from muniment.net.metrics_server import MetricsServer
from muniment.net.server import free_port
from muniment.node.compose import init_introducer, init_log, init_node, run_introducer, run_log, run_node
from muniment.node.config import IntroducerConfig, LogConfig, NodeConfig, Times
from muniment.spec.address import PeerAddress
from muniment.testing.sample_blob import sample_blob

HOST = "127.0.0.1"


def ask(address: str, method: str = "GET", path: str = "/metrics") -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=10)
    with contextlib.closing(connection):
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


PAGE = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()


def values(address: str) -> dict[str, float]:
    """Every sample as it is written; the page explains each."""
    status, text = ask(address)
    assert status == 200, text
    for family in text_string_to_metric_families(text):
        if not family.name.endswith("_created"):  # the library's own, when a counter began
            assert f"`{family.name}{'_total' if family.type == 'counter' else ''}`" in PAGE
    return {
        sample.name + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def host_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def sent(address: str, words: bytes) -> bytes:
    """What comes back for these bytes."""
    with socket.create_connection(host_port(address), timeout=10) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(words)
            connection.shutdown(socket.SHUT_WR)
            return connection.recv(1000)
        return b""


@contextlib.asynccontextmanager
async def serving(run: Callable[..., Awaitable[None]], folder: Path) -> AsyncIterator[PeerAddress]:
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.ensure_future(run(folder, ready=ready.set_result, stop=stop))
    try:
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        yield ready.result()
    finally:
        stop.set()
        await task


async def test_a_node_tells_requests_space_leases_and_scrub(tmp_path: Path) -> None:
    address, blob = f"{HOST}:{free_port(HOST)}", sample_blob(1)
    config = NodeConfig(capacity_bytes=1 << 20, metrics=address, times=Times(stop_grace_s=0))
    init_node(tmp_path / "n", config)
    async with serving(run_node, tmp_path / "n") as node:

        def use() -> None:
            with Plain(node) as client:
                assert client.reserve(blob, 0) == ["accepted"]
                assert client.put(blob, 0) == ["held"]
                assert client.get(blob, 1)[0] == 404
                assert client.ask("GET", "/metrics")[0] == 404, "never on the public port"

        await asyncio.to_thread(use)
        size_bytes = len(blob.records[0])
        found = await asyncio.to_thread(values, address)
        assert found["muniment_requests_total PUT /v1/shares 200"] == 1
        assert found["muniment_requests_total GET /v1/shares/{blob}/{number} 404"] == 1
        assert found["muniment_requests_total unknown 404"] == 1
        assert found["muniment_received_bytes_total PUT /v1/shares"] == size_bytes + 32
        assert found["muniment_request_seconds_count POST /v1/reserve"] == 1
        assert found["muniment_node_capacity_bytes"] == 1 << 20
        assert found["muniment_node_used_bytes"] == found["muniment_node_leased_bytes"] == size_bytes
        assert found["muniment_node_shares"] == found["muniment_node_leases"] == 1
        assert found["muniment_node_reserved_bytes"] == found["muniment_node_quarantined"] == 0
        assert found["muniment_node_draining"] == 0
        assert found["muniment_node_medium_free_bytes"] > 0
        assert "muniment_node_reconciled" in found

        async def scrubs() -> bool:
            found.update(await asyncio.to_thread(values, address))
            return "muniment_node_scrub_done_ratio" in found

        await in_time(scrubs)
        assert found["muniment_node_scrub_age_seconds"] == float("inf")
        assert found["muniment_node_scrub_found_total"] == 0


async def test_a_log_service_and_an_introducer_tell_theirs(tmp_path: Path) -> None:
    log, introducer = (f"{HOST}:{free_port(HOST)}" for _ in range(2))
    init_log(tmp_path / "log", LogConfig(metrics=log, stop_grace_s=0))
    init_introducer(tmp_path / "i", IntroducerConfig(metrics=introducer, stop_grace_s=0))
    async with serving(run_log, tmp_path / "log"), serving(run_introducer, tmp_path / "i"):
        found = await asyncio.to_thread(values, log)
        assert found["muniment_log_volumes"] == found["muniment_log_file_bytes"] == 0
        assert (await asyncio.to_thread(values, introducer))["muniment_introducer_records"] == 0


async def test_an_address_that_is_taken_stops_the_start_and_is_named(tmp_path: Path) -> None:
    with socket.create_server((HOST, 0)) as other:
        address = f"{HOST}:{other.getsockname()[1]}"
        init_node(tmp_path / "n", NodeConfig(capacity_bytes=1, metrics=address))
        with pytest.raises(ConfigInvalid, match="metrics"):
            async with serving(run_node, tmp_path / "n"):
                pass


async def test_whoever_asks_otherwise_gets_no_metrics_and_harms_nobody() -> None:
    address = f"{HOST}:{free_port(HOST)}"

    def text() -> bytes:
        raise StoreFailed(where="/home/somebody/ledger.sqlite", reason="no")

    server = MetricsServer(address, text)
    await server.start()
    try:
        assert (await asyncio.to_thread(ask, address, "POST"))[0] == 405
        assert (await asyncio.to_thread(ask, address, "GET", "/"))[0] == 404
        status, told = await asyncio.to_thread(ask, address)
        assert (status, "somebody" in told) == (500, False)
        for words in (b"\r\n\r\n", b"x" * 20_000, b"GET /metrics"):
            assert b"200" not in await asyncio.to_thread(sent, address, words)
        with contextlib.ExitStack() as idle:
            for _ in range(3):
                idle.enter_context(socket.create_connection(host_port(address)))
            assert (await asyncio.to_thread(ask, address))[0] == 500, "others who wait harm nobody"
    finally:
        await server.aclose()

"""A node process as its operator and hostile or unlucky clients meet it."""

from __future__ import annotations

import random
import signal
import threading
from pathlib import Path

import psutil
import pytest
from tests.e2e.muni_command import PATIENCE_S
from tests.e2e.node_processes import (
    Plain,
    Running,
    eventually,
    problem,
    running_node,
    share_path,
    start,
)

from muniment.crypto.identity import Identity
from muniment.ids import NodeId, id_text
from muniment.node.compose import init_node
from muniment.node.config import InvitedAccount, NodeConfig, Policy, Times
from muniment.spec.address import parse_address
from muniment.spec.limits import CONTROL_BODY_BYTES_MAX, MIB, PUT_BODY_BYTES_MAX
from muniment.testing.sample_blob import sample_blob

IDLE_BYTES_MAX = 80 << 20


def test_an_idle_node_is_small_and_a_second_start_is_refused(tmp_path: Path) -> None:
    init_node(tmp_path / "n", NodeConfig(capacity_bytes=1 << 20))
    with start("run_node", tmp_path / "n") as process:
        assert process.stdout is not None
        node = Running(process, parse_address(process.stdout.readline().strip()))
        second = start("run_node", tmp_path / "n")
        _, told = second.communicate(timeout=PATIENCE_S)
        assert second.returncode == 1
        assert told.startswith("folder-busy: another process is using")
        with Plain(node.address) as client:
            assert client.usage().share_count == 0
        assert psutil.Process(process.pid).memory_info().rss <= IDLE_BYTES_MAX
        assert node.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_under_way_at_a_graceful_stop_is_finished(tmp_path: Path, number: signal.Signals) -> None:
    blob = sample_blob(1, length=2 * MIB)
    with running_node(tmp_path / "n") as node:
        with Plain(node.address) as client:
            client.reserve(blob, 0)
            rest = client.begin_put(blob, 0, 100_000)
            with Plain(node.address) as other:  # its answer shows that the put is under way by now
                other.ask("GET", "/v1/info")
            node.process.send_signal(number)
            eventually(lambda: _refuses_or_is_gone(node))
            client.connection.send(rest)
            answer = client.connection.getresponse()
            assert (answer.status, answer.read()) == (200, b'{"outcomes":[{"result":"held","new":true}]}')
        assert node.process.wait(PATIENCE_S) == 0
    with running_node(tmp_path / "n") as node, Plain(node.address) as client:
        assert client.get(blob, 0) == (200, blob.records[0])
        assert node.stop() == 0


def _refuses_or_is_gone(node: Running) -> bool:
    try:
        with Plain(node.address) as other:
            return problem(other.ask("GET", "/v1/info"))[1] == "overloaded"
    except Exception:  # noqa: BLE001 - whatever a client sees when nobody listens any more
        return True


def test_a_client_that_hangs_does_not_keep_a_node_from_stopping(tmp_path: Path) -> None:
    config = NodeConfig(capacity_bytes=10 * MIB, times=Times(stop_grace_s=0))
    with running_node(tmp_path / "n", config) as node, Plain(node.address) as client:
        blob = sample_blob(1)
        client.reserve(blob, 0)
        client.begin_put(blob, 0, 5000)
        assert node.stop() == 0


def test_a_kill_loses_nothing_acknowledged_and_shows_nothing_half_written(tmp_path: Path) -> None:
    kept, broken = sample_blob(1, length=2 * MIB), sample_blob(2, length=4 * MIB)
    with running_node(tmp_path / "n") as node, Plain(node.address) as client:
        client.reserve(kept, 0)
        assert client.put(kept, 0) == ["held"]
        client.reserve(broken, 0)
        client.begin_put(broken, 0, MIB)
        node.kill()
    with running_node(tmp_path / "n") as node, Plain(node.address) as client:
        assert client.get(kept, 0) == (200, kept.records[0])
        assert problem(client.get(broken, 0)) == (404, "share-unknown")
        usage = client.usage()
        assert (usage.used_bytes, usage.reserved_bytes) == (len(kept.records[0]), 0)
        assert client.reserve(broken, 0) == ["accepted"]
        assert client.put(broken, 0) == ["held"]


def test_a_client_that_vanishes_mid_upload_leaves_nothing_reserved(tmp_path: Path) -> None:
    blob = sample_blob(1, length=8 * MIB)
    with running_node(tmp_path / "n") as node, Plain(node.address) as client:
        client.reserve(blob, 0)
        with Plain(node.address) as unlucky:
            unlucky.begin_put(blob, 0, 3 * MIB)
            eventually(lambda: any((tmp_path / "n" / "store" / "incoming").iterdir()))
            assert client.usage().reserved_bytes == len(blob.records[0])
        eventually(lambda: client.usage().reserved_bytes == 0)
        assert not any((tmp_path / "n" / "store" / "incoming").iterdir())
        assert problem(client.get(blob, 0)) == (404, "share-unknown")


def test_wrong_bytes_and_damaged_shares_are_answered_and_never_served(tmp_path: Path) -> None:
    blob = sample_blob(1)
    with running_node(tmp_path / "n") as node, Plain(node.address) as client:
        client.reserve(blob, 0, 1)
        assert client.put(blob, 0) == ["held"]
        wrong = blob.name.blob + blob.records[1][:-1] + b"\0"
        status, body = client.ask("PUT", "/v1/shares", wrong, Muniment_Shares="1")
        assert status == 200
        assert b'"share-corrupt"' in body
        (stored,) = (tmp_path / "n" / "store").glob(f"shares/*/{blob.key(0)}")
        stored.write_bytes(stored.read_bytes()[:-1] + b"\0")
        assert problem(client.get(blob, 0)) == (422, "share-corrupt")
        assert problem(client.get(blob, 0)) == (404, "share-unknown")
        assert not stored.exists()
        assert any((tmp_path / "n" / "store" / "quarantine").iterdir())
        assert client.usage().used_bytes == 0


def test_bodies_over_their_limit_are_refused(tmp_path: Path) -> None:
    with running_node(tmp_path / "n") as node:
        for path, method, limit in (
            ("/v1/have", "POST", CONTROL_BODY_BYTES_MAX),
            ("/v1/shares", "PUT", PUT_BODY_BYTES_MAX),
            ("/v1/info", "GET", 0),
        ):
            with Plain(node.address) as client:
                client.connection.putrequest(method, path)
                headers = {"Muniment-Shares": "1", "Content-Length": str(limit + 1), **client.headers()}
                for name, value in headers.items():
                    client.connection.putheader(name, value)
                client.connection.endheaders()  # and not a byte of body
                answer = client.connection.getresponse()
                expected = 413 if limit else 200
                assert answer.status == expected, path
        with Plain(node.address) as client:
            pieces = (b"x" * 65536 for _ in range(40))
            headers = {**client.headers(), "Transfer-Encoding": "chunked"}
            try:
                client.connection.request("POST", "/v1/have", pieces, headers, encode_chunked=True)
                assert client.connection.getresponse().status == 413
            except OSError:  # the node may close while we still send
                pass
        with Plain(node.address) as client:
            assert client.usage().share_count == 0


def test_tokens_of_other_nodes_times_and_accounts_are_refused(tmp_path: Path) -> None:
    friend = Identity.from_seed(b"f" * 32)
    policy = Policy(mode="invited", accounts=[InvitedAccount(account=id_text(friend.account))])
    config = NodeConfig(capacity_bytes=MIB, policy=policy)
    with running_node(tmp_path / "n", config) as node, Plain(node.address, friend) as client:

        def status(headers: dict[str, str]) -> tuple[int, str]:
            client.connection.request("GET", "/v1/usage", headers=headers)
            answer = client.connection.getresponse()
            body = answer.read()
            return (200, "") if answer.status == 200 else problem((answer.status, body))

        assert status(client.headers()) == (200, "")
        assert status({}) == (401, "token-rejected")
        assert status(client.headers(node=NodeId(bytes(32)))) == (401, "token-rejected")
        assert status(client.headers(at_s=-310)) == (401, "token-rejected")
        assert status(client.headers(at_s=-3600)) == (401, "clock-skewed")
        assert status(client.headers(at_s=3600)) == (401, "clock-skewed")
        with Plain(node.address) as stranger:
            assert problem(stranger.ask("GET", "/v1/usage")) == (403, "account-refused")


def test_capacity_is_promised_once_to_clients_that_ask_at_once(tmp_path: Path) -> None:
    blobs = [sample_blob(number, length=MIB, k=1, n=1) for number in range(16)]
    size = len(blobs[0].records[0])
    outcomes: list[str] = []
    with running_node(tmp_path / "n", NodeConfig(capacity_bytes=5 * size)) as node:

        def ask(number: int) -> None:
            with Plain(node.address, Identity.from_seed(bytes([number + 1]) * 32)) as client:
                outcomes.extend(client.reserve(blobs[number], 0))

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(outcomes) == ["accepted"] * 5 + ["refused"] * 11


def test_fifty_clients_at_once(tmp_path: Path) -> None:
    failures: list[str] = []
    with running_node(tmp_path / "n") as node:

        def work(number: int) -> None:
            chance = random.Random(number)
            with Plain(node.address, Identity.from_seed(bytes([number + 1]) * 32)) as client:
                for turn in range(4):
                    blob = sample_blob(number // 2 * 10 + turn, length=chance.choice([500, 40_000, 400_000]))
                    client.reserve(blob, 0, 1)
                    if client.put(blob, 0, 1) != ["held", "held"]:
                        failures.append(f"{number} put")
                    if client.get(blob, 1) != (200, blob.records[1]):
                        failures.append(f"{number} get")
                    wanted = blob.records[0][100:200]
                    if client.ask("GET", share_path(blob, 0), Range="bytes=100-199") != (206, wanted):
                        failures.append(f"{number} range")
                if client.usage().reserved_bytes or client.usage().share_count != 8:
                    failures.append(f"{number} usage")

        threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert node.stop() == 0

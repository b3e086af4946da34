"""Configuration: written whole, read back the same, and every mistake named by file and key."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import tomli_w
from tests.unit.node.support import ALICE, identity

from muniment.durable_file import write_whole
from muniment.errors import ConfigInvalid, DiskFull, FolderBusy, StoreFailed
from muniment.ids import id_text
from muniment.node.config import (
    IntroducerConfig,
    InvitedAccount,
    Limits,
    NodeConfig,
    Policy,
    Times,
    advertised,
    init_folder,
    load_introducer_config,
    load_node_config,
)
from muniment.node.folder import FolderLock, make_identity, read_identity
from muniment.spec.address import PeerAddress, PeerKind

INTRODUCER = str(PeerAddress(PeerKind.INTRODUCER, identity(1).node, "host:1"))


def entropy(count: int) -> bytes:
    return bytes(range(count))


def test_a_node_folder_reads_back_as_it_was_made(tmp_path: Path) -> None:
    config = NodeConfig(
        capacity_bytes=1 << 40,
        host="0.0.0.0",
        port=4870,
        advertise=["node.example:4870", "[2001:db8::1]:4870"],
        zone="rack 1",
        price=7,
        store="s3://bucket/prefix",
        introducers=[INTRODUCER],
        policy=Policy(mode="invited", accounts=[InvitedAccount(account=id_text(ALICE), quota_bytes=5)]),
        times=Times(lease_s=3),
        limits=Limits(threads=2),
    )
    node = init_folder(tmp_path / "a" / "node", config, entropy)
    assert load_node_config(tmp_path / "a" / "node") == config
    key = tmp_path / "a" / "node" / "key"
    assert key.stat().st_mode & 0o777 == 0o600
    assert read_identity(key).node == node


def test_an_introducer_folder_reads_back_as_it_was_made(tmp_path: Path) -> None:
    config = IntroducerConfig(port=1, records=5)
    init_folder(tmp_path / "i", config, entropy)
    assert load_introducer_config(tmp_path / "i") == config


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "diary").write_text("mine")
    with pytest.raises(ConfigInvalid, match="not empty"):
        init_folder(tmp_path, NodeConfig(capacity_bytes=1), entropy)
    assert [path.name for path in tmp_path.iterdir()] == ["diary"]


def test_an_initialised_folder_is_not_initialised_again(tmp_path: Path) -> None:
    init_folder(tmp_path, NodeConfig(capacity_bytes=1), entropy)
    with pytest.raises(ConfigInvalid, match="not empty"):
        init_folder(tmp_path, NodeConfig(capacity_bytes=1), entropy)


@pytest.mark.parametrize("step", range(6))
def test_an_interrupted_init_may_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    # Patched: the kill must come between two renames, and no seam exists for that.
    calls = 0
    real = os.fsync

    def killed(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > step:
            raise KeyboardInterrupt
        real(descriptor)

    monkeypatch.setattr(os, "fsync", killed)
    try:
        init_folder(tmp_path / "n", NodeConfig(capacity_bytes=1), entropy)
        assert step == 5
    except KeyboardInterrupt:
        monkeypatch.undo()
        if not (tmp_path / "n" / "node.toml").exists():
            init_folder(tmp_path / "n", NodeConfig(capacity_bytes=1), entropy)
    assert load_node_config(tmp_path / "n").capacity_bytes == 1
    read_identity(tmp_path / "n" / "key")


def good() -> dict[str, Any]:
    tables: dict[str, Any] = msgspec.to_builtins(NodeConfig(capacity_bytes=5))
    return tables


Change = Callable[[dict[str, Any]], object]
MISTAKES: list[tuple[Change, str, str]] = [
    (lambda t: t.pop("capacity_bytes"), "node.toml", "'capacity_bytes' is missing"),
    (lambda t: t.update(capacity=5), "node.toml", "unknown key 'capacity'"),
    (lambda t: t.update(capacity_bytes="5GB"), "capacity_bytes", "'int', got 'str'"),
    (lambda t: t.update(capacity_bytes=-1), "capacity_bytes", ">= 0"),
    (lambda t: t.update(port=65536), "port", "<= 65535"),
    (lambda t: t.update(host=""), "host", "length >= 1"),
    (lambda t: t.update(host="0.0.0.0"), "advertise", "host is 0.0.0.0"),
    (lambda t: t.update(advertise=["a", "b:1"]), "advertise[0]", "HOST:PORT"),
    (lambda t: t.update(store="floppy"), "store", "regex"),
    (lambda t: t.update(introducers=["mun:node:x"]), "introducers[0]", "mun:introducer:ID@HOST:PORT"),
    (lambda t: t.update(metrics="9420"), "metrics", "HOST:PORT"),
    (lambda t: t["policy"].update(mode="closed"), "policy.mode", "closed"),
    (lambda t: t["policy"].update(mode="invited", quota_bytes=5), "policy.quota_bytes", "per account"),
    (lambda t: t["policy"].update(accounts=[{"account": "x"}]), "policy.accounts[0].account", "length"),
    (
        lambda t: t["policy"].update(accounts=[{"account": id_text(ALICE)}] * 2),
        "policy.accounts[1].account",
        "twice",
    ),
    (lambda t: t["times"].update(lease_s=0), "times.lease_s", ">= 1"),
    (lambda t: t["times"].update(leases=1), "times", "unknown key 'leases'"),
    (lambda t: t["limits"].update(threads=True), "limits.threads", "'bool'"),
]


@pytest.mark.parametrize(("change", "key", "reason"), MISTAKES, ids=[f"{m[1]} {m[2]}" for m in MISTAKES])
def test_a_mistake_is_named_by_file_key_and_reason(
    tmp_path: Path, change: Change, key: str, reason: str
) -> None:
    tables = good()
    change(tables)
    (tmp_path / "node.toml").write_text(tomli_w.dumps(tables))
    with pytest.raises(ConfigInvalid) as mistake:
        load_node_config(tmp_path)
    assert str(tmp_path / "node.toml") in mistake.value.where
    assert mistake.value.where.endswith(key)
    assert reason in mistake.value.reason
    assert "`" not in mistake.value.reason


@pytest.mark.parametrize("content", [b"port = ", b"\xff\xfe", b"= 3"])
def test_a_file_that_is_not_toml_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "node.toml").write_bytes(content)
    with pytest.raises(ConfigInvalid, match=r"node\.toml"):
        load_node_config(tmp_path)


def test_a_folder_without_configuration_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigInvalid, match="muni node init"):
        load_node_config(tmp_path)
    with pytest.raises(ConfigInvalid, match="muni introducer init"):
        load_introducer_config(tmp_path)


def test_what_is_advertised_is_where_it_listens_unless_told_otherwise() -> None:
    assert advertised(NodeConfig(capacity_bytes=1), 9) == ("127.0.0.1:9",)
    assert advertised(NodeConfig(capacity_bytes=1, host="::1"), 9) == ("[::1]:9",)
    assert advertised(NodeConfig(capacity_bytes=1, advertise=["a:1", "b:2"]), 9) == ("a:1", "b:2")


def test_a_lock_keeps_others_out_until_it_is_closed(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(FolderBusy):
        FolderLock(tmp_path)
    lock.close()
    lock.close()
    FolderLock(tmp_path).close()


def test_a_lock_on_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed):
        FolderLock(tmp_path / "missing")


@pytest.mark.parametrize("content", ["", "no key at all", "a" * 51, "b" * 52, "\N{SNOWMAN}" * 52])
def test_a_damaged_key_file_is_named_and_its_content_is_not(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigInvalid) as mistake:
        read_identity(path)
    assert str(path) in mistake.value.where
    assert not content or content not in str(mistake.value)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    make_identity(path, entropy)
    path.chmod(0o644)
    with pytest.raises(ConfigInvalid, match="chmod 600"):
        read_identity(path)
    with pytest.raises(ConfigInvalid, match="missing"):
        read_identity(tmp_path / "none")


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_whole(path, b"old")
    # Patched: a disk cannot be made full for one call.
    monkeypatch.setattr(os, "fsync", _no_space)
    with pytest.raises(DiskFull):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"


def _no_space(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("config", "key"),
    [
        (NodeConfig(capacity_bytes=1, store="ftp"), "store"),
        (NodeConfig(capacity_bytes=1, zone="z" * 65), "zone"),
        (NodeConfig(capacity_bytes=1 << 62), "capacity_bytes"),
    ],
)
def test_what_a_run_would_refuse_is_refused_at_init(tmp_path: Path, config: NodeConfig, key: str) -> None:
    with pytest.raises(ConfigInvalid, match=key):
        init_folder(tmp_path / "n", config, os.urandom)
    assert not (tmp_path / "n").exists()

"""A client's home: one account key for good, and the grid it has joined."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tests.unit.node.support import identity

from muniment.errors import ConfigInvalid, GridUnknown, InvalidRequest
from muniment.node.home import account_identity, join_grid, joined_roster
from muniment.spec.address import PeerAddress, PeerKind

INTRODUCER = str(PeerAddress(PeerKind.INTRODUCER, identity(1).node, "host:1"))


def test_the_account_key_is_made_once_and_kept_secret(tmp_path: Path) -> None:
    home = tmp_path / "a" / "home"
    first = account_identity(home)
    assert account_identity(home).account == first.account
    assert (home / "account.key").stat().st_mode & 0o777 == 0o600
    assert home.stat().st_mode & 0o777 == 0o700


def test_first_uses_at_the_same_time_make_one_key(tmp_path: Path) -> None:
    made: list[bytes | None] = []

    def use() -> None:
        try:
            made.append(account_identity(tmp_path / "home").account)
        except Exception:  # noqa: BLE001 - collected
            made.append(None)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(made) == {account_identity(tmp_path / "home").account}


def test_a_home_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigInvalid, match="file"):
        account_identity(tmp_path / "file" / "home")


def test_a_joined_grid_is_remembered(tmp_path: Path) -> None:
    with pytest.raises(GridUnknown):
        joined_roster(tmp_path / "home")
    assert join_grid(tmp_path / "home", INTRODUCER) == joined_roster(tmp_path / "home") == INTRODUCER
    (tmp_path / "roster").touch()
    assert join_grid(tmp_path / "home", str(tmp_path / "roster")) == str(tmp_path / "roster")
    assert joined_roster(tmp_path / "home") == str(tmp_path / "roster")


def test_what_is_no_roster_is_refused_and_the_old_one_stays(tmp_path: Path) -> None:
    join_grid(tmp_path, INTRODUCER)
    with pytest.raises(InvalidRequest):
        join_grid(tmp_path, INTRODUCER.replace("introducer", "node"))
    with pytest.raises(ConfigInvalid):
        join_grid(tmp_path, str(tmp_path / "missing"))
    assert joined_roster(tmp_path) == INTRODUCER

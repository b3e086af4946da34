"""Files that only their owner can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from muniment.errors import ConfigInvalid
from muniment.private_file import SECRET_BYTES_MAX, make_private, read_private


def test_a_file_is_made_for_its_owner_only_and_left_if_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    make_private(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"kept")
    path.chmod(0o640)
    make_private(path)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"kept", 0o640)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_secret_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"secret")
    path.chmod(mode)
    with pytest.raises(ConfigInvalid, match="readable by others"):
        read_private(path)
    path.chmod(0o600)
    assert read_private(path) == b"secret"


def test_no_more_is_read_than_a_secret_has(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"x" * SECRET_BYTES_MAX)
    path.chmod(0o600)
    assert len(read_private(path)) == SECRET_BYTES_MAX
    path.write_bytes(b"x" * (SECRET_BYTES_MAX + 1))
    with pytest.raises(ConfigInvalid, match="named so: it is longer than"):
        read_private(path, where="named so")


def test_what_a_shell_hands_over_is_read(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"secret")
    path.chmod(0o600)
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert read_private(Path(f"/dev/fd/{descriptor}")) == b"secret"
    finally:
        os.close(descriptor)

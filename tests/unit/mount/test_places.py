"""Where volumes are mounted, as the kernel lists it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from muniment.gateways.mount import places
from muniment.gateways.mount.places import MountedAt, absolute, find_mounted, mounted

LINE = "36 35 {device} / {folder} rw,nosuid,nodev,relatime shared:7 master:1 - {kind} {source} rw,user_id=0"


def listed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *mounts: tuple[str, Path | str, str, str]
) -> None:
    """Let the kernel list these."""
    lines = [
        LINE.format(device=device, folder=folder, kind=kind, source=source)
        for device, folder, kind, source in mounts
    ]
    listing = tmp_path / "mountinfo"
    listing.write_text("".join(f"{line}\n" for line in lines))
    monkeypatch.setattr(places, "_MOUNTS", listing)


def test_volumes_are_found_among_other_mounts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    strange = "/a\\040folder\\134with"
    listed(
        monkeypatch,
        tmp_path,
        ("0:5", "/", "ext4", "/dev/sda"),
        ("0:57", tmp_path, "fuse.muniment", "muniment:books"),
        ("0:58", "/elsewhere", "fuse.sshfs", "host:"),
        ("0:59", strange, "fuse.muniment", "muniment:a\\040b"),
    )
    one = MountedAt(tmp_path, "muniment:books", "0:57")
    assert mounted() == [one, MountedAt(Path("/a folder\\with"), "muniment:a b", "0:59")]
    assert find_mounted(tmp_path) == one
    assert find_mounted(Path("/elsewhere")) is None
    assert find_mounted(Path("/nowhere")) is None


def test_only_what_is_on_top_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours, other = (("0:57", tmp_path, "fuse.muniment", "b"), ("0:58", tmp_path, "fuse.muniment", "b"))
    listed(monkeypatch, tmp_path, ours)
    first = find_mounted(tmp_path)
    listed(monkeypatch, tmp_path, ours, other)
    second = find_mounted(tmp_path)
    assert (first and first.device, second and second.device) == ("0:57", "0:58")
    assert first != second
    listed(monkeypatch, tmp_path, ours, ("0:60", tmp_path, "tmpfs", "none"))
    assert find_mounted(tmp_path) is None


def test_a_link_is_followed_and_what_cannot_be_looked_at_is_not(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "above").symlink_to(".")
    for path in ("folder", "link", "above/folder", "above/link", "../" + tmp_path.name + "/folder"):
        assert absolute(tmp_path / path) == Path(os.path.realpath(tmp_path)) / "folder"
    assert absolute(tmp_path / "nothing") == Path(os.path.realpath(tmp_path)) / "nothing"
    assert absolute(Path("/")) == Path("/")

"""The demo's tree is the same on every run, and its comparison notices every kind of change."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from muniment.gateways.cli.demo_tree import damage, fingerprint, make_tree


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "t" / "inner").mkdir(parents=True)
    (tmp_path / "t" / "inner" / "file").write_bytes(b"content")
    (tmp_path / "t" / "link").symlink_to("inner")
    return tmp_path / "t"


def _content(folder: Path) -> None:
    path = folder / "inner" / "file"
    times = path.stat()
    path.write_bytes(b"contenT")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize(
    "change",
    [
        _content,
        lambda folder: (folder / "inner" / "file").chmod(0o600),
        lambda folder: (folder / "inner").chmod(0o700),
        lambda folder: os.utime(folder / "inner" / "file", ns=(0, 1)),
        lambda folder: (folder / "new").touch(),
        lambda folder: (folder / "link").unlink(),
        lambda folder: ((folder / "link").unlink(), (folder / "link").symlink_to("other")),
    ],
)
def test_every_change_is_noticed(folder: Path, change: Callable[[Path], None]) -> None:
    before = fingerprint(folder)
    assert fingerprint(folder) == before
    change(folder)
    assert fingerprint(folder) != before


def test_the_tree_is_as_large_as_asked_for_and_the_same_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_tree(tmp_path / name, 2_000_000)
    one, other = fingerprint(tmp_path / "a"), fingerprint(tmp_path / "b")
    assert {path: (entry[0], entry[1], entry[3:]) for path, entry in one.items()} == {
        path: (entry[0], entry[1], entry[3:]) for path, entry in other.items()
    }
    files = [path for path in (tmp_path / "a").rglob("*") if path.is_file() and not path.is_symlink()]
    assert sum(path.stat().st_size for path in files) >= 2_000_000
    assert any(path.suffix == ".py" for path in files)
    assert any(path.stat().st_size == 0 for path in files)
    assert (tmp_path / "a" / "media" / "latest.csv").is_symlink()


def test_it_is_made_no_further_than_wanted(tmp_path: Path) -> None:
    asked = iter([False] * 5)
    make_tree(tmp_path / "t", 1 << 40, lambda: next(asked, True))
    assert len(list((tmp_path / "t" / "library").iterdir())) <= 5
    assert not list((tmp_path / "t" / "media").glob("*.bin"))


def test_every_other_share_is_damaged_by_one_byte(tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"{number}").write_bytes(bytes(100))
    assert damage(tmp_path) == (3, 5)
    changed = [sum(byte != 0 for byte in (tmp_path / f"{number}").read_bytes()) for number in range(5)]
    assert changed == [1, 0, 1, 0, 1]

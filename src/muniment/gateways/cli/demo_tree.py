"""What the demo stores: the Python installation's own library, and media-size files made from a seed."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

MEDIA_BYTES: Final = 32_000_000
_SCAN_WIDTH: Final = 4000
# Installed packages and tests are no part of the library, and may be as large as anything.
_LEFT_OUT: Final = ("site-packages", "dist-packages", "__pycache__", "test", "tests", "idlelib")


def make_tree(folder: Path, total_bytes: int, stopped: Callable[[], bool] = lambda: False) -> None:
    """Fill `folder` with at least `total_bytes` bytes of files; the same on every run of one installation.

    Ends early, between two files, once `stopped` says so.
    At most half of it is the library.
    Small files and large, compressible and not, of several permissions, links, an empty file and folder.
    """
    media = folder / "media"
    media.mkdir(parents=True)
    made = _copy_library(folder / "library", total_bytes // 2, stopped)
    (media / "ledger.csv").write_text("".join(_ledger_lines(100_000)))
    (media / "latest.csv").symlink_to("ledger.csv")
    (media / "nothing yet").mkdir()
    (media / "empty").touch()
    script = media / "prüfen.sh"
    script.write_text("#!/bin/sh\nsha256sum *.bin\n")
    script.chmod(0o750)
    made += sum(path.stat().st_size for path in media.iterdir() if not path.is_symlink() and path.is_file())
    number = 0
    while made < total_bytes and not stopped():
        size = max(1_000_000, min(MEDIA_BYTES, total_bytes - made))
        if number % 4 == 3:
            (media / f"scan{number:02}.pgm").write_bytes(_scan(number, size))
        else:
            (media / f"recording{number:02}.bin").write_bytes(_noise(number).randbytes(size))
        made += size
        number += 1


def make_books(folder: Path, count: int) -> None:
    """A small tree of accounts, a file for each day and one large enough for several shares."""
    year = folder / "2026"
    year.mkdir(parents=True)
    for day in range(count):
        (year / f"day{day:03}.csv").write_text("".join(_ledger_lines(20 + day)))
    (folder / "ledger.csv").write_text("".join(_ledger_lines(5000)))
    (folder / "latest").symlink_to(f"2026/day{count - 1:03}.csv")


def flip_byte(path: Path) -> None:
    """Change a byte in the middle of a file."""
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes((byte ^ 0x01,)))


def _copy_library(target: Path, most_bytes: int, stopped: Callable[[], bool]) -> int:
    """Copy modules and packages, as many as fit; returns the bytes of their files."""
    target.mkdir()
    left_out = shutil.ignore_patterns(*_LEFT_OUT)
    copied = 0
    for source in sorted(Path(sysconfig.get_path("stdlib")).iterdir()):
        if stopped():
            break
        if source.name in _LEFT_OUT or copied + (size := _size_bytes(source)) > most_bytes:
            continue
        copied += size
        if source.is_dir() and not source.is_symlink():
            shutil.copytree(source, target / source.name, symlinks=True, ignore=left_out)
        else:
            shutil.copy2(source, target / source.name, follow_symlinks=False)
    return copied


def _size_bytes(path: Path) -> int:
    """Of a file, or of all files in a folder that are copied with it."""
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(_size_bytes(inner) for inner in path.iterdir() if inner.name not in _LEFT_OUT)


def _noise(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - test data, the same on every run


def _ledger_lines(count: int) -> Iterator[str]:
    for i in range(count):
        yield f"2026-{1 + i % 12:02}-{1 + i % 28:02};booking {i};{i * 7919 % 1_000_000 / 100:.2f}\n"


def _scan(seed: int, size: int) -> bytes:
    """A grey picture of text lines: compresses well, as scans do."""
    line = bytearray(b"\xf0" * _SCAN_WIDTH)
    noise = _noise(seed)
    for at in noise.sample(range(_SCAN_WIDTH), 400):
        line[at] = noise.randrange(64)
    header = b"P5\n%d %d\n255\n" % (_SCAN_WIDTH, size // _SCAN_WIDTH)
    rows = (bytes(line[at:] + line[:at]) for at in range(1, 2 + size // _SCAN_WIDTH))
    return (header + b"".join(rows))[:size].ljust(size, b"\0")


def fingerprint(folder: Path) -> dict[str, tuple[object, ...]]:
    """What must come back, by path: of files content, permissions and time; of folders permissions and time;
    of links their target.
    """
    found: dict[str, tuple[object, ...]] = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root, name)
            status = path.lstat()
            mode, changed = stat.S_IMODE(status.st_mode), status.st_mtime_ns
            if stat.S_ISLNK(status.st_mode):
                entry: tuple[object, ...] = ("link", str(path.readlink()))
            elif stat.S_ISDIR(status.st_mode):
                entry = ("folder", mode, changed)
            else:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                entry = ("file", mode, changed, digest)
            found[str(path.relative_to(folder))] = entry
    return found


def damage(shares: Path) -> tuple[int, int]:
    """Change one byte in the middle of every other share file below a folder.

    Returns: files changed, files found.
    """
    files = sorted(path for path in shares.rglob("*") if path.is_file())
    for path in files[::2]:
        with path.open("r+b") as file:
            middle = path.stat().st_size // 2
            file.seek(middle)
            byte = file.read(1)
            file.seek(middle)
            file.write(bytes((byte[0] ^ 0xFF,)))
    return len(files[::2]), len(files)

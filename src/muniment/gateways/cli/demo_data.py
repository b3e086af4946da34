"""What the demo stores: the Python installation's own library, and media-size files made from a seed."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
import sysconfig
from pathlib import Path
from typing import Final

MEDIA_BYTES: Final = 32_000_000
_LEFT_OUT: Final = ("site-packages", "dist-packages", "__pycache__", "test", "tests")


def make_tree(folder: Path, total_bytes: int) -> int:
    """Fill `folder` with at least `total_bytes` bytes of files; the same ones on every run.

    Returns: bytes made.
    """
    library = folder / "library"
    shutil.copytree(
        sysconfig.get_path("stdlib"),
        library,
        symlinks=True,
        ignore=shutil.ignore_patterns(*_LEFT_OUT),
        ignore_dangling_symlinks=True,
    )
    made = sum(path.stat().st_size for path in library.rglob("*") if path.is_file())
    media = folder / "media"
    media.mkdir()
    number = 0
    while made < total_bytes:
        size = max(1_000_000, min(MEDIA_BYTES, total_bytes - made))
        noise = random.Random(number)  # noqa: S311 - test data, the same on every run
        (media / f"recording{number:02}.bin").write_bytes(noise.randbytes(size))
        made += size
        number += 1
    rows = "".join(
        f"2026-{1 + i % 12:02}-{1 + i % 28:02};booking {i};{i * 7 % 100000}.00\n" for i in range(200_000)
    )
    (media / "ledger.csv").write_text(rows)
    (media / "latest.csv").symlink_to("ledger.csv")
    return made + len(rows)


def fingerprint(folder: Path) -> dict[str, tuple[str, int, str]]:
    """Everything in a tree that must come back: type, mode, and content hash or link target, by path."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(root, name)
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                entry = ("link", 0, str(path.readlink()))
            elif stat.S_ISDIR(status.st_mode):
                entry = ("folder", stat.S_IMODE(status.st_mode), "")
            else:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                entry = ("file", stat.S_IMODE(status.st_mode), digest)
            found[str(path.relative_to(folder))] = entry
    return found


def corrupt(store: Path, share: float) -> int:
    """Flip one byte in the middle of about this share of the share files below `store`.

    Returns: files changed.
    """
    changed = 0
    files = sorted(path for path in (store / "shares").rglob("*") if path.is_file())
    for path in files[: max(1, int(len(files) * share))]:
        with path.open("r+b") as file:
            middle = path.stat().st_size // 2
            file.seek(middle)
            byte = file.read(1)
            file.seek(middle)
            file.write(bytes((byte[0] ^ 0xFF,)))
        changed += 1
    return changed

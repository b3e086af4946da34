"""What is written: registers, and the content of each of their versions, which no two versions share.

A register has one writer.  It is one file, or two that are only ever written together, in one entry.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import Final

_SIZES: Final = (100, 5_000, 60_000, 150_000, 150_000, 400_000, 1_200_000)


@dataclass(frozen=True)
class Register:
    """One register.

    Attributes:
        writer: whose it is, and the folder it is in.
        name: unique in the drill.
        files: of it, paths in the volume.
    """

    writer: str
    name: str
    files: tuple[bytes, ...]

    def content(self, version: int) -> list[bytes]:
        """Of each of its files."""
        return [
            _bytes(f"{self.name}:{at}:{version}", pair=len(self.files) > 1) for at in range(len(self.files))
        ]


def registers(writers: list[str]) -> list[Register]:
    """All of the drill."""
    found = []
    for writer in writers:
        for at in range(5):
            name = f"{writer}/file{at}"
            found.append(Register(writer, name, (name.encode(),)))
        for at in range(2):
            name = f"{writer}/pair{at}"
            found.append(Register(writer, name, (f"{name}-left".encode(), f"{name}-right".encode())))
    return found


def fingerprint(parts: list[bytes]) -> str:
    """Of the content of all files of a register."""
    return " ".join(hashlib.sha256(part).hexdigest() for part in parts)


def _bytes(name: str, *, pair: bool) -> bytes:
    chance = random.Random(name)
    size = 40_000 if pair else chance.choice(_SIZES)
    return f"{name}\n".encode() + chance.randbytes(size + chance.randrange(64))

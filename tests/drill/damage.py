"""What is done to the shares on a node's disk behind its back, and whether the node has noticed."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

_FLIPPED: Final = 5
_DELETED: Final = 0.2


@dataclass
class Damage:
    """Damaged files of a node, with what they contain now; empty: there is nothing that it must find."""

    files: dict[Path, bytes] = field(default_factory=dict)
    count: int = 0

    def noticed(self) -> bool:
        """Whether none of them is served as a share any more."""
        return all(_content(path) != content for path, content in self.files.items())


def has_shares(node: Path) -> bool:
    """Whether there is something to damage."""
    return len(_shares(node)) >= _FLIPPED


def flip_bits(node: Path, chance: random.Random) -> Damage:
    """One bit in each of a few shares."""
    damage = Damage()
    shares = _shares(node)
    for path in chance.sample(shares, min(_FLIPPED, len(shares))):
        data = _content(path)
        if data is not None:
            at = chance.randrange(len(data))
            damaged = data[:at] + bytes((data[at] ^ 1 << chance.randrange(8),)) + data[at + 1 :]
            _overwrite(path, at, damaged[at : at + 1])
            damage.files[path] = damaged
            damage.count += 1
    return damage


def delete_shares(node: Path, chance: random.Random) -> Damage:
    """Some of its shares."""
    shares = _shares(node)
    gone = chance.sample(shares, int(len(shares) * _DELETED))
    for path in gone:
        path.unlink(missing_ok=True)
    return Damage(count=len(gone))


def delete_store(node: Path) -> Damage:
    """All of its store; the node must not run."""
    count = len(_shares(node))
    shutil.rmtree(node / "store")
    return Damage(count=count)


def put_back(node: Path, copy: Path) -> Damage:
    """An older copy of its store instead of what it has; the node must not run."""
    count = len({path.name for path in _shares(node)} - {path.name for path in copy.glob("shares/*/*")})
    shutil.rmtree(node / "store")
    shutil.copytree(copy, node / "store")
    shutil.rmtree(copy)
    return Damage(count=count)


def _shares(node: Path) -> list[Path]:
    return sorted((node / "store" / "shares").glob("*/*"))


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _overwrite(path: Path, at: int, data: bytes) -> None:
    try:
        with path.open("r+b") as file:
            file.seek(at)
            file.write(data)
    except FileNotFoundError:
        pass

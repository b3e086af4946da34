"""A grid of node processes, a volume, and mounts of it: where other people's programs are let loose."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from tests.e2e.muni_command import VENV, User
from tests.e2e.node_processes import running_node

from muniment.gateways.mount.places import find_mounted
from muniment.node.config import NodeConfig

_NODES: Final = 6
_NODE_BYTES: Final = 8 << 30
_VOLUME: Final = "shelf"


class Failed(Exception):
    """A program ended as it must not, or found what nobody wrote."""


class Place:
    """See the module.

    Args:
        folder: for all that is kept; outside the mounts.
        user: who has the volume.

    Attributes:
        seed: of all that is drawn.
        operations: how many calls the programs that draw theirs make.
        files: how many the tree has that is packed and unpacked.
    """

    def __init__(self, folder: Path, user: User, *, seed: int, operations: int, files: int) -> None:
        self.folder, self._user = folder, user
        self.seed, self.operations, self.files = seed, operations, files

    @contextlib.contextmanager
    def mounted(self, *options: str) -> Iterator[Path]:
        """The volume at a new folder; saved and gone at the end, whatever happens."""
        folder = self.fresh("mount")
        chosen = ["-o", ",".join(options)] if options else []
        _done(self._user, "mount", *chosen, _VOLUME, str(folder))
        try:
            yield folder
        finally:
            with contextlib.suppress(Failed):
                _done(self._user, "umount", str(folder))
            if find_mounted(folder) is not None:
                subprocess.run(["fusermount3", "-uz", folder], check=False, timeout=30)
                raise Failed(f"{folder} was busy at the end; see volumes/*/mounts/*/mount.log")

    def fresh(self, name: str) -> Path:
        """A new folder on this machine's own disk."""
        number = sum(1 for _ in self.folder.glob(f"{name}-*"))
        made = self.folder / f"{name}-{number}"
        made.mkdir()
        return made


@contextlib.contextmanager
def place(folder: Path, *, seed: int, operations: int, files: int) -> Iterator[Place]:
    """Six nodes and a volume over them, until the end."""
    with contextlib.ExitStack() as stack:
        config = NodeConfig(capacity_bytes=_NODE_BYTES)
        nodes = [stack.enter_context(running_node(folder / f"node{at}", config)) for at in range(_NODES)]
        roster = folder / "roster"
        roster.write_text("".join(f"{node.address}\n" for node in nodes))
        user = User(folder / "home", grid=str(roster))
        user.home.mkdir()
        _done(user, "identity", "new", "--unlocked")
        _done(user, "volume", "create", _VOLUME, "--own-name", "anna")
        yield Place(folder, user, seed=seed, operations=operations, files=files)


def _done(user: User, *words: str) -> None:
    run(VENV / "bin" / "muni", *words, cwd=user.home, environment=user.environment)


def run(
    *line: str | Path,
    cwd: Path | None = None,
    timeout_s: float = 600.0,
    environment: Mapping[str, str] | None = None,
) -> str:
    """Run a program to its end; returns what it wrote to standard output.

    Raises: Failed: it ended with an error, or not in time.
    """
    try:
        done = subprocess.run(
            line,
            cwd=cwd,
            env=environment,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            text=True,
            capture_output=True,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{line[0]} has not ended within {timeout_s:.0f} s") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-600:]
        raise Failed(f"{' '.join(map(str, line))}: exit code {done.returncode}: {said}")
    return done.stdout

"""A grid of six node processes and a log service, a volume on them, and the process that mounts it."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from tests.drill.service import ROOT, Service

from muniment.gateways.mount.places import find_mounted
from muniment.node import compose
from muniment.node.config import LogConfig, NodeConfig

NODES: Final = 6
_MUNI: Final = ["-m", "muniment", "--log-level", "info"]
_CAPACITY_BYTES: Final = 4 << 30
_COMMAND_S: Final = 60
_DEVNULL: Final = asyncio.subprocess.DEVNULL


@contextlib.asynccontextmanager
async def mounted(folder: Path) -> AsyncIterator[Path]:
    """Start all, make a volume and mount it; yields its folder.  No mount and no process is left."""
    services: list[Service] = []
    volume = folder / "volume"
    volume.mkdir()
    try:
        for at in range(NODES):
            home = folder / f"node{at}"
            compose.init_node(home, NodeConfig(capacity_bytes=_CAPACITY_BYTES))
            services.append(Service(folder, home.name, [*_MUNI, "node", "run", str(home)]))
        compose.init_log(folder / "log", LogConfig())
        services.append(Service(folder, "logs", [*_MUNI, "log", "run", str(folder / "log")]))
        for service in services:
            service.begin()
        for service in services:
            await service.wait_serving()
        addresses = [_address(service) for service in services]
        (folder / "roster").write_text("".join(f"{one}\n" for one in addresses[:NODES]))
        user = [*_MUNI, "--home", str(folder / "home"), "--grid", str(folder / "roster")]
        await _run([*user, "identity", "new", "--unlocked"])
        await _run([*user, "volume", "create", "posix", "--log", addresses[NODES], "--own-name", "root"])
        words = [*user, "mount", "--foreground", "-o", "allow_other,suid,dev", "posix", str(volume)]
        services.append(Service(folder, "mount", words, says="is mounted"))
        await services[-1].start()
        yield volume
        await _run([*user, "umount", str(volume)])
    finally:
        await asyncio.to_thread(_detach, volume)
        for service in reversed(services):
            service.kill()


def _address(service: Service) -> str:
    """As the process has printed it: `serving ADDRESS`."""
    return service.out.read_text().split("serving ", 1)[1].split()[0]


async def _run(words: list[str]) -> None:
    """Run a command to its end.  Raises: RuntimeError: it failed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, cwd=ROOT, stdin=_DEVNULL, stdout=_DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(_COMMAND_S):
        _, complaint = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {complaint.decode(errors='replace').strip()}")


def _detach(volume: Path) -> None:
    """Take the mount away, whoever uses it, if it is there."""
    if find_mounted(volume) is not None:
        subprocess.run(["fusermount3", "-uz", str(volume)], check=False, timeout=30)

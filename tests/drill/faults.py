"""Does the faults of a schedule to a running grid, and undoes each before its lane goes on."""

from __future__ import annotations

import asyncio
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.drill.client import OPERATION_S
from tests.drill.damage import Damage, delete_shares, delete_store, flip_bits, has_shares, put_back
from tests.drill.disks import set_capacity, used_bytes
from tests.drill.journal import Journal, read_journal
from tests.drill.place import CAPACITY_BYTES, LIAR, Place
from tests.drill.schedule import DAMAGE, Fault, lanes
from tests.drill.service import Service

_DELAY_S: Final = 0.3
_THROTTLE: Final = 20_000
"""Bytes a second."""

_LOOK_S: Final = 0.05
_MID_WRITE_S: Final = 10.0


@dataclass
class FaultTally:
    """What was done.

    Attributes:
        counts: by kind.
        repairs: (kind, node, shares, seconds until all blobs were whole again); None: it took too long.
        broken: what went wrong in doing it.
    """

    counts: Counter[str] = field(default_factory=Counter)
    repairs: list[tuple[str, str, int, float | None]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


class Faults:
    """Runs all lanes.

    Args:
        journal: of what is done and when.
    """

    def __init__(self, place: Place, journal: Journal) -> None:
        self._place, self._journal = place, journal
        self._stopping = asyncio.Event()
        self._busy = {name: asyncio.Lock() for name in place.nodes}
        self.tally = FaultTally()

    async def run(self, seconds: float) -> None:
        """Do faults for so long; on return all are undone, and what was damaged is whole again."""
        async with asyncio.TaskGroup() as group:
            for name, lane in lanes(self._place.shape).items():
                group.create_task(self._lane(lane), name=name)
            await asyncio.sleep(seconds)
            self._stopping.set()

    async def _lane(self, lane: Iterator[Fault]) -> None:
        for fault in lane:
            if await self._hold(fault.pause_s):
                return
            lock = self._busy.get(fault.target)
            if lock is None:
                await self._do(fault)
            else:
                async with lock:
                    if not self._stopping.is_set():
                        await self._do(fault)

    async def _hold(self, seconds: float) -> bool:
        """Wait; returns whether there are to be no more faults."""
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _do(self, fault: Fault) -> None:
        self._journal.add("begin", kind=fault.kind, target=fault.target, hold_s=round(fault.hold_s, 2))
        try:
            await (self._damage if fault.kind in DAMAGE else self._trouble)(fault)
        except Exception as error:
            self.tally.broken.append(f"{fault.kind} {fault.target}: {error!r}")
            self._journal.add("broken", kind=fault.kind, target=fault.target, error=repr(error))
            raise
        self.tally.counts[fault.kind] += 1
        self._journal.add("end", kind=fault.kind, target=fault.target)

    # --- damage

    async def _damage(self, fault: Fault) -> None:
        """Do it, and wait until the node has noticed, and the keeper has made everything whole."""
        while not await asyncio.to_thread(has_shares, self._place.node_folder(fault.target)):
            if await self._hold(_LOOK_S):
                return
        damage = await self._damaged(fault)
        begun_s = time.monotonic()
        self._journal.add("damaged", kind=fault.kind, target=fault.target, shares=damage.count)
        patience_s = self._place.shape.heal_s
        while not await asyncio.to_thread(damage.noticed):
            if time.monotonic() - begun_s > patience_s:
                self.tally.broken.append(f"{fault.kind} {fault.target}: never noticed")
                break
            await asyncio.sleep(_LOOK_S)
        whole_s = await self._place.watch.whole(patience_s)
        took_s = None if whole_s is None else time.monotonic() - begun_s
        self.tally.repairs.append((fault.kind, fault.target, damage.count, took_s))

    async def _damaged(self, fault: Fault) -> Damage:
        node, folder = self._place.nodes[fault.target], self._place.node_folder(fault.target)
        chance = random.Random(fault.seed)
        match fault.kind:
            case "flip bits":
                return await asyncio.to_thread(flip_bits, folder, chance)
            case "delete shares":
                return await asyncio.to_thread(delete_shares, folder, chance)
            case "delete store":
                node.kill()
                damage = await asyncio.to_thread(delete_store, folder)
                await node.start()
                return damage
            case "old store":
                copy = self._place.folder / f"{fault.target}.old"
                node.kill()
                await asyncio.to_thread(shutil.copytree, folder / "store", copy)
                await node.start()
                await self._hold(fault.hold_s)
                node.kill()
                damage = await asyncio.to_thread(put_back, folder, copy)
                await node.start()
                return damage
        raise AssertionError(fault)

    # --- trouble

    async def _trouble(self, fault: Fault) -> None:
        place = self._place
        what, _, how = fault.kind.partition(" ")
        match what, how:
            case ("log" | "introducer" | "keeper") as name, "kill" | "stop":
                service: Service = getattr(place, name)
                await (self._kill if how == "kill" else self._stop)(service, fault.hold_s)
            case "log", "cut" | "delay":
                await self._link("log", how, fault.hold_s)
            case "kill", "in a write":
                await self._mid_write(fault.target)
                await self._kill(place.members[fault.target], fault.hold_s / 4)
            case "kill", "a reader":
                await self._kill(place.members[fault.target], fault.hold_s / 4)
            case "stop", "a writer":
                await self._stop(place.members[fault.target], fault.hold_s)
            case _:
                await self._node(fault)

    async def _node(self, fault: Fault) -> None:
        node = self._place.nodes[fault.target]
        match fault.kind:
            case "kill":
                await self._kill(node, fault.hold_s)
            case "stop":
                await self._stop(node, fault.hold_s)
            case "restart":
                if code := await node.end():
                    self.tally.broken.append(f"{node.name} ended with {code} when it was asked to end")
                await node.start()
            case "cut" | "hang" | "half-open" | "delay" | "throttle":
                await self._link(fault.target, fault.kind, fault.hold_s)
            case "disk full":
                await self._fill(fault.target, fault.hold_s)
            case "lie":
                node.kill()
                await node.start([*LIAR, str(self._place.node_folder(fault.target))])
                await self._hold(fault.hold_s)
                node.kill()
                await node.start()
            case _:
                raise AssertionError(fault)

    async def _kill(self, service: Service, hold_s: float) -> None:
        service.kill()
        await self._hold(hold_s)
        await service.start()

    async def _stop(self, service: Service, hold_s: float) -> None:
        service.suspend()
        await self._hold(hold_s)
        service.resume()

    async def _link(self, name: str, how: str, hold_s: float) -> None:
        mode = how.partition("-")[0]
        self._place.turn(name, mode, {"delay": _DELAY_S, "throttle": _THROTTLE}.get(mode, 0))
        await self._hold(hold_s)
        self._place.turn(name, "open")

    async def _fill(self, name: str, hold_s: float) -> None:
        if disk := self._place.disks.get(name):
            disk.fill()
            await self._hold(hold_s)
            disk.empty()
            return
        node, folder = self._place.nodes[name], self._place.node_folder(name)
        for capacity_bytes in (await asyncio.to_thread(used_bytes, folder), CAPACITY_BYTES):
            node.kill()
            set_capacity(folder, capacity_bytes)
            await node.start()
            if capacity_bytes != CAPACITY_BYTES:
                await self._hold(hold_s)

    async def _mid_write(self, writer: str) -> None:
        """Until it has begun a write that it has not ended; not for ever, if nothing can be written."""
        path, until_s = self._place.journal(writer), time.monotonic() + min(_MID_WRITE_S, OPERATION_S)
        while time.monotonic() < until_s:
            lines = await asyncio.to_thread(read_journal, path)
            if lines and lines[-1]["what"] == "write begins":
                return
            await asyncio.sleep(_LOOK_S / 5)

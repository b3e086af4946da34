"""Log services that lie: honest code over a store that holds whatever a test wants, and a client to switch.

What such a service shows is signed by its key and proves what it can; that it is not what it showed before,
or not what may stand in a log, is for members to find out.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from muniment.crypto.checkpoints import sign_checkpoint
from muniment.crypto.entries import entry_hash
from muniment.crypto.identity import Identity
from muniment.engine.local_log import LocalLog
from muniment.engine.sequencer import Sequencer
from muniment.errors import InvalidRequest, NodeUnreachable
from muniment.ids import VolumeId
from muniment.logs.memory import MemoryLog
from muniment.merkle.log_tree import Frontier, Subtree
from muniment.ports import Appended, Clock, LogClient, LoggedEntry
from muniment.spec.checkpoint import Checkpoint, origin_of


class CarelessLog(MemoryLog):
    """A store that takes the same entry twice."""

    def append(self, entries: Sequence[LoggedEntry], nodes: Sequence[Subtree], checkpoint: bytes) -> None:
        for entry in entries:
            self._places.setdefault(entry.hash, len(self._entries))
            self._entries.append(entry)
        self._nodes |= {(node.level, node.index): node.hash for node in nodes if node.level}
        self._checkpoint = checkpoint


def store_of(volume: VolumeId, entries: Sequence[bytes], identity: Identity) -> MemoryLog:
    """A store with any bytes as entries, under a valid checkpoint."""
    store = CarelessLog("a lying log")
    logged = [LoggedEntry(entry_hash(signed), signed) for signed in entries]
    frontier, nodes = Frontier().extend(entry.hash for entry in logged)
    note = sign_checkpoint(identity, Checkpoint(origin_of(volume), frontier.size, frontier.root()))
    store.append(logged, nodes, note)
    return store


def service_of(
    volume: VolumeId, entries: Sequence[bytes], identity: Identity, clock: Clock, thread: ThreadPoolExecutor
) -> LocalLog:
    """A service that believes this to be the volume's log; it orders more if a log can be continued so."""
    sequencer = Sequencer(volume, store_of(volume, entries, identity), identity, clock, thread)

    async def opened() -> Sequencer:
        return sequencer

    return LocalLog(opened)


class SwitchedLog:
    """A client that asks whichever service it is told to.  `ports.LogClient`.

    Attributes:
        inner: the service.
        part: entries given at once, at most.
        proves: whether it answers with inclusion proofs.
        drops: what it says of an entry's place while it throws the entry away; None: it keeps it.
        lost_answers: of so many calls to append that come next nothing is heard, though they are done.
    """

    def __init__(self, inner: LogClient) -> None:
        self.inner = inner
        self.part = 1 << 30
        self.proves = True
        self.drops: int | None = None
        self.lost_answers = 0

    async def append(self, signed: Sequence[bytes]) -> list[Appended]:
        if self.drops is not None:
            note = await self.inner.checkpoint()
            return [Appended(self.drops + at, note) for at in range(len(signed))]
        done = await self.inner.append(signed)
        if self.lost_answers:
            self.lost_answers -= 1
            raise NodeUnreachable(node=b"", reason="the connection broke")
        return done

    async def checkpoint(self) -> bytes:
        return await self.inner.checkpoint()

    async def entries(self, start: int, stop: int) -> list[bytes]:
        return await self.inner.entries(start, min(stop, start + self.part))

    async def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        if not self.proves:
            raise InvalidRequest(reason="no")
        return await self.inner.inclusion(index, size)

    async def consistency(self, old: int, new: int) -> tuple[bytes, ...]:
        return await self.inner.consistency(old, new)

    async def clear_part(self) -> tuple[bytes, bytes]:
        return await self.inner.clear_part()

    async def wait_beyond(self, size: int, wait_s: float) -> bytes:
        return await self.inner.wait_beyond(size, wait_s)

    async def cosign(self, note: bytes) -> None:
        await self.inner.cosign(note)

    async def aclose(self) -> None:
        await self.inner.aclose()

"""The blocking Python face of a grid: the same methods as `Grid`, for programs without an event loop.

    with SyncGrid(lambda: open_my_grid()) as grid:
        stored = grid.put(Path("ledger.pdf"))
        grid.get(stored.cap, Path("copy.pdf"))

Owns one thread with an event loop; every call runs there.  Any thread may call; calls of several threads run
at the same time.  An interrupt (Ctrl-C) in a call cancels it and waits until it has cleaned up.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from muniment.engine.grid import Grid
from muniment.engine.health import Health
from muniment.engine.keeping.repair import RepairResult
from muniment.engine.policy import Policy
from muniment.engine.results import FilePut, GetResult, ProgressCallback, PutResult
from muniment.engine.source import SourceLike
from muniment.engine.status import NodeSummary
from muniment.engine.target import Writable
from muniment.errors import InvalidRequest
from muniment.spec.cap import Cap

_T = TypeVar("_T")


class SyncGrid:
    """See the module; methods, results and errors are those of `Grid`.

    Args:
        make: makes the Grid, on the thread of its loop; not started.
        loop_factory: makes the loop.
    Raises: as `Grid.start`.
    """

    def __init__(
        self,
        make: Callable[[], Grid],
        *,
        loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
    ) -> None:
        self._loop = loop_factory()
        self._thread = threading.Thread(target=self._loop.run_forever, name="muniment-grid", daemon=True)
        self._thread.start()
        self._closed = False
        try:
            self._grid = self._run(_started(make))
        except BaseException:
            self._stop()
            raise

    def put(
        self,
        source: SourceLike,
        *,
        policy: Policy | None = None,
        progress: ProgressCallback | None = None,
    ) -> PutResult:
        """As `Grid.put`; `progress` is called on the grid's thread."""
        return self._run(self._grid.put(source, policy=policy, progress=progress))

    def get(
        self,
        cap: Cap,
        target: Path | Writable,
        *,
        start: int = 0,
        stop: int | None = None,
        progress: ProgressCallback | None = None,
    ) -> GetResult:
        """As `Grid.get`."""
        return self._run(self._grid.get(cap, target, start=start, stop=stop, progress=progress))

    def put_many(
        self,
        paths: Iterable[Path],
        *,
        policy: Policy | None = None,
        told: Callable[[FilePut], None] | None = None,
    ) -> list[FilePut]:
        """As `Grid.put_many`."""
        return self._run(self._grid.put_many(paths, policy=policy, told=told))

    def put_tree(
        self,
        folder: Path,
        *,
        policy: Policy | None = None,
        progress: ProgressCallback | None = None,
    ) -> PutResult:
        """As `Grid.put_tree`."""
        return self._run(self._grid.put_tree(folder, policy=policy, progress=progress))

    def get_tree(
        self,
        cap: Cap,
        folder: Path,
        *,
        replace: bool = False,
        progress: ProgressCallback | None = None,
    ) -> GetResult:
        """As `Grid.get_tree`."""
        return self._run(self._grid.get_tree(cap, folder, replace=replace, progress=progress))

    def check(self, cap: Cap, *, verify: bool = False) -> Health:
        """As `Grid.check`."""
        return self._run(self._grid.check(cap, verify=verify))

    def repair(
        self,
        cap: Cap,
        *,
        seed: bytes,
        verify: bool = False,
        below: int | None = None,
        move: bool = False,
        bytes_per_s: float = math.inf,
    ) -> RepairResult:
        """As `Grid.repair`."""
        return self._run(
            self._grid.repair(cap, seed=seed, verify=verify, below=below, move=move, bytes_per_s=bytes_per_s)
        )

    def status(self) -> list[NodeSummary]:
        """As `Grid.status`."""
        return self._run(self._grid.status())

    def close(self) -> None:
        """As `Grid.aclose`; ends the thread.  Idempotent."""
        if not self._closed:
            try:
                self._run(self._grid.aclose())
            finally:
                self._stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, _T]) -> _T:
        if threading.current_thread() is self._thread:
            work.close()
            raise InvalidRequest(reason="a SyncGrid cannot be called from its own callbacks")
        ended = threading.Event()
        tasks: list[asyncio.Task[_T]] = []

        def begin() -> None:
            tasks.append(self._loop.create_task(work))
            tasks[0].add_done_callback(lambda _: ended.set())

        def cancel() -> None:
            tasks[0].cancel()  # it has begun by then: the loop does one after the other

        self._loop.call_soon_threadsafe(begin)
        try:
            ended.wait()
        except BaseException:  # an interrupt of this thread
            self._loop.call_soon_threadsafe(cancel)
            ended.wait()
            raise
        return tasks[0].result()

    def _stop(self) -> None:
        self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def _started(make: Callable[[], Grid]) -> Grid:
    grid = make()
    try:
        return await grid.start()
    except BaseException:
        await grid.aclose()
        raise

"""A folder's lock that is waited for, and waits that are cancelled."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from muniment.errors import FolderBusy, StoreFailed
from muniment.node.folder import FolderLock, wait_lock


async def test_it_comes_when_the_other_lets_go(tmp_path: Path) -> None:
    held = FolderLock(tmp_path)
    waiting = asyncio.ensure_future(wait_lock(tmp_path))
    await asyncio.sleep(0)
    held.close()
    lock = await waiting
    with pytest.raises(FolderBusy):
        FolderLock(tmp_path)
    lock.close()
    FolderLock(tmp_path).close()


async def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreFailed):
        await wait_lock(tmp_path / "missing")


@pytest.mark.parametrize("comes", ["before", "after"])
async def test_a_cancelled_wait_leaves_the_folder_free(tmp_path: Path, comes: str) -> None:
    """Whether the others let it go before the cancellation, or after it."""
    held = FolderLock(tmp_path)
    waiting = asyncio.ensure_future(wait_lock(tmp_path))
    await asyncio.sleep(0)
    if comes == "before":
        held.close()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    held.close()
    FolderLock(tmp_path).close()


async def test_who_waits_holds_no_thread_that_others_need(tmp_path: Path) -> None:
    threads = ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(threads)
    held = FolderLock(tmp_path)
    waiting = [asyncio.ensure_future(wait_lock(tmp_path)) for _ in range(3)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(asyncio.to_thread(tmp_path.is_dir), 5)
    held.close()
    for done in asyncio.as_completed(waiting):
        (await done).close()

"""A cache of blobs in a folder against a dict in the order of use: the limit holds, those least recently used
go first, over restarts, over kills before any system call, and with a second cache of the same folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.thoroughness import times

from muniment.caches.folder import FolderBlobCache
from muniment.ids import id_text
from muniment.testing.contracts.blob_cache import BLOCK_BYTES, blob_at, content_at, found

LIMIT = 6
BLOBS = st.integers(0, 9)
_CALLS = ("open", "rename", "unlink")


def blocks(at: int) -> int:
    """A blob of this number has always this size."""
    return 1 + at % 3


def size_bytes(at: int) -> int:
    return blocks(at) * BLOCK_BYTES - at


class CacheMachine(RuleBasedStateMachine):
    """What each call leaves is compared with what it should."""

    def __init__(self) -> None:
        super().__init__()
        self.top = Path(tempfile.mkdtemp(dir=os.environ.get("PYTEST_DEBUG_TEMPROOT")))
        self.expected: OrderedDict[int, None] = OrderedDict()  # the least recently used first

    @initialize()
    def begin(self) -> None:
        self.cache = self.opened()

    def opened(self) -> FolderBlobCache:
        return FolderBlobCache(self.top / "cache", LIMIT * BLOCK_BYTES)

    def teardown(self) -> None:
        self.cache.close()
        shutil.rmtree(self.top)

    def on_disk(self) -> list[str]:
        names = os.listdir(self.top / "cache")  # noqa: PTH208
        return [name for name in names if not name.startswith("index")]

    # --- calls --------------------------------------------------------------------------------

    def give(self, cache: FolderBlobCache, numbers: list[int]) -> None:
        cache.keep({blob_at(at): [content_at(at, size_bytes(at))] for at in numbers})

    def expect(self, numbers: list[int]) -> None:
        for at in numbers:
            self.expected[at] = None
            self.expected.move_to_end(at)
        while sum(map(blocks, self.expected)) > LIMIT:
            self.expected.popitem(last=False)

    @rule(numbers=st.lists(BLOBS, max_size=4, unique=True))
    def keep(self, numbers: list[int]) -> None:
        self.give(self.cache, numbers)
        self.expect(numbers)

    @rule(numbers=st.lists(BLOBS, max_size=4, unique=True))
    def keep_in_another(self, numbers: list[int]) -> None:
        self.cache.keep({})  # what was used is known to others when it was written
        other = self.opened()
        self.give(other, numbers)
        other.close()
        self.expect(numbers)

    @rule(at=BLOBS)
    def read(self, at: int) -> None:
        there = found(self.cache, at, size_bytes(at))
        assert there == (True if at in self.expected else None)
        if there:
            self.expected.move_to_end(at)

    @rule(at=BLOBS)
    def damage_and_keep_again(self, at: int) -> None:
        if at in self.expected:
            self.cache.drop(blob_at(at))
            assert found(self.cache, at, size_bytes(at)) is None
            self.keep([at])

    @rule()
    def restart(self) -> None:
        self.cache.keep({})
        self.cache.close()
        self.cache = self.opened()

    @rule(numbers=st.lists(BLOBS, min_size=1, max_size=4, unique=True), call=st.integers(0, 12))
    def kill(self, numbers: list[int], call: int) -> None:
        """In the middle of `keep`: what it should have done is done in part, and no limit is broken."""
        self.cache.keep({})
        self.cache.close()
        process = os.fork()
        if process == 0:
            self.die_keeping(numbers, call)
        os.waitpid(process, 0)
        assert self.taken() <= LIMIT
        self.cache = self.opened()
        self.cache.keep({})
        here = self.in_order()
        assert set(here) <= self.expected.keys() | set(numbers)
        older = [at for at in self.expected if at in here and at not in numbers]
        assert [at for at in here if at not in numbers] == older
        self.expected = OrderedDict.fromkeys(here)

    def die_keeping(self, numbers: list[int], call: int) -> None:
        """In a process of its own, which ends before that system call without tidying up."""
        left = call

        def dying(real: Any) -> Any:
            def wrapped(*args: Any, **named: Any) -> Any:
                nonlocal left
                left -= 1
                if left < 0:
                    os._exit(1)
                return real(*args, **named)

            return wrapped

        try:
            cache = self.opened()
            for name in _CALLS:
                setattr(os, name, dying(getattr(os, name)))  # of this process, which ends here
            self.give(cache, numbers)
        finally:
            os._exit(0)

    def in_order(self) -> list[int]:
        """What the index has, the least recently used first."""
        assert self.cache._index is not None
        rows = self.cache._index.rows("SELECT blob FROM blobs ORDER BY used")
        return [int.from_bytes(blob, "big") for (blob,) in rows]

    # --- always -------------------------------------------------------------------------------

    def taken(self) -> int:
        sizes = [os.stat(self.top / "cache" / name).st_size for name in self.on_disk()]  # noqa: PTH116
        return sum(-(-size // BLOCK_BYTES) for size in sizes)

    @invariant()
    def is_as_expected(self) -> None:
        assert sorted(self.on_disk()) == sorted(id_text(blob_at(at)) for at in self.expected)
        assert self.taken() == sum(map(blocks, self.expected)) <= LIMIT


TestBlobCache = CacheMachine.TestCase
TestBlobCache.settings = settings(max_examples=times(6), stateful_step_count=30)

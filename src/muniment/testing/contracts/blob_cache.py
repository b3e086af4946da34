"""What every `BlobCache` must do; a driver's test class inherits this suite and gives it caches."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from muniment.ids import BlobId
from muniment.ports import BlobCache
from muniment.spec.limits import KIB, MIB

OpenCache = Callable[[int], BlobCache]
"""Opens the same cache again each time it is called, with a limit of so many blocks."""

BLOCK_BYTES = 4096
"""A blob of so much and less takes one block."""


def blob_at(at: int) -> BlobId:
    """A BlobId for each number."""
    return BlobId(at.to_bytes(32, "big"))


def content_at(at: int, size_bytes: int) -> bytes:
    """What a test keeps as that blob."""
    return random.Random(f"{at} {size_bytes}").randbytes(size_bytes)


def keep(cache: BlobCache, *numbers: int, size_bytes: int = BLOCK_BYTES) -> None:
    """Add these blobs with one call, each in two parts."""
    contents = {at: content_at(at, size_bytes) for at in numbers}
    cache.keep({blob_at(at): (whole[:100], memoryview(whole)[100:]) for at, whole in contents.items()})


def found(cache: BlobCache, at: int, size_bytes: int = BLOCK_BYTES) -> bool | None:
    """Whether a blob is there as it was kept; None: it is not there."""
    head, data = bytearray(min(size_bytes, 216)), bytearray(max(0, size_bytes - 216))
    there = cache.read_into(blob_at(at), (memoryview(head), memoryview(data)))
    if there is None:
        return None
    return there == size_bytes and bytes(head + data) == content_at(at, size_bytes)


def those_here(cache: BlobCache, *numbers: int) -> list[int]:
    """Which of these are there, by a look that does not count as use."""
    return [at for at in numbers if cache.has(blob_at(at))]


class BlobCacheContract:
    """The suite; `opened` comes from the driver's test class."""

    def test_what_was_kept_can_be_read(self, opened: OpenCache) -> None:
        cache = opened(10)
        keep(cache, 1, 2, size_bytes=5000)
        assert (found(cache, 1, 5000), found(cache, 2, 5000), found(cache, 3)) == (True, True, None)

    def test_what_is_as_long_as_nobody_thought_says_so(self, opened: OpenCache) -> None:
        cache = opened(10)
        keep(cache, 1, size_bytes=300)
        for size_bytes in (1, 299, 301):
            assert cache.read_into(blob_at(1), [memoryview(bytearray(size_bytes))]) == 300

    def test_the_least_recently_used_goes_first(self, opened: OpenCache) -> None:
        cache = opened(3)
        keep(cache, 1, 2, 3)
        assert found(cache, 1)
        keep(cache, 4)
        assert those_here(cache, 1, 2, 3, 4) == [1, 3, 4]
        assert found(cache, 3)
        assert found(cache, 1)
        keep(cache, 5)
        assert those_here(cache, 1, 3, 4, 5) == [1, 3, 5]

    def test_a_blob_that_takes_many_blocks_takes_the_place_of_many(self, opened: OpenCache) -> None:
        cache = opened(4)
        keep(cache, 1, 2, 3, 4)
        keep(cache, 5, size_bytes=2 * BLOCK_BYTES + 1)
        assert those_here(cache, 1, 2, 3, 4, 5) == [4, 5]

    def test_what_is_larger_than_the_limit_is_not_kept_and_takes_nobodys_place(
        self, opened: OpenCache
    ) -> None:
        cache = opened(2)
        keep(cache, 1, 2)
        keep(cache, 3, size_bytes=2 * BLOCK_BYTES + 1)
        assert those_here(cache, 1, 2, 3) == [1, 2]

    def test_of_more_at_once_than_there_is_room_for_the_last_are_kept(self, opened: OpenCache) -> None:
        cache = opened(2)
        keep(cache, *range(5))
        assert those_here(cache, *range(5)) == [3, 4]

    def test_what_is_kept_again_is_counted_once(self, opened: OpenCache) -> None:
        cache = opened(2)
        keep(cache, 1, 2)
        keep(cache, 1)
        assert those_here(cache, 1, 2) == [1, 2]
        keep(cache, 3)
        assert those_here(cache, 1, 2, 3) == [1, 3]

    def test_what_was_dropped_can_be_kept_again(self, opened: OpenCache) -> None:
        cache = opened(2)
        keep(cache, 1)
        cache.drop(blob_at(1))
        assert found(cache, 1) is None
        cache.drop(blob_at(1))
        keep(cache, 1)
        assert found(cache, 1)

    def test_all_is_there_again_and_in_order_after_it_was_opened_anew(self, opened: OpenCache) -> None:
        cache = opened(3)
        keep(cache, 1, 2, 3)
        assert found(cache, 1)
        cache.keep({})
        cache.close()
        again = opened(3)
        assert all(found(again, at) for at in (1, 2, 3))
        again.close()
        later = opened(3)
        keep(later, 4)
        assert those_here(later, 1, 2, 3, 4) == [1, 3, 4]

    def test_a_smaller_limit_holds_as_soon_as_anything_is_kept(self, opened: OpenCache) -> None:
        cache = opened(4)
        keep(cache, 1, 2, 3, 4)
        cache.close()
        smaller = opened(2)
        smaller.keep({})
        assert those_here(smaller, 1, 2, 3, 4) == [3, 4]

    @pytest.mark.parametrize("size_bytes", [1, 215, 216, 217, BLOCK_BYTES - 1, 3 * BLOCK_BYTES])
    @pytest.mark.parametrize("much_bytes", [0, 64 * KIB, 2 * MIB, 4 * MIB])
    def test_any_size(self, opened: OpenCache, size_bytes: int, much_bytes: int) -> None:
        cache, size_bytes = opened(2000), size_bytes + much_bytes
        keep(cache, 7, size_bytes=size_bytes)
        assert found(cache, 7, size_bytes)

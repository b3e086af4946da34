"""The table of one file's locks against one that knows each byte."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from muniment.core.lock_ranges import TO_END, Lock, LockRanges

BYTES = 12
"""The last one stands for all bytes behind."""

RANGES = st.tuples(st.integers(0, BYTES - 1), st.integers(1, BYTES)).map(
    lambda pair: (pair[0], max(pair[1], pair[0] + 1))
)
STEPS = st.tuples(st.integers(1, 3), RANGES, st.sampled_from(["read", "write", "unlock", "close"]))


class Oracle:
    """For each byte who has it, and whether exclusively."""

    def __init__(self) -> None:
        self.bytes: list[dict[int, bool]] = [{} for _ in range(BYTES)]

    def conflicts(self, owner: int, start: int, stop: int, exclusive: bool) -> bool:
        return any(
            other != owner and (exclusive or held)
            for byte in self.bytes[start:stop]
            for other, held in byte.items()
        )

    def set(self, owner: int, start: int, stop: int, exclusive: bool) -> None:
        for byte in self.bytes[start:stop]:
            byte[owner] = exclusive

    def clear(self, owner: int, start: int, stop: int) -> bool:
        had = [byte.pop(owner, None) for byte in self.bytes[start:stop]]
        return any(one is not None for one in had)

    def runs(self, owner: int) -> list[tuple[int, int, bool]]:
        """The ranges of an owner, as long as may be."""
        found: list[tuple[int, int, bool]] = []
        for at, byte in enumerate(self.bytes):
            if owner not in byte:
                continue
            if found and found[-1][1:] == (at, byte[owner]):
                found[-1] = (found[-1][0], at + 1, byte[owner])
            else:
                found.append((at, at + 1, byte[owner]))
        return [(start, TO_END if stop == BYTES else stop, held) for start, stop, held in found]


@given(st.lists(STEPS, max_size=30))
def test_ranges_are_locked_as_each_byte_is(steps: list[tuple[int, tuple[int, int], str]]) -> None:
    table, oracle = LockRanges(), Oracle()
    for owner, (start, stop), what in steps:
        end = TO_END if stop == BYTES else stop
        if what == "close":
            assert table.clear(owner) == oracle.clear(owner, 0, BYTES)
        elif what == "unlock":
            assert table.clear(owner, start, end) == oracle.clear(owner, start, stop)
        else:
            wanted = Lock(owner, start, end, what == "write")
            conflict = table.conflict(wanted)
            assert (conflict is not None) == oracle.conflicts(owner, start, stop, wanted.exclusive)
            if conflict is None:
                table.set(wanted)
                oracle.set(owner, start, stop, wanted.exclusive)
            else:
                assert conflict in list(table)
                assert conflict.owner != owner
        for one in (1, 2, 3):
            held = [(lock.start, lock.stop, lock.exclusive) for lock in table if lock.owner == one]
            assert held == oracle.runs(one)
        assert len(table) == len(list(table))


def test_a_copy_is_tried_without_touching_the_first() -> None:
    table = LockRanges()
    table.set(Lock(1, 0, 10))
    tried = table.copy()
    tried.clear(1, 3, 4)
    assert (len(tried), list(table)) == (2, [Lock(1, 0, 10)])

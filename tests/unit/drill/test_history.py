"""The judge of the drill finds what it is there to find."""

from __future__ import annotations

from typing import Any

from tests.drill.history import History

Line = dict[str, Any]


def begin(version: int, at_s: float) -> Line:
    return {
        "what": "begin",
        "register": "r",
        "version": version,
        "print": f"p{version}",
        "size": 1,
        "at_s": at_s,
    }


def acknowledged(version: int, at_s: float, index: int) -> Line:
    return {"what": "write", "register": "r", "version": version, "result": index, "at_s": at_s}


def read(found: str, began_s: float, at_s: float, what: str = "read", at: int = 9) -> Line:
    return {"what": what, "register": "r", "result": [at, found], "began_s": began_s, "at_s": at_s}


WRITTEN = [begin(1, 1), acknowledged(1, 2, 5), begin(2, 3), begin(3, 5), acknowledged(3, 6, 8)]
STORED = {"r": [(5, "p1"), (8, "p3")]}


def judged(*lines: Line, stored: dict[str, list[tuple[int, str]]] | None = None) -> History:
    history = History({"writer": WRITTEN, "reader": list(lines)}, stored or STORED)
    history.judge()
    return history


def wrong(history: History) -> tuple[int, int, int]:
    return len(history.wrong_bytes), len(history.lost), len(history.disagreements)


def test_reads_beside_writes_may_see_either() -> None:
    for lines in (read("", 1.5, 2.5), read("p1", 1.5, 2.5), read("p1", 5.5, 7), read("p3", 5.5, 7)):
        assert wrong(judged(lines)) == (0, 0, 0)


def test_a_read_that_began_after_an_acknowledgement_must_see_it() -> None:
    assert wrong(judged(read("", 2.5, 3))) == (0, 1, 0)
    assert wrong(judged(read("p1", 6.5, 7))) == (0, 1, 0)


def test_bytes_that_nobody_wrote_are_wrong() -> None:
    assert wrong(judged(read("p1 p3", 6.5, 7))) == (1, 0, 0)
    assert wrong(judged(read("p3", 1, 2))) == (1, 0, 0)  # and so are those that come later


def test_what_was_acknowledged_is_there_in_its_place_and_order() -> None:
    assert wrong(judged(stored={"r": [(5, "p1")]})) == (0, 1, 0)
    assert wrong(judged(stored={"r": [(5, "p1"), (7, "p3")]})) == (0, 1, 0)
    assert wrong(judged(stored={"r": [(5, "p1"), (8, "p3"), (9, "p2")]})) == (0, 1, 0)
    assert wrong(judged(stored={"r": [(5, "p1"), (7, "half"), (8, "p3")]})) == (1, 0, 0)
    assert wrong(judged(stored={"r": [(5, "p1"), (7, "p2"), (8, "p3")]})) == (0, 0, 0)


def test_the_past_is_what_it_was() -> None:
    assert wrong(judged(read("p1", 8, 9, "past", at=7), read("", 8, 9, "past", at=4))) == (0, 0, 0)
    assert wrong(judged(read("p3", 8, 9, "past", at=7))) == (1, 0, 0)


def test_members_of_one_size_have_one_state() -> None:
    states = [{"what": "state", "size": 4, "digest": digest, "note": ""} for digest in ("a", "a", "b")]
    assert wrong(judged(*states)) == (0, 0, 1)

"""The clear part of a log in short leads to the membership that all of its entries lead to, or is refused."""

from __future__ import annotations

import dataclasses

import pytest
from tests.unit.membership.support import SECOND_NS, Volume

from muniment.core.clear_part import (
    clear_part,
    dump_clear,
    frontier_of,
    head_of,
    load_clear,
    proven_nodes,
    resumed,
)
from muniment.core.membership import Membership
from muniment.crypto.entries import SignedEntry, open_entry
from muniment.errors import IntegrityError, MalformedRecord
from muniment.ids import EntryHash, VolumeId
from muniment.merkle.log_tree import Frontier, NodeReader
from muniment.spec.act import Quorum, Role
from muniment.spec.clear_part import ClearAct, ClearHead, ClearPart, ClearTail


def eventful() -> Volume:
    """Members who come, write, vote and go; ends in the middle of a vote."""
    volume = Volume()
    for name, role in (("bert", Role.OWNER), ("carl", Role.WRITER), ("dora", Role.READER)):
        volume.write("anna")
        volume.add(name, role=role)
        volume.now_ns += SECOND_NS
    for _ in range(5):
        volume.write("carl")
    volume.submit("bert", volume.kick("dora"))
    volume.write("carl")
    volume.change("anna", Quorum.ALL)
    volume.submit("emil", volume.join("emil", Role.WRITER))
    volume.submit("bert", volume.accept("emil", Role.WRITER))
    volume.now_ns += SECOND_NS
    volume.write("carl")
    return volume


def tree(log: list[SignedEntry]) -> tuple[Frontier, dict[tuple[int, int], bytes]]:
    frontier, nodes = Frontier().extend(entry.hash for entry in log)
    return frontier, {(node.level, node.index): node.hash for node in nodes}


def reader(nodes: dict[tuple[int, int], bytes]) -> NodeReader:
    return lambda level, index: nodes[level, index]


def part_of(volume: Volume, size: int | None = None) -> ClearPart:
    log = volume.log if size is None else volume.log[:size]
    membership = Membership()
    for at, entry in enumerate(log):
        membership.admit(entry, at)
    frontier, nodes = tree(log)
    return clear_part(membership, frontier, reader(nodes), lambda at: log[at].signed)


def told(membership: Membership) -> dict[str, object]:
    """All that a membership says."""
    kept = vars(membership) | {"_ballots": membership.votes(), "_acts": list(membership.acts)}
    return kept | {"joins": membership.joins(), "policy": membership.policy}


VOLUME = eventful()
PART = part_of(VOLUME)


@pytest.mark.parametrize("size", range(1, len(VOLUME.log) + 1))
def test_at_every_size_it_leads_where_all_entries_lead(size: int) -> None:
    full = Membership()
    for at, entry in enumerate(VOLUME.log[:size]):
        full.admit(entry, at)
    part = part_of(VOLUME, size)
    short = resumed(load_clear(dump_clear(part)), full.volume, open_entry)
    assert told(short) == told(full)
    assert len(part.acts) < size or size < 3
    for at, entry in enumerate(VOLUME.log[size:], size):  # and what follows is judged the same
        short.admit(entry, at)
    assert told(short) == told(VOLUME.state)


def test_what_is_proven_gives_the_paths_again_in_a_larger_log() -> None:
    """Who begins behind most of the log knows of it only these nodes, and can still prove every act."""
    small = part_of(VOLUME, 11)
    hashes = [open_entry(act.signed).hash for act in small.acts]
    known = {(node.level, node.index): node.hash for node in proven_nodes(small, 11, hashes)}
    at = 0
    for level in reversed(range(4)):
        if 11 >> level & 1:
            known[level, (at + (1 << level) >> level) - 1] = frontier_of(small.head).hashes[
                (11 >> (level + 1)).bit_count()
            ]
            at += 1 << level
    _, completed = frontier_of(small.head).extend(entry.hash for entry in VOLUME.log[11:])
    known |= {(node.level, node.index): node.hash for node in completed}
    frontier, _ = tree(VOLUME.log)
    again = clear_part(VOLUME.state, frontier, reader(known), lambda at: VOLUME.log[at].signed)
    assert again == PART


def test_damaged_bytes_are_refused() -> None:
    whole = dump_clear(PART)
    for at in range(0, len(whole), 7):
        changed = bytearray(whole)
        changed[at] ^= 1
        with pytest.raises(IntegrityError):
            load_clear(bytes(changed))
    with pytest.raises(MalformedRecord):
        load_clear(whole[:20])


def head(**changes: object) -> ClearPart:
    return ClearPart(dataclasses.replace(PART.head, **changes), PART.acts)  # type: ignore[arg-type]


def act(at: int, **changes: object) -> ClearPart:
    acts: list[ClearAct] = list(PART.acts)
    acts[at] = dataclasses.replace(acts[at], **changes)  # type: ignore[arg-type]
    return ClearPart(PART.head, tuple(acts))


def more(tail: ClearTail, by: int) -> ClearTail:
    return dataclasses.replace(tail, sequence=tail.sequence + by)


TAILS = PART.head.tails
FOREIGN = Volume(lifetime_s=60)


@pytest.mark.parametrize(
    "part",
    [
        head(time_ns=PART.head.time_ns - SECOND_NS * 2),
        head(tails=(*TAILS[:-2], more(TAILS[-2], 1), more(TAILS[-1], -1))),
        head(tails=tuple(dataclasses.replace(tail, previous=EntryHash(bytes(32))) for tail in TAILS)),
        head(acts_hash=bytes(32)),
        head(frontier=(bytes(32), *PART.head.frontier[1:])),
        act(3, time_ns=PART.acts[3].time_ns + 1),
        act(3, index=PART.acts[3].index + 1),
        act(3, index=PART.head.size),
        act(3, path=PART.acts[3].path[1:]),
        act(3, path=(bytes(32), *PART.acts[3].path[1:])),
        act(0, signed=FOREIGN.log[0].signed),
        act(3, signed=PART.acts[4].signed),
        ClearPart(PART.head, (*PART.acts[:-1], PART.acts[-2])),
        ClearPart(PART.head, PART.acts[1:]),
    ],
)
def test_what_is_not_the_clear_part_of_this_log_is_refused(part: ClearPart) -> None:
    with pytest.raises(MalformedRecord):
        resumed(part, VOLUME.state.volume, open_entry)


def test_an_act_that_is_left_out_is_missed() -> None:
    """If what comes later does not follow from the rest: here the votes of those who were never accepted."""
    for gone in range(len(PART.acts) - 1):
        acts = PART.acts[:gone] + PART.acts[gone + 1 :]
        with pytest.raises(MalformedRecord):
            resumed(ClearPart(PART.head, acts), VOLUME.state.volume, open_entry)


def test_another_volume_is_refused() -> None:
    with pytest.raises(MalformedRecord):
        resumed(PART, VolumeId(bytes(32)), open_entry)


def test_the_head_is_that_of_the_membership() -> None:
    frontier, _ = tree(VOLUME.log)
    made: ClearHead = head_of(VOLUME.state, frontier)
    assert made == PART.head
    assert sum(tail.sequence for tail in made.tails) == made.size == len(VOLUME.log)

"""Which faults, in which order: lanes drawn from the seed.

A lane does one fault after the other; what runs at one time are different lanes.  One lane damages shares and
goes on only when full redundancy is back, the others take a node away: together they are the budget of
`Shape`.  Two more are for the services and for the clients.  A node is never in two lanes at once.  The order
in each lane is the seed's; the times depend on the machine too, since damage is waited for.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from tests.drill.shape import Shape

DAMAGE: Final = ("flip bits", "delete shares", "delete store", "old store")
AWAY: Final = ("kill", "stop", "cut", "hang", "half-open", "delay", "throttle", "disk full", "lie", "restart")
SERVICES: Final = ("log kill", "log stop", "log cut", "log delay", "introducer kill", "introducer stop",
                   "keeper kill", "keeper stop")  # fmt: skip
CLIENTS: Final = ("kill in a write", "kill in a write", "kill a reader", "stop a writer")


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        kind: what is done.
        target: a node, or a client; empty where the kind says it.
        pause_s: before it.
        hold_s: until it is undone.
        seed: of what is drawn for it alone.
    """

    kind: str
    target: str
    pause_s: float
    hold_s: float
    seed: int


def lanes(shape: Shape) -> dict[str, Iterator[Fault]]:
    """Endless lanes by name."""
    nodes = tuple(f"node{at}" for at in range(1, shape.nodes + 1))
    found = {"damage": _lane(shape, "damage", DAMAGE, nodes)}
    for at in range(1, shape.budget):
        found[f"away{at}"] = _lane(shape, f"away{at}", AWAY, nodes)
    found["services"] = _lane(shape, "services", SERVICES, ("",))
    found["clients"] = _lane(shape, "clients", CLIENTS, tuple(shape.writers))
    return found


def _lane(shape: Shape, name: str, kinds: tuple[str, ...], targets: tuple[str, ...]) -> Iterator[Fault]:
    """Every kind comes once before any comes again."""
    chance = random.Random(f"{shape.seed} {name}")
    for _ in itertools.count():
        for kind in chance.sample(kinds, len(kinds)):
            target = chance.choice(targets)
            if kind == "disk full":
                target = chance.choice(SMALL_DISKS)
            elif kind == "kill a reader":
                target = chance.choice(shape.readers)
            pause_s, hold_s = chance.uniform(*shape.pause_s), chance.uniform(*shape.hold_s)
            yield Fault(kind, target, pause_s, hold_s, chance.getrandbits(32))


SMALL_DISKS: Final = ("node1", "node2", "node3")
"""Nodes that can have a disk of their own that can be full."""

"""The model of loss against itself done by counting, and the formulas of lazy repair at known points."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muniment.core.keeping.survival import Hazard, LazyRepair, loss_probability
from muniment.ids import NodeId

DAY_S = 86400.0
HAZARD = Hazard(node_mttf_s=10 * DAY_S, zone_mttf_s=40 * DAY_S, repair_s=DAY_S)


def node(at: int) -> NodeId:
    return NodeId(bytes([at]) * 32)


def counted(k: int, places: list[tuple[NodeId, str]], hazard: Hazard) -> float:
    """The same by going through everything that can happen."""
    nodes = sorted({where[0] for where in places})
    zones = sorted({zone for _, zone in places if zone})
    total = 0.0
    for alive in itertools.product((True, False), repeat=len(nodes) + len(zones)):
        nodes_up = dict(zip(nodes, alive, strict=False))
        zones_up = dict(zip(zones, alive[len(nodes) :], strict=True))
        chance = math.prod(1 - hazard.node_loss if up else hazard.node_loss for up in nodes_up.values())
        chance *= math.prod(1 - hazard.zone_loss if up else hazard.zone_loss for up in zones_up.values())
        left = sum(nodes_up[where] and zones_up.get(zone, True) for where, zone in places)
        total += chance if left < k else 0.0
    return total


@given(st.integers(1, 4), st.lists(st.integers(0, 4), max_size=6), st.integers(0, 2))
def test_the_model_is_what_counting_gives(k: int, nodes: list[int], zones: int) -> None:
    places = [(node(at), f"zone {at % zones}" if zones else "") for at in nodes]
    assert loss_probability(k, places, HAZARD) == pytest.approx(counted(k, places, HAZARD), abs=1e-12)


def test_independent_nodes_are_the_binomial() -> None:
    hazard = Hazard(node_mttf_s=100 * DAY_S, repair_s=DAY_S)
    p = hazard.node_loss
    expected = sum(math.comb(6, left) * (1 - p) ** left * p ** (6 - left) for left in range(4))
    assert loss_probability(4, [(node(at), "") for at in range(6)], hazard) == pytest.approx(expected)


def test_shares_at_one_node_or_in_one_zone_are_worse_than_apart() -> None:
    apart = loss_probability(2, [(node(at), f"{at}") for at in range(4)], HAZARD)
    zone = loss_probability(2, [(node(at), "one") for at in range(4)], HAZARD)
    one = loss_probability(2, [(node(0), "0")] * 4, HAZARD)
    assert apart < zone < one


def test_what_has_too_few_shares_is_lost() -> None:
    assert loss_probability(4, [(node(at), "") for at in range(3)], HAZARD) == pytest.approx(1.0)


def test_lazy_repair_waits_longer_and_sends_less_the_lower_its_threshold() -> None:
    eager, lazy = LazyRepair(10, 13, 14, 12.0), LazyRepair(10, 11, 14, 12.0)
    assert eager.interval == pytest.approx(math.log(14 / 13) * 12)
    assert lazy.interval > eager.interval
    assert lazy.download == pytest.approx(1 / (math.log(14 / 11) * 12))
    assert lazy.upload == pytest.approx(3 / (10 * math.log(14 / 11) * 12))
    assert lazy.download + lazy.upload < eager.download + eager.upload

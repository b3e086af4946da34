"""The simulated world: the same seed is the same run, and what comes out is what theory says."""

from __future__ import annotations

import math

import pytest

from muniment.core.keeping.survival import LazyRepair
from muniment.testing.simulator import DAY_S, MONTH_S, Keeping, World, simulate


def test_a_seed_is_a_run() -> None:
    world = World(nodes=30, rot_s=40 * MONTH_S, cheats=0.1, up_s=10 * DAY_S)
    runs = [simulate(world, Keeping(blobs=20), months=6, seed=seed) for seed in (3, 3, 4)]
    assert runs[0] == runs[1] != runs[2]
    assert runs[0].deaths > 0


@pytest.mark.parametrize(("k", "threshold", "n"), [(3, 6, 10), (10, 12, 14)])
def test_lazy_repair_costs_what_the_formula_says(k: int, threshold: int, n: int) -> None:
    months, keeping = 120, Keeping(k=k, n=n, repair_below=threshold + 1, blobs=25, scan_s=0.0, repair_s=0.0)
    found = simulate(World(nodes=60, zones=60), keeping, months=months, seed=5)
    stored = keeping.blobs * keeping.blob_bytes * months
    wanted = LazyRepair(k, threshold, n, 12.0)
    assert found.download_bytes / stored == pytest.approx(wanted.download, rel=0.1)
    assert found.upload_bytes / stored == pytest.approx(wanted.upload, rel=0.1)


def test_who_keeps_loses_nothing_in_two_years_and_who_does_not_loses_much() -> None:
    world = World(zone_mttf_s=120 * MONTH_S, up_s=10 * DAY_S)
    for seed in range(3):
        kept = simulate(world, Keeping(blobs=30), months=24, seed=seed)
        assert (kept.lost, kept.lost_at_s) == (0, math.inf)
        assert kept.rebuilt > 0
    left = simulate(world, Keeping(blobs=30, repair_below=0), months=24, seed=0)
    assert left.lost > 20
    assert left.rebuilt == 0


def test_cheats_and_rot_are_caught_by_challenges_and_only_by_them() -> None:
    world = World(node_mttf_s=math.inf, cheats=0.2, rot_s=20 * MONTH_S)
    found = simulate(world, Keeping(blobs=20, repair_below=10), months=6, seed=2)
    assert found.caught > 20
    assert found.rebuilt >= found.caught - 10
    honest = simulate(World(node_mttf_s=math.inf), Keeping(blobs=20), months=6, seed=2)
    assert (honest.proofs, honest.rebuilt) == (0, 0)


def test_a_node_that_is_away_for_less_than_the_patience_costs_nothing() -> None:
    world = World(node_mttf_s=math.inf, up_s=5 * DAY_S, down_s=DAY_S / 24)
    patient = simulate(world, Keeping(blobs=20, repair_below=10, offline_s=2 * DAY_S), months=2, seed=1)
    hasty = simulate(world, Keeping(blobs=20, repair_below=10, offline_s=0.0), months=2, seed=1)
    assert patient.rebuilt == 0 < hasty.rebuilt

"""Challenges are fixed by the checkpoint, uniform, and find what is gone as often as the formula says."""

from __future__ import annotations

from collections import Counter

import pytest

from muniment.core.keeping.challenge import challenge_seed, challenged_leaf, detection, is_sampled
from muniment.ids import BlobId, MemberId, ShareKey, ShareNumber, VolumeId

VOLUME, MEMBER = VolumeId(b"v" * 32), MemberId(b"m" * 32)
SEED = challenge_seed(VOLUME, b"r" * 32, 0, MEMBER)


def share(at: int) -> ShareKey:
    return ShareKey(BlobId(at.to_bytes(32, "big")), ShareNumber(at % 6))


@pytest.mark.parametrize(
    "other",
    [
        challenge_seed(VolumeId(b"w" * 32), b"r" * 32, 0, MEMBER),
        challenge_seed(VOLUME, b"s" * 32, 0, MEMBER),
        challenge_seed(VOLUME, b"r" * 32, 1, MEMBER),
        challenge_seed(VOLUME, b"r" * 32, 0, MemberId(b"n" * 32)),
    ],
)
def test_every_part_of_the_seed_changes_what_is_asked(other: bytes) -> None:
    asked = [challenged_leaf(SEED, share(at), 1 << 20) for at in range(8)]
    assert asked == [challenged_leaf(SEED, share(at), 1 << 20) for at in range(8)]
    assert asked != [challenged_leaf(other, share(at), 1 << 20) for at in range(8)]


@pytest.mark.parametrize("leaves", [1, 2, 3, 64, 100])
def test_every_leaf_is_asked_for_equally_often(leaves: int) -> None:
    counts = Counter(challenged_leaf(SEED, share(at), leaves) for at in range(200 * leaves))
    assert set(counts) == set(range(leaves))
    assert max(counts.values()) < 200 + 5 * 200**0.5  # five standard deviations, and the draws never change


def test_further_draws_of_a_share_are_other_leaves() -> None:
    assert len({challenged_leaf(SEED, share(1), 1 << 40, draw) for draw in range(50)}) == 50


def test_a_sample_takes_its_part_and_a_sample_of_all_takes_all() -> None:
    taken = sum(is_sampled(SEED, share(at).blob, 10) for at in range(5000))
    assert 400 < taken < 600
    assert all(is_sampled(SEED, share(at).blob, 1) for at in range(100))


@pytest.mark.parametrize(("lost", "challenges"), [(0.01, 100), (0.05, 20)])
def test_challenges_find_what_is_gone_as_often_as_the_formula_says(lost: float, challenges: int) -> None:
    rounds, leaves = 2000, 1000
    found = 0
    for number in range(rounds):
        seed = challenge_seed(VOLUME, b"r" * 32, number, MEMBER)
        drawn = (challenged_leaf(seed, share(7), leaves, draw) for draw in range(challenges))
        found += any(leaf < lost * leaves for leaf in drawn)
    assert found / rounds == pytest.approx(detection(lost, challenges), abs=0.05)

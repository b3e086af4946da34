"""Open votes of a volume's owners (docs/spec/entry.md section 3).

Knows who voted for what and when, and nothing of who may: that is `core.membership`, which also drops
what must not be counted later.  What is in here was cast in the present epoch, under the present policy, by
one who has been an owner ever since.
"""

from __future__ import annotations

from dataclasses import dataclass

from muniment.ids import MemberId
from muniment.spec.act import Grant, Role, VolumePolicy


@dataclass(frozen=True, slots=True)
class Acceptance:
    """Subject of a vote: to take in a joiner in this role."""

    member: MemberId
    role: Role


@dataclass(frozen=True, slots=True)
class Removal:
    """Subject of a vote: to remove a member."""

    member: MemberId


Subject = Acceptance | Removal | VolumePolicy
"""What owners vote on; a policy is its own subject."""


@dataclass(frozen=True, slots=True)
class Vote:
    """One owner's vote.

    Attributes:
        voter: who.
        time_ns: of the log when it was cast.
        grant: in a vote for a joiner, his keys as this voter wrapped them.
    """

    voter: MemberId
    time_ns: int
    grant: Grant | None = None


class Ballots:
    """Votes by subject, one for each voter."""

    __slots__ = ("_votes",)

    def __init__(self) -> None:
        self._votes: dict[Subject, dict[MemberId, Vote]] = {}

    def counting(self, subject: Subject, since_ns: int) -> tuple[Vote, ...]:
        """The votes for `subject` that are not older than `since_ns`, in the order in which they came."""
        return tuple(vote for vote in self._votes.get(subject, {}).values() if vote.time_ns >= since_ns)

    def has(self, subject: Subject, voter: MemberId, since_ns: int) -> bool:
        """Whether a vote of `voter` for `subject` counts."""
        vote = self._votes.get(subject, {}).get(voter)
        return vote is not None and vote.time_ns >= since_ns

    def cast(self, subject: Subject, vote: Vote) -> None:
        """Add a vote; an expired one of the same voter gives way."""
        votes = self._votes.setdefault(subject, {})
        votes.pop(vote.voter, None)
        votes[vote.voter] = vote

    def close(self, *subjects: Subject) -> None:
        """Forget these."""
        for subject in subjects:
            self._votes.pop(subject, None)

    def drop(self, voter: MemberId) -> None:
        """Forget what one has voted."""
        for votes in self._votes.values():
            votes.pop(voter, None)

    def clear(self) -> None:
        """Forget all."""
        self._votes.clear()

    def open(self, since_ns: int) -> dict[Subject, tuple[MemberId, ...]]:
        """Who has voted for what, as far as it counts."""
        counting = {subject: self.counting(subject, since_ns) for subject in self._votes}
        return {subject: tuple(vote.voter for vote in votes) for subject, votes in counting.items() if votes}

    def copy(self) -> Ballots:
        """An independent copy."""
        other = Ballots()
        other._votes = {subject: dict(votes) for subject, votes in self._votes.items()}
        return other

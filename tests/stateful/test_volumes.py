"""Three writers, an owner and a newcomer over one log, through losses, partitions, crashes and any order.

Rows P23 and P35 of the predecessors' tests: total order, FIFO for each author, no creation, no duplication,
agreement, and nothing that was answered is lost.  The simulator does what the rules say and checks it.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from muniment.spec.act import Role
from muniment.testing.log_simulator import (
    OWNER,
    WRITERS,
    Job,
    LogSimulator,
    MemberCrash,
    ServiceCrash,
    ViewAfterCrash,
)

MEMBERS = st.sampled_from((OWNER, *WRITERS, "newcomer"))
JOBS = st.lists(
    st.builds(Job, MEMBERS, st.integers(0, 11), st.integers(0, 7)),
    min_size=1,
    max_size=5,
)
AFTER_S = st.floats(0, 0.6)
SERVICE_CRASHES = st.builds(ServiceCrash, AFTER_S, st.booleans())
MEMBER_CRASHES = st.builds(MemberCrash, AFTER_S, MEMBERS, st.sampled_from(ViewAfterCrash))


class VolumeMachine(RuleBasedStateMachine):
    """Any order of what `LogSimulator` can do."""

    simulator: LogSimulator | None = None

    @initialize(seed=st.integers(0, 2**32 - 1))
    def begin(self, seed: int) -> None:
        self.simulator = LogSimulator(seed)

    @property
    def running(self) -> LogSimulator:
        assert self.simulator is not None
        return self.simulator

    @rule(jobs=JOBS)
    def change(self, jobs: list[Job]) -> None:
        self.running.together(jobs)

    @rule(jobs=JOBS, loss=st.sampled_from((0.1, 0.3, 0.6)))
    def change_with_losses(self, jobs: list[Job], loss: float) -> None:
        self.running.together(jobs, loss=loss)

    @rule(
        jobs=JOBS,
        loss=st.sampled_from((0.0, 0.2)),
        crashes=st.lists(SERVICE_CRASHES | MEMBER_CRASHES, min_size=1, max_size=2),
    )
    def change_with_crashes(
        self, jobs: list[Job], loss: float, crashes: list[ServiceCrash | MemberCrash]
    ) -> None:
        self.running.together(jobs, loss=loss, interruptions=crashes)

    @rule(member=MEMBERS)
    def partition(self, member: str) -> None:
        self.running.partition(member)

    @rule()
    def heal(self) -> None:
        self.running.heal()

    @rule(member=MEMBERS)
    def follow(self, member: str) -> None:
        self.running.follow(member)

    @rule(one=MEMBERS, other=MEMBERS)
    def gossip(self, one: str, other: str) -> None:
        self.running.gossip(one, other)

    @rule(role=st.sampled_from((Role.READER, Role.WRITER)))
    def join(self, role: Role) -> None:
        self.running.newcomer("newcomer", role)

    @rule(member=st.sampled_from((WRITERS[0], "newcomer")))
    def remove(self, member: str) -> None:
        self.running.remove(member)

    @rule()
    def settle(self) -> None:
        self.running.settle()
        self.running.check()

    @invariant()
    def replicas_are_beginnings_of_one_log(self) -> None:
        if self.simulator is not None:
            self.simulator.check_prefixes()

    def teardown(self) -> None:
        if self.simulator is not None:
            with self.simulator:
                self.simulator.settle()
                self.simulator.check()


TestVolumes = VolumeMachine.TestCase
TestVolumes.settings = settings(stateful_step_count=12)


def run(seed: int) -> tuple[int, list[tuple[str, int | None]], float]:
    with LogSimulator(seed) as simulator:
        for at in range(4):
            jobs = [Job(name, seed + at + number, at) for number, name in enumerate((OWNER, *WRITERS))]
            simulator.together(
                jobs * 2,
                loss=0.2,
                interruptions=[
                    ServiceCrash(0.3, True),
                    MemberCrash(0.4, WRITERS[at % 3], ViewAfterCrash.BEHIND),
                ],
            )
        simulator.settle()
        simulator.check()
        outcomes = [(change.label, change.index) for change in simulator.changes]
        return simulator.disk.size, outcomes, simulator.loop.time()


def test_the_same_seed_is_the_same_run() -> None:
    assert run(7) == run(7)
    assert run(7) != run(8)

"""Both transfer machines against a model of nodes, in every order Hypothesis can think of.

The model keeps what really is where.  Whatever the order of answers, losses, duplicates and late ticks: no
outcome is wrong, nothing stays reserved, requests are bounded, and the machine ends.
"""

from __future__ import annotations

from collections import Counter

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.thoroughness import times

from muniment.core import download as dl
from muniment.core import upload as ul
from muniment.core.happiness import happiness
from muniment.core.placement import Placement, Slot
from muniment.ids import BlobId, NodeId, ShareNumber

BLOB = BlobId(b"b" * 32)


def node_id(number: int) -> NodeId:
    return NodeId(bytes([number]) * 32)


class UploadModel(RuleBasedStateMachine):
    """`claims` and `sends` are under way; `reserved` and `stored` are what the nodes really have."""

    @initialize(
        n=st.integers(1, 6),
        nodes=st.integers(1, 8),
        happy=st.integers(1, 6),
        held=st.sets(st.integers(0, 5)),
        direct=st.booleans(),
    )
    def begin(self, n: int, nodes: int, happy: int, held: set[int], *, direct: bool) -> None:
        slots = tuple(Slot(ShareNumber(i), node_id(i % nodes)) for i in range(n))
        spares = tuple(node_id(i) for i in range(n, nodes))
        self.plan = Placement(slots, spares, -(-n // nodes))
        self.happy = min(happy, n)
        self.machine = ul.Upload(BLOB, self.plan, happy=self.happy, direct=direct)
        self.claims: dict[Slot, bool] = {}  # value: it was asked to be withdrawn
        self.sends: dict[Slot, bool] = {}
        self.reserved: set[Slot] = set()
        self.stored = {slots[i] for i in held if i < n}
        self.unwanted: set[Slot] = set()
        self.asked: Counter[Slot] = Counter()
        self.ends: list[ul.UploadAction] = []
        self.settled = False
        self.history: list[ul.UploadEvent] = []
        self.feed(ul.Begin())

    def feed(self, event: ul.UploadEvent) -> None:
        self.history.append(event)
        for action in self.machine.handle(event):
            assert not self.settled, "an action after Settled"
            match action:
                case ul.Claim(slot):
                    self.asked[slot] += 1
                    assert self.asked[slot] <= 2
                    assert slot not in self.claims
                    self.claims[slot] = False
                case ul.Send(slot, direct):
                    if direct:  # the node takes the space now
                        self.reserved.add(slot)
                    assert slot in self.reserved, "a share sent without a reservation"
                    assert slot not in self.unwanted, "a share sent that nobody wants"
                    assert slot not in self.sends
                    self.sends[slot] = False
                case ul.Release(slot):
                    self.reserved.discard(slot)
                case ul.Withdraw(slot):
                    (self.claims if slot in self.claims else self.sends)[slot] = True
                    self.unwanted.add(slot)
                case ul.Finish(nodes, open_places):
                    self.ends.append(action)
                    assert nodes == happiness(self.machine.held) >= self.happy
                    assert set(self.machine.held) <= self.stored
                    filled = len({slot.share for slot in self.machine.held})
                    assert open_places == len(self.plan.slots) - filled
                case ul.Fail(error):
                    self.ends.append(action)
                    assert error.placed < error.happy
                case ul.Settled():
                    self.settled = True
                    assert not self.claims
                    assert not self.sends
                    assert not self.reserved, "something stays reserved"

    @precondition(lambda self: self.claims)
    @rule(
        data=st.data(),
        answer=st.sampled_from(["yes", "yes", "yes", "no", "lost", "lost-yes"]),
        as_withdrawn=st.booleans(),
    )
    def answer_claim(self, data: st.DataObject, answer: str, *, as_withdrawn: bool) -> None:
        slot = data.draw(st.sampled_from(sorted(self.claims)))
        if self.claims.pop(slot) and as_withdrawn:
            self.feed(ul.ShareWithdrawn(slot))
            return
        if answer == "yes" and slot in self.stored:
            self.feed(ul.ShareHeld(slot))
        elif answer == "yes":
            self.reserved.add(slot)
            self.feed(ul.ClaimAccepted(slot))
        elif answer == "no":
            self.feed(ul.ShareRefused(slot, "full"))
        else:
            if answer == "lost-yes":
                self.reserved.add(slot)
            self.feed(ul.ShareLost(slot, "no answer"))

    @precondition(lambda self: self.sends)
    @rule(
        data=st.data(),
        answer=st.sampled_from(["yes", "yes", "yes", "no", "forgot", "lost"]),
        as_withdrawn=st.booleans(),
    )
    def answer_send(self, data: st.DataObject, answer: str, *, as_withdrawn: bool) -> None:
        slot = data.draw(st.sampled_from(sorted(self.sends)))
        if self.sends.pop(slot) and as_withdrawn:
            self.feed(ul.ShareWithdrawn(slot))
            return
        if answer == "yes":
            self.reserved.discard(slot)
            self.stored.add(slot)
            self.feed(ul.ShareHeld(slot))
        elif answer in ("no", "forgot"):
            self.reserved.discard(slot)
            self.feed(ul.ShareRefused(slot, "no", forgotten=answer == "forgot"))
        else:
            self.feed(ul.ShareLost(slot, "no answer"))

    @precondition(lambda self: not self.settled)
    @rule()
    def late(self) -> None:
        self.feed(ul.Late())

    @rule(data=st.data())
    def duplicate(self, data: st.DataObject) -> None:
        """An old answer again, unless its slot waits for a new one (lanes never mix those up)."""
        event = data.draw(st.sampled_from(self.history))
        slot = getattr(event, "slot", None)
        if slot is not None and slot not in self.claims and slot not in self.sends:
            self.feed(event)

    @precondition(lambda self: len(self.history) > 8)
    @rule()
    def give_up(self) -> None:
        self.feed(ul.GiveUp())

    @invariant()
    def ends_once(self) -> None:
        assert len(getattr(self, "ends", [])) <= 1

    def teardown(self) -> None:
        """Whatever is still under way gets lost: the machine must come to its end by itself."""
        for _ in range(1000):
            if not (self.claims or self.sends):
                break
            slot = next(iter(self.claims or self.sends))
            self.claims.pop(slot, None)
            self.sends.pop(slot, None)
            self.feed(ul.ShareLost(slot, "teardown"))
        assert self.settled


class DownloadModel(RuleBasedStateMachine):
    """Nodes hold shares, some false; any request may get lost, and then the node counts as lost."""

    @initialize(
        k=st.integers(1, 4),
        spare=st.integers(0, 3),
        holdings=st.lists(st.sets(st.integers(0, 6), min_size=1), min_size=1, max_size=7),
        liars=st.sets(st.integers(0, 6)),
        copies=st.integers(1, 2),
    )
    def begin(self, k: int, spare: int, holdings: list[set[int]], liars: set[int], copies: int) -> None:
        n = k + spare
        self.k = k
        self.holds = {
            node_id(i): frozenset(ShareNumber(share) for share in shares if share < n)
            for i, shares in enumerate(holdings)
        }
        self.liars = {node_id(i) for i in liars}
        nodes = list(self.holds)
        expected = [
            Slot(ShareNumber(i), nodes[(i + c) % len(nodes)]) for c in range(copies) for i in range(n)
        ]
        self.machine = dl.Download(BLOB, k, expected, nodes)
        self.fetches: dict[Slot, bool] = {}
        self.looks: set[NodeId] = set()
        self.shunned: set[NodeId] = set()
        self.check: tuple[Slot, ...] = ()
        self.good: set[Slot] = set()
        self.lost: set[NodeId] = set()
        self.asked: Counter[object] = Counter()
        self.ends: list[dl.DownloadAction] = []
        self.settled = False
        self.given_up = False
        self.history: list[dl.DownloadEvent] = []
        self.feed(dl.Begin())

    def feed(self, event: dl.DownloadEvent) -> None:
        self.history.append(event)
        for action in self.machine.handle(event):
            assert not self.settled, "an action after Settled"
            match action:
                case dl.Fetch(slot):
                    assert slot.node not in self.shunned, "a node that lied or was lost is asked again"
                    self.asked[slot] += 1
                    self.fetches[slot] = False
                case dl.Locate(node):
                    self.asked[node] += 1
                    self.looks.add(node)
                case dl.Check(slots, good):
                    assert not self.check
                    assert set(good) <= self.good
                    self.check = slots
                case dl.Blame(slot, _):
                    assert slot.node in self.liars, "an honest node is blamed"
                    self.shunned.add(slot.node)
                case dl.Withdraw(slot):
                    self.fetches[slot] = True
                case dl.Finish(slots):
                    self.ends.append(action)
                    assert len({slot.share for slot in slots}) == len(slots) == self.k
                    assert set(slots) <= self.good
                case dl.Fail(error):
                    self.ends.append(action)
                    reachable = {
                        share
                        for node, shares in self.holds.items()
                        if node not in self.liars and node not in self.lost
                        for share in shares
                    }
                    assert error.found <= len(reachable | {slot.share for slot in self.good})
                    assert len(reachable) < self.k, "failed although k honest shares can be had"
                case dl.Settled():
                    self.settled = True
                    assert not self.fetches
                    assert not self.check
        assert all(count == 1 for count in self.asked.values()), "asked twice"

    def answer(self, slot: Slot, *, lose: bool) -> None:
        withdrawn = self.fetches.pop(slot)
        if lose and withdrawn:
            self.feed(dl.Withdrawn(slot))
        elif lose:
            self.lost.add(slot.node)
            self.shunned.add(slot.node)
            self.feed(dl.Lost(slot))
        elif slot.share in self.holds[slot.node]:
            self.feed(dl.Received(slot))
        else:
            self.feed(dl.Missing(slot))

    @precondition(lambda self: self.fetches)
    @rule(data=st.data(), lose=st.integers(0, 5))
    def answer_fetch(self, data: st.DataObject, lose: int) -> None:
        self.answer(data.draw(st.sampled_from(sorted(self.fetches))), lose=lose == 0)

    @precondition(lambda self: self.looks)
    @rule(data=st.data(), lose=st.integers(0, 5))
    def answer_look(self, data: st.DataObject, lose: int) -> None:
        node = data.draw(st.sampled_from(sorted(self.looks)))
        self.looks.discard(node)
        if lose == 0:
            self.lost.add(node)
            self.feed(dl.Located(node, frozenset()))
        else:
            self.feed(dl.Located(node, self.holds[node]))

    @precondition(lambda self: self.check)
    @rule()
    def finish_check(self) -> None:
        slots, self.check = self.check, ()
        bad = tuple((slot, "false") for slot in slots if slot.node in self.liars)
        self.good.update(slot for slot in slots if slot.node not in self.liars)
        self.feed(dl.Checked(bad))

    @precondition(lambda self: not self.settled)
    @rule()
    def late(self) -> None:
        self.feed(dl.Late())

    @rule(data=st.data())
    def duplicate(self, data: st.DataObject) -> None:
        event = data.draw(st.sampled_from(self.history))
        slot = getattr(event, "slot", None)
        if slot is not None and slot not in self.fetches:
            self.feed(event)

    @precondition(lambda self: len(self.history) > 12)
    @rule()
    def give_up(self) -> None:
        self.given_up = True
        self.feed(dl.GiveUp())

    @invariant()
    def ends_once(self) -> None:
        assert len(getattr(self, "ends", [])) <= 1

    def teardown(self) -> None:
        for _ in range(1000):
            if self.fetches:
                self.answer(next(iter(self.fetches)), lose=False)
            elif self.looks:
                node = self.looks.pop()
                self.feed(dl.Located(node, self.holds[node]))
            elif self.check:
                self.finish_check()
            else:
                break
        assert self.settled
        assert self.given_up or len(self.ends) == 1


TestUpload = UploadModel.TestCase
TestUpload.settings = settings(max_examples=times(75), stateful_step_count=40)
TestDownload = DownloadModel.TestCase
TestDownload.settings = settings(max_examples=times(75), stateful_step_count=40)

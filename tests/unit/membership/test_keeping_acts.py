"""Reports, rules, holds and prunes: who may write them, and when."""

from __future__ import annotations

import dataclasses

import pytest
from tests.unit.membership.support import SECOND_NS, Volume

from muniment.core.membership import Held, Membership, Rule
from muniment.errors import ActRefused, MunimentError, NotMember, RoleForbids
from muniment.spec.act import FOR_EVER_S, Act, Hold, Prune, Report, Retain, Role

HOUR_NS = 3600 * SECOND_NS


def refuse(volume: Volume, error: type[MunimentError], author: str, act: Act) -> None:
    before = volume.state.size
    with pytest.raises(error):
        volume.submit(author, act)
    assert volume.state.size == before


@pytest.fixture
def volume() -> Volume:
    volume = Volume()
    volume.add("otto", role=Role.AUDITOR)
    volume.add("ben", role=Role.WRITER)
    volume.add("wilma", role=Role.WITNESS)
    return volume


def replayed(volume: Volume) -> Membership:
    state = Membership()
    for at, signed in enumerate(volume.log):
        state.admit(signed, at)
    return state


def test_auditors_report_and_write_nothing_else(volume: Volume) -> None:
    volume.submit("otto", Report(urgent=False))
    for act in (Retain(1, 0), Hold(1, on=True), Prune(1, 0, 1), volume.rotate(), volume.kick("ben")):
        refuse(volume, RoleForbids, "otto", act)
    with pytest.raises(RoleForbids):
        volume.write("otto")
    refuse(volume, RoleForbids, "wilma", Report(urgent=False))
    refuse(volume, NotMember, "zoe", Report(urgent=False))
    for author in ("ben", "anna"):
        volume.submit(author, Report(urgent=False))


def test_a_member_reports_once_an_hour_and_a_loss_once_besides(volume: Volume) -> None:
    volume.submit("otto", Report(urgent=False))
    refuse(volume, ActRefused, "otto", Report(urgent=False))
    volume.submit("otto", Report(urgent=True))
    refuse(volume, ActRefused, "otto", Report(urgent=True))
    volume.submit("anna", Report(urgent=False))
    volume.now_ns += HOUR_NS - 1
    refuse(volume, ActRefused, "otto", Report(urgent=False))
    volume.now_ns += 1
    volume.submit("otto", Report(urgent=False))
    told = volume.state.reports()
    assert [(one.author, one.urgent) for one in told] == [
        (volume.id("otto"), False),
        (volume.id("anna"), False),
        (volume.id("otto"), True),
    ]
    assert told[0].time_ns == volume.now_ns
    assert told == replayed(volume).reports()


def test_the_hour_is_counted_by_the_time_of_the_log(volume: Volume) -> None:
    volume.submit("otto", Report(urgent=False))
    volume.now_ns += HOUR_NS
    volume.write("ben")
    volume.submit("otto", Report(urgent=False), time_ns=volume.now_ns - 100 * SECOND_NS)
    assert volume.state.reports()[0].time_ns == volume.now_ns


@pytest.mark.parametrize("act", [Retain(2, 60), Hold(2, on=True)])
def test_only_owners_say_what_is_kept(volume: Volume, act: Act) -> None:
    for author in ("otto", "ben", "wilma"):
        refuse(volume, RoleForbids, author, act)
    volume.submit("anna", act)
    refuse(volume, ActRefused, "anna", act)


def test_rules_and_holds_are_those_said_last(volume: Volume) -> None:
    refuse(volume, ActRefused, "anna", Retain(2, None))
    refuse(volume, ActRefused, "anna", Hold(2, on=False))
    volume.submit("anna", Retain(2, 60))
    volume.submit("anna", Hold(3, on=True))
    first = volume.state.copy()
    at = volume.state.size
    volume.submit("anna", Retain(2, FOR_EVER_S))
    assert dict(volume.state.rules) == {2: Rule(at, FOR_EVER_S)}
    volume.submit("anna", Retain(2, None))
    volume.submit("anna", Hold(3, on=False))
    assert not volume.state.rules
    assert not volume.state.holds
    assert volume.state.ruled == volume.state.size
    assert dict(first.rules) == {2: Rule(at - 2, 60)}
    assert dict(first.holds) == {3: Held(at - 1, volume.id("anna"))}
    assert replayed(volume).ruled == volume.state.ruled


def test_rules_are_bounded(volume: Volume, monkeypatch: pytest.MonkeyPatch) -> None:
    # Patched: 4096 signatures take seconds.
    monkeypatch.setattr("muniment.core.membership.RULES_MAX", 2)
    for inode in (1, 2):
        volume.submit("anna", Retain(inode, 60))
        volume.submit("anna", Hold(inode, on=True))
    refuse(volume, ActRefused, "anna", Retain(3, 60))
    refuse(volume, ActRefused, "anna", Hold(3, on=True))
    volume.submit("anna", Retain(2, 0))
    volume.submit("anna", Hold(2, on=False))
    volume.submit("anna", Hold(3, on=True))


def test_a_prune_is_made_of_the_rules_in_force(volume: Volume) -> None:
    state = volume.state
    prune = Prune(1, 0, 1)
    refuse(volume, ActRefused, "anna", prune)  # no rule
    volume.submit("anna", Retain(2, FOR_EVER_S))
    refuse(volume, ActRefused, "anna", dataclasses.replace(prune, size=state.size))
    volume.submit("anna", Retain(3, 0))
    old = state.size
    refuse(volume, ActRefused, "anna", dataclasses.replace(prune, size=old - 1))
    refuse(volume, ActRefused, "anna", dataclasses.replace(prune, size=old + 1))
    refuse(volume, ActRefused, "anna", Prune(old, state.time_ns + 1, 1))
    for author in ("otto", "ben"):
        refuse(volume, RoleForbids, author, Prune(old, 0, 1))
    volume.write("ben")
    volume.submit("anna", Prune(old, state.time_ns, 1))
    volume.submit("anna", Hold(3, on=True))
    refuse(volume, ActRefused, "anna", Prune(old, state.time_ns, 1))
    volume.submit("anna", Prune(state.size, state.time_ns, 7))
    assert [one.act.count for one in state.prunes] == [1, 7]
    assert state.prunes == replayed(volume).prunes

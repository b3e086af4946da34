"""Every error leaf crosses the wire: mapped to a status, and read back with its fields."""

from __future__ import annotations

import typing
from dataclasses import fields

import msgspec
import pytest

from muniment import errors
from muniment.errors import LocalError, MunimentError, ProtocolViolation
from muniment.gateways.cli.exit_codes import exit_code
from muniment.ids import NodeId
from muniment.net.problem import PEER_LEAVES, STATUS, error_of, problem_of, withheld
from muniment.spec.wire import Problem

NODE = NodeId(bytes(32))


def leaves(family: type[MunimentError] = MunimentError) -> list[type[MunimentError]]:
    found = []
    for child in family.__subclasses__():
        found += leaves(child) if child.__subclasses__() else [child]
    return [leaf for leaf in found if leaf.__module__ == errors.__name__]


def example(leaf: type[MunimentError], word: str = "word") -> MunimentError:
    kinds = typing.get_type_hints(leaf)
    values = {bytes: bytes(32), int: 7, float: 1.5, str: word, tuple[str, ...]: ("one", "two")}
    return leaf(**{field.name: values[kinds[field.name]] for field in fields(leaf)})


@pytest.mark.parametrize("leaf", leaves(), ids=lambda leaf: leaf.__name__)
def test_every_leaf_has_a_status_an_exit_code_and_words(leaf: type[MunimentError]) -> None:
    error = example(leaf)
    assert 400 <= STATUS[leaf] < 600
    assert exit_code(error) not in (0, 1)
    assert str(error)
    assert leaf.hint
    assert leaf.code


def test_no_two_leaves_share_a_code() -> None:
    codes = [leaf.code for leaf in leaves()]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("leaf", leaves(), ids=lambda leaf: leaf.__name__)
def test_a_leaf_survives_the_wire_if_a_peer_may_tell_of_it(leaf: type[MunimentError]) -> None:
    sent = example(leaf)
    got = error_of(problem_of(sent), NODE)
    if leaf in PEER_LEAVES:
        assert type(got) is leaf
        assert got.facts().keys() == sent.facts().keys()
        assert str(got)
    else:  # the peer's bug is not ours, and it cannot know what is wrong here
        assert isinstance(got, ProtocolViolation)
        assert leaf.code in str(got)


@pytest.mark.parametrize("leaf", leaves(), ids=lambda leaf: leaf.__name__)
def test_nothing_is_told_of_the_machine_an_error_arose_on(leaf: type[MunimentError]) -> None:
    secret = "/srv/disk7/node"
    error = example(leaf, word=secret)
    if issubclass(leaf, LocalError | errors.InternalError | errors.RosterEmpty | errors.PassphraseWrong):
        assert secret not in msgspec.json.encode(problem_of(error)).decode()
        assert withheld(error) == (str(error) if secret in str(error) else "")
    else:
        assert withheld(error) == ""


def test_what_tells_nothing_local_is_not_withheld() -> None:
    assert withheld(errors.DiskFull(where="its store")) == ""


def test_a_peer_cannot_blame_another_node() -> None:
    problem = Problem("deadline-exceeded", "?", facts={"node": "other", "call": "get", "deadline_s": 1})
    assert error_of(problem, NODE).facts()["node"] == "a" * 12


def test_a_peers_words_are_cut() -> None:
    long = "x" * 60_000
    for problem in (Problem(long, long), Problem("overloaded", long, facts={"limit": long})):
        assert len(str(error_of(problem, NODE))) < 500


@pytest.mark.parametrize(
    "problem",
    [
        Problem("no-such-code", "?"),
        Problem("share-unknown", "?"),
        Problem("share-unknown", "?", facts={"blob": "x", "share": "seven"}),
        Problem("deadline-exceeded", "?", facts={"node": "", "call": "x", "deadline_s": 10**400}),
        Problem("capacity-full", "?", facts={"wanted_bytes": 10**400, "free_bytes": 1}),
    ],
)
def test_a_problem_that_does_not_fit_is_the_peers_fault(problem: Problem) -> None:
    assert isinstance(error_of(problem, NODE), ProtocolViolation)

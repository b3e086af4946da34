"""Every error leaf crosses the wire: mapped to a status, and read back with its fields."""

from __future__ import annotations

import typing
from dataclasses import fields

import pytest

from muniment import errors
from muniment.errors import MunimentError, ProtocolViolation
from muniment.gateways.cli.exit_codes import exit_code
from muniment.ids import NodeId
from muniment.net.problem import STATUS, error_of, problem_of
from muniment.spec.wire import Problem

NODE = NodeId(bytes(32))


def leaves(family: type[MunimentError] = MunimentError) -> list[type[MunimentError]]:
    found = []
    for child in family.__subclasses__():
        found += leaves(child) if child.__subclasses__() else [child]
    return [leaf for leaf in found if leaf.__module__ == errors.__name__]


def example(leaf: type[MunimentError]) -> MunimentError:
    kinds = typing.get_type_hints(leaf)
    values = {bytes: bytes(32), int: 7, float: 1.5, str: "word", tuple[str, ...]: ("one", "two")}
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
def test_every_leaf_survives_the_wire(leaf: type[MunimentError]) -> None:
    sent = example(leaf)
    got = error_of(problem_of(sent), NODE)
    if leaf is errors.InternalError:
        assert isinstance(got, ProtocolViolation)  # the peer's bug is not ours
    else:
        assert type(got) is leaf
        assert got.facts().keys() == sent.facts().keys()
        assert str(got)


@pytest.mark.parametrize(
    "problem",
    [
        Problem("no-such-code", "?"),
        Problem("share-unknown", "?"),
        Problem("share-unknown", "?", facts={"blob": "x", "share": "seven"}),
    ],
)
def test_a_problem_that_does_not_fit_is_the_peers_fault(problem: Problem) -> None:
    assert isinstance(error_of(problem, NODE), ProtocolViolation)

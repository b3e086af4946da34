"""The log's formats: published examples of public transparency logs, and our own that never change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from muniment.merkle.log_tree import (
    Frontier,
    check_consistency,
    check_inclusion,
    consistency_path,
    inclusion_path,
    leaf_hash,
)

V1: dict[str, Any] = json.loads(Path(__file__).with_name("log_v1.json").read_text())
CT = V1["certificate transparency"]
SIGSUM = V1["sigsum"]


def unhex(texts: list[str]) -> tuple[bytes, ...]:
    return tuple(bytes.fromhex(text) for text in texts)


ROOTS = unhex(CT["roots"])
LEAVES = [leaf_hash(entry) for entry in unhex(CT["entries"])]


def node(level: int, index: int) -> bytes:
    _, completed = Frontier().extend(LEAVES)
    return next(found.hash for found in completed if (found.level, found.index) == (level, index))


def test_the_roots_are_those_of_certificate_transparency() -> None:
    frontier = Frontier()
    for leaf, root in zip(LEAVES, ROOTS, strict=False):
        assert frontier.root() == root
        frontier, _ = frontier.append(leaf)
    assert frontier.root() == ROOTS[-1]


@pytest.mark.parametrize("vector", CT["inclusion"], ids=lambda v: f"{v['index']} of {v['size']}")
def test_inclusion_proofs_are_those_of_certificate_transparency(vector: dict[str, Any]) -> None:
    index, size, path = vector["index"], vector["size"], unhex(vector["path"])
    assert inclusion_path(index, size, node) == path
    check_inclusion(LEAVES[index], index, size, path, ROOTS[size])


@pytest.mark.parametrize("vector", CT["consistency"], ids=lambda v: f"{v['old']} to {v['new']}")
def test_consistency_proofs_are_those_of_certificate_transparency(vector: dict[str, Any]) -> None:
    old, new, path = vector["old"], vector["new"], unhex(vector["path"])
    assert consistency_path(old, new, node) == path
    check_consistency(old, ROOTS[old], new, ROOTS[new], path)

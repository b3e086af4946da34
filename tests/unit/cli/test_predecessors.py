"""docs/predecessors.md names tests that exist, and every row that this version has to answer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
PAGE: Final = (ROOT / "docs" / "predecessors.md").read_text()
ROWS: Final = {
    "P": (1, 2, 3, 8, 9, *range(12, 20), 23, 24, *range(25, 40)),
    "V": (*range(1, 19), 24, *range(29, 39)),
    "T": (11, 22, *range(27, 41), 43, 44),
    "L": (2, 3, 4, 5, 11, 12),
    "Y": (12, *range(15, 20), 24),
}


def test_every_row_is_answered_once() -> None:
    found = re.findall(r"^\| ([A-Z]\d+) \|", PAGE, re.MULTILINE)
    assert found == [f"{letter}{number}" for letter, numbers in ROWS.items() for number in numbers]


def test_the_tests_it_names_exist() -> None:
    named = re.findall(r"`((?:src|tests)/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 100
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not re.search(rf"def {test}\(", (ROOT / file).read_text())
    ]
    assert missing == []


def test_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([\w/.]+)\)", PAGE):
        assert (ROOT / "docs" / link).is_file()

"""docs/predecessors.md names tests that exist, and every row that volumes have to answer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
PAGE: Final = (ROOT / "docs" / "predecessors.md").read_text()
ROWS: Final = {
    "P": (2, 8, 9, 12, 13, 14, 17, 18, 19, 23, *range(25, 36), 39),
    "V": (*range(1, 19), 29, 30, 36, 37),
    "T": (11, 22, 31, 38, 39, 40),
    "L": (2, 3, 4, 5, 11, 12),
    "Y": (12,),
}


def test_every_row_is_answered_once() -> None:
    found = re.findall(r"^\| ([A-Z]\d+) \|", PAGE, re.MULTILINE)
    assert found == [f"{letter}{number}" for letter, numbers in ROWS.items() for number in numbers]


def test_the_tests_it_names_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 60
    missing = [
        f"{file}::{test}"
        for file, test in named
        if not re.search(rf"def {test}\(", (ROOT / file).read_text())
    ]
    assert missing == []


def test_its_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([\w/.]+)\)", PAGE):
        assert (ROOT / "docs" / link).is_file()

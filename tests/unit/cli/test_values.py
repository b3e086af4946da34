"""Sizes, ranges and capabilities as people type them."""

from __future__ import annotations

import click
import pytest

from muniment.gateways.cli.show import bytes_text, count_text, rate_text, table
from muniment.gateways.cli.values import ByteRange, Size, parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0), ("17", 17), ("17B", 17), ("10GiB", 10 * 2**30), ("500MB", 500 * 10**6), ("1.5g", 3 * 2**29),
        ("64KiB", 65536), ("64k", 65536), ("2 TB", 2 * 10**12), (" 1kb ", 1000), ("0.5MiB", 2**19),
        ("9007199254740993", 9007199254740993),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert Size().convert(text, None, None) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "-1", "1e9", "4 parsecs", "1.2.3", "٣", "1" * 40, "0x10", "1,5GB"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)
    with pytest.raises(click.BadParameter):
        Size().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "span"),
    [("0-10", (0, 10)), ("5-", (5, None)), ("1MiB-2MiB", (2**20, 2**21)), ("1kB-1500", (1000, 1500))],
)
def test_ranges(text: str, span: tuple[int, int | None]) -> None:
    assert ByteRange().convert(text, None, None) == span


@pytest.mark.parametrize("text", ["", "5", "-", "-5", "a-b", "1--2"])
def test_what_is_no_range(text: str) -> None:
    with pytest.raises(click.BadParameter, match="START-STOP"):
        ByteRange().convert(text, None, None)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),
        (1.5e9, "1.5 GB"),
        (2e15, "2000.0 TB"),
    ],
)
def test_bytes_for_people(count: float, text: str) -> None:
    assert bytes_text(count) == text


def test_rates_for_people() -> None:
    assert rate_text(3_000_000, 1.5) == "3.0 MB in 1.5 s (2.0 MB/s)"
    assert rate_text(5, 0.001) == "5 B"
    assert [count_text(n, "share") for n in (0, 1, 2)] == ["0 shares", "1 share", "2 shares"]


def test_a_table_aligns_and_never_cuts() -> None:
    rows = [("name", "size"), ("x" * 200, "7")]
    first, second = table(rows, right=[1]).splitlines()
    assert first == "name" + " " * 196 + "  size"
    assert second == "x" * 200 + "     7"

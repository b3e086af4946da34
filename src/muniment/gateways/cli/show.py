"""How numbers, tables and progress look to a person."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from muniment.gateways.cli.context import Context

if TYPE_CHECKING:
    from muniment.engine.results import Progress, ProgressCallback

SHORT_CHARS = 12
"""Of an identifier, where people only compare: as error messages show them."""


def bytes_text(count: float) -> str:
    """A size in decimal units, as disks and networks are sold: `1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 999.95:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def rate_text(count: float, seconds: float) -> str:
    """Bytes and how fast: `1.5 GB in 6.2 s (240.0 MB/s)`; no speed where it would say nothing."""
    if seconds < 0.05:
        return bytes_text(count)
    return f"{bytes_text(count)} in {seconds:.1f} s ({bytes_text(count / seconds)}/s)"


def count_text(count: int, one: str, many: str = "") -> str:
    """`1 node`, `2 nodes`."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def keep_text(keep_s: int | None) -> str:
    """How long versions are kept: `for ever`, `0 seconds`, `3 years`, `36 hours`."""
    if keep_s is None:
        return "as what is above says"
    if keep_s < 0:
        return "for ever"
    for unit_s, unit in ((365 * 86400, "year"), (86400, "day"), (3600, "hour"), (60, "minute")):
        if keep_s and keep_s % unit_s == 0:
            return count_text(keep_s // unit_s, unit)
    return count_text(keep_s, "second")


def table(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> str:
    """Columns as wide as their widest cell; those in `right` are aligned to the right.

    Never cut to the terminal's width, so that what is copied or piped is whole.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if at in right else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


@contextlib.contextmanager
def progress_bar(context: Context, title: str) -> Iterator[ProgressCallback | None]:
    """A bar with bytes, rate and remaining time on a terminal; nothing elsewhere."""
    if not context.shows_progress:
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    # Content may go to a terminal on standard output: that is not the bar's to redirect.
    with Bar(*columns, console=Console(file=sys.stderr), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task(title, total=None)

        def report(progress: Progress) -> None:
            bar.update(task, completed=progress.done_bytes, total=progress.total_bytes)

        yield report

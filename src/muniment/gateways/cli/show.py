"""How numbers and progress look to a person."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from muniment.engine.results import Progress, ProgressCallback
from muniment.gateways.cli.context import Context


def bytes_text(count: float) -> str:
    """A size in decimal units, as disks and networks are sold: `1.5 GB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def rate_text(count: float, seconds: float) -> str:
    """Bytes and how fast: `1.5 GB in 6.2 s (240.0 MB/s)`."""
    return f"{bytes_text(count)} in {seconds:.1f} s ({bytes_text(count / max(seconds, 1e-6))}/s)"


@contextlib.contextmanager
def progress_bar(context: Context, title: str) -> Iterator[ProgressCallback | None]:
    """A bar with bytes, rate and remaining time on a terminal; nothing elsewhere."""
    if not context.interactive:
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
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)

        def report(progress: Progress) -> None:
            bar.update(task, completed=progress.done_bytes, total=progress.total_bytes)

        yield report

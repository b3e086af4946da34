"""Who keeps a volume: `muni keeper log`, what `muni volume info` tells of it, and warnings."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from muniment.engine.keeping.reports import KeptReport, newest_reports, reports, warnings
from muniment.gateways.cli.authors import author_name
from muniment.gateways.cli.context import Context, json_option, limit_option, pass_context
from muniment.gateways.cli.passphrases import passphrase_of
from muniment.gateways.cli.show import bytes_text, count_text, table
from muniment.gateways.cli.when import moment_text
from muniment.ids import id_text

if TYPE_CHECKING:
    from muniment.engine.opened import OpenVolume


@click.command("log")
@click.argument("volume", metavar="VOL")
@limit_option
@json_option
@pass_context
def keeper_log(context: Context, volume: str, limit: int) -> None:
    """Show what keepers have reported on a volume's log: who kept it, when, and what was found.

    The newest come first.  The verify right is enough.
    """

    async def work() -> tuple[dict[str, Any], str]:
        async with context.composition.open_volume(context.home, volume, passphrase_of(context)) as opened:
            one = opened.volume
            found = await one.run(lambda: list(islice(reports(one.follower), limit)))
            rows = [
                (
                    str(report.index),
                    moment_text(report.time_ns),
                    author_name(opened, report.author),
                    _said(report),
                )
                for report in found
            ]
            return {"reports": [_document(opened, report) for report in found]}, table(rows) if rows else ""

    document, text = context.run(work)
    context.emit(document, text or None)
    if not text:
        context.remark(f"nobody has reported; 'muni keeper run {volume}' keeps it and reports")


def keeping_document(opened: OpenVolume) -> dict[str, Any]:
    """Of the last report of each keeper, and what is to be warned of; in the volume's thread."""
    found = newest_reports(opened.volume.follower)
    return {
        "reports": [_document(opened, report) for report in found],
        "warnings": warnings(opened.volume),
    }


def keeping_rows(document: dict[str, Any]) -> list[tuple[str, str]]:
    """The same for people."""
    rows: list[tuple[str, str]] = []
    for one in document["reports"]:
        said = f"by {one['author']}, {moment_text(int(one['time_s'] * 1e9))}: {one['said']}"
        rows.append(("kept" if not rows else "", said))
    return rows or [("kept", "no keeper has reported")]


async def warn_of_keeping(context: Context, opened: OpenVolume) -> None:
    """Say what somebody who stores something here should know."""
    for warning in await opened.volume.run(lambda: warnings(opened.volume)):
        context.warn(f"{opened.known.name}: {warning}")


def _document(opened: OpenVolume, report: KeptReport) -> dict[str, Any]:
    record = report.record
    return {
        "entry": report.index,
        "time_s": report.time_ns / 1e9,
        "author": author_name(opened, report.author),
        "said": _said(report),
        "record": record
        and {
            "since_s": record.since_s,
            "log_size": record.log_size,
            "blobs": record.blobs,
            "whole": record.whole,
            "due": record.due,
            "unreadable": record.unreadable,
            "lost": [id_text(blob) for blob in record.lost],
            "proofs": record.proofs,
            "leased": record.leased,
            "unleased": record.unpaid,
            "leases_until_s": record.leases_until_s,
            "rebuilt_shares": record.rebuilt,
            "rebuilt_bytes": record.rebuilt_bytes,
            "moved_shares": record.moved,
            "collected": record.collected,
            "archived_entries": record.archived,
        },
    }


def _said(report: KeptReport) -> str:
    record = report.record
    if record is None:
        return "a report that cannot be read"
    parts = [
        f"{count_text(record.blobs, 'blob')}, {record.whole} whole, {count_text(record.proofs, 'proof')}"
    ]
    if record.due:
        parts.append(f"{record.due} due for repair")
    if record.lost:
        parts.append(f"{len(record.lost)} LOST")
    elif record.unreadable:
        parts.append(f"{record.unreadable} not readable then")
    if record.rebuilt:
        parts.append(f"{count_text(record.rebuilt, 'share')} rebuilt ({bytes_text(record.rebuilt_bytes)})")
    if record.moved:
        parts.append(f"{record.moved} moved")
    if record.collected:
        parts.append(f"{record.collected} given up")
    if record.leases_until_s:
        parts.append(f"leases until {moment_text(record.leases_until_s * 10**9)[:10]}")
    return ", ".join(parts)

"""`muni check`: of a capability, or of the files of a volume."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, Final

import click

from muniment.engine.health import Health
from muniment.gateways.cli import exit_codes
from muniment.gateways.cli.context import Context, json_option, pass_context
from muniment.gateways.cli.show import bytes_text, count_text, table
from muniment.gateways.cli.values import CAP_HELP, Keep, read_cap
from muniment.gateways.cli.vol_paths import VolPath, parse_vol_path, shown
from muniment.gateways.cli.when import moment_text
from muniment.ids import id_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from muniment.core.keeping.survival import Hazard
    from muniment.engine.volume_health import FileSafety
    from muniment.ids import BlobId
    from muniment.ports import Sighting

_TOLD_MAX: Final = 256
_SHOWN_MAX: Final = 20
_ZONES_LAST: Final = 10
"""How many times longer a zone is thought to last than a node."""

_YEAR_S: Final = 365 * 86400
_DAY_S: Final = 86400


@click.command(epilog=CAP_HELP + "  A verify capability is enough.")
@click.argument("what", metavar="CAP|VOL[:/PATH]")
@click.option("--verify", is_flag=True, help="Read and verify every share instead of believing the nodes.")
@click.option(
    "--mttf",
    type=Keep(),
    metavar="TIME",
    default=_YEAR_S,
    help="In a volume: after so long a node is lost for good on average; zones last ten times as long. "
    " [default: 1y]",
)
@click.option(
    "--repair-time",
    type=Keep(),
    metavar="TIME",
    default=_DAY_S,
    help="In a volume: from the loss of a share until it is rebuilt.  [default: 1d]",
)
@json_option
@pass_context
def check(context: Context, what: str, verify: bool, mttf: int, repair_time: int) -> int:
    """Ask the nodes how safe a file or folder is.

    Of a capability it says for each node how many shares it holds, and which blob is worst off.  In a volume
    it tells of each file, the worst ones first, what is there of it, when it was last proven, and how likely
    it is lost before anybody repairs it; of a single file also which nodes hold it.  The exit code tells: 0
    every share is in place, 10 readable but something is missing, 11 not readable at present.
    """
    if mttf <= 0 or repair_time <= 0:
        raise click.UsageError("give times such as 1y and 1d")
    path = _in_volume(context, what)
    if path is not None:
        return _check_volume(context, path, verify, mttf, repair_time)
    cap = read_cap(what)

    async def work() -> Health:
        async with context.open_grid() as grid:
            return await grid.check(cap, verify=verify)

    health = context.run(work)
    context.emit(health.to_json(), health.text())
    return _code(readable=health.recoverable, whole=health.healthy)


def _in_volume(context: Context, what: str) -> VolPath | None:
    """A path in a volume, or all of one that is known by this name; None: it is to be a capability."""
    path = parse_vol_path(what)
    if path is None and what.partition(":")[0] != "mun" and not what.startswith(("-", "@")):
        known = any(what == one.name for one in context.composition.volumes(context.home))
        path = parse_vol_path(f"{what}:") if known else None
    return path


def _code(*, readable: bool, whole: bool) -> int:
    if not readable:
        return exit_codes.UNRECOVERABLE
    return exit_codes.OK if whole else exit_codes.DEGRADED


# --- volumes


def _check_volume(context: Context, path: VolPath, verify: bool, mttf_s: int, repair_s: int) -> int:
    from muniment.core.keeping.survival import Hazard
    from muniment.engine.volume_health import check_files, files_at
    from muniment.gateways.cli.looking import looking_at

    hazard = Hazard(float(mttf_s), _ZONES_LAST * float(mttf_s), float(repair_s))

    async def work() -> list[FileSafety]:
        async with looking_at(context, path.volume) as (opened, names), context.open_grid() as grid:

            async def seen(blobs: Sequence[BlobId]) -> Sequence[Sequence[Sighting]]:
                return await context.composition.sightings(opened.known, blobs)

            files = await names.look(lambda state: files_at(state, path.path))
            return await check_files(files, grid, hazard, seen, verify=verify)

    found = context.run(work)
    readable, whole = all(one.readable for one in found), all(one.whole for one in found)
    document = {
        "verified": verify,
        "healthy": readable and whole,
        "recoverable": readable,
        "files": len(found),
        "degraded": sum(not one.whole for one in found),
        "lost": sum(not one.readable for one in found),
        "mttf_s": mttf_s,
        "zone_mttf_s": _ZONES_LAST * mttf_s,
        "repair_s": repair_s,
        "details": [_document(one) for one in found[:_TOLD_MAX]],
        "details_complete": len(found) <= _TOLD_MAX,
    }
    context.emit(document, _text(path, found, readable=readable, whole=whole, hazard=hazard))
    return _code(readable=readable, whole=whole)


def _document(one: FileSafety) -> dict[str, Any]:
    worst = one.worst
    return {
        "path": "/" + os.fsdecode(one.path),
        "size_bytes": one.size,
        "blobs": one.blobs,
        "k": None if worst is None else worst.k,
        "n": None if worst is None else worst.n,
        "live_shares": None if worst is None else worst.live,
        "nodes": None if worst is None else len(worst.nodes),
        "held_by": [id_text(node) for node in one.nodes],
        "zones": one.zones,
        "last_proven_s": one.proven_s or None,
        "loss_probability": one.loss,
        "recoverable": one.readable,
    }


def _text(path: VolPath, found: list[FileSafety], *, readable: bool, whole: bool, hazard: Hazard) -> str:
    verdict = "healthy" if readable and whole else "readable, but degraded" if readable else "NOT READABLE"
    lines = [f"{verdict}: {count_text(len(found), 'file')} at {path}"]
    rows = [("file", "size", "k", "n", "live", "zones", "last proven", "loss")]
    for one in found[:_SHOWN_MAX]:
        worst = one.worst
        if worst is None:
            rows.append(
                (shown(path.volume, one.path), bytes_text(one.size), "", "", "", "", "in the log", "")
            )
            continue
        numbers = str(worst.k), str(worst.n), str(worst.live), str(one.zones)
        proven = _ago(one.proven_s) if one.proven_s else "never here"
        rows.append((shown(path.volume, one.path), bytes_text(one.size), *numbers, proven, _chance(one.loss)))
    lines.append(table(rows, right=(1, 2, 3, 4, 5)))
    if len(found) == 1 and found[0].nodes:
        lines += ["held by:", *(f"  {id_text(node)}" for node in found[0].nodes)]
    if len(found) > _SHOWN_MAX:
        lines.append(f"and {count_text(len(found) - _SHOWN_MAX, 'file')} that are no worse")
    days, repair_h = hazard.node_mttf_s / _DAY_S, hazard.repair_s / 3600
    lines.append(
        f"loss: at most so likely within a repair of {repair_h:g} h, if nodes last {days:g} days on average "
        f"and zones {_ZONES_LAST} times as long, independently"
    )
    return "\n".join(lines)


def _ago(moment_s: float) -> str:
    passed_s = time.time() - moment_s
    if passed_s < 0:
        return moment_text(int(moment_s * 1e9))
    return f"{passed_s / 60:.0f} min ago" if passed_s < 3600 else f"{passed_s / 3600:.0f} h ago"


def _chance(loss: float) -> str:
    return "certain" if loss >= 1 else f"{loss:.1e}"

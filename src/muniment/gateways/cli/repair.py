"""`muni repair`."""

from __future__ import annotations

import math
import os

import click

from muniment.core.keeping.repair import Condition
from muniment.engine.keeping.repair import RepairResult
from muniment.gateways.cli import exit_codes
from muniment.gateways.cli.context import Context, json_option, pass_context
from muniment.gateways.cli.show import bytes_text, count_text
from muniment.gateways.cli.values import CAP_HELP, Size, read_cap
from muniment.ids import id_text


@click.command(epilog=CAP_HELP + "  A verify capability is enough: what is rebuilt is never opened.")
@click.argument("capability", metavar="CAP")
@click.option("--verify", is_flag=True, help="Read every share instead of having one leaf of each proven.")
@click.option(
    "--below", type=click.IntRange(min=1), metavar="N", help="Rebuild only blobs with fewer than N shares."
)
@click.option("--move", is_flag=True, help="Also bring shares to the nodes where they belong now.")
@click.option("--rate", type=Size(), metavar="SIZE", help="Read and send at most so many bytes a second.")
@json_option
@pass_context
def repair(
    context: Context, capability: str, verify: bool, below: int | None, move: bool, rate: int | None
) -> int:
    """Rebuild what is missing of a file or folder.

    Has every node prove what it holds, rebuilds missing shares from any k, the rarest blobs first, and brings
    them to nodes that have none.  Interrupted, it can be run again: what has landed is found held.  The exit
    code tells: 0 all shares are in place, 10 readable but something is still missing, 11 not readable.
    """
    cap = read_cap(capability)

    async def work() -> RepairResult:
        async with context.open_grid() as grid:
            return await grid.repair(
                cap,
                seed=os.urandom(32),
                verify=verify,
                below=below,
                move=move,
                bytes_per_s=math.inf if rate is None else rate,
            )

    result = context.run(work)
    context.emit(result.to_json(), _text(result))
    if result.lost:
        return exit_codes.UNRECOVERABLE
    missing = result.failed or result.conditions[Condition.DEGRADED]
    return exit_codes.DEGRADED if missing else exit_codes.OK


def _text(result: RepairResult) -> str:
    whole, due = result.conditions[Condition.WHOLE], result.conditions[Condition.DUE]
    blobs, rebuilt = count_text(result.blobs, "blob"), count_text(result.rebuilt, "share")
    lines = [
        f"{blobs}: {whole} were whole, {due} due for repair, {result.lost} cannot be read",
        f"rebuilt {rebuilt} ({bytes_text(result.rebuilt_bytes)}), moved {result.moved},"
        f" read {bytes_text(result.read_bytes)}",
    ]
    lines += [f"blob {id_text(blob)[:12]} is not repaired: {reason}" for blob, reason in result.troubles[:20]]
    if result.failed > len(lines) - 2:
        lines.append(f"and {result.failed - len(lines) + 2} more")
    lines += [f"manifest {id_text(blob)[:12]} cannot be read" for blob in result.unread]
    lines += [
        f"node {id_text(node)[:12]} served {count} false shares" for node, count in result.liars.items()
    ]
    return "\n".join(lines)

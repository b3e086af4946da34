"""`muni check`."""

from __future__ import annotations

import click

from muniment.engine.health import Health
from muniment.gateways.cli import exit_codes
from muniment.gateways.cli.context import Context, json_option, pass_context
from muniment.gateways.cli.values import CAP_HELP, read_cap


@click.command(epilog=CAP_HELP + "  A verify capability is enough.")
@click.argument("capability", metavar="CAP")
@click.option("--verify", is_flag=True, help="Read and verify every share instead of believing the nodes.")
@json_option
@pass_context
def check(context: Context, capability: str, verify: bool) -> int:
    """Ask the nodes how safe a file or folder is.

    Says for each node how many shares it holds, and which blob is worst off.  The exit code tells: 0 every
    share is in place, 10 readable but something is missing, 11 not readable at present.
    """
    cap = read_cap(capability)

    async def work() -> Health:
        async with context.open_grid() as grid:
            return await grid.check(cap, verify=verify)

    health = context.run(work)
    context.emit(health.to_json(), health.text())
    if not health.recoverable:
        return exit_codes.UNRECOVERABLE
    return exit_codes.OK if health.healthy else exit_codes.DEGRADED

"""`muni node drain`: have a node give its shares away, and wait until it may be stopped."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from muniment.errors import UnavailableError
from muniment.gateways.cli.context import Context, json_option, pass_context
from muniment.gateways.cli.show import bytes_text, count_text

if TYPE_CHECKING:
    from muniment.spec.wire import NodeStatus

_LOOK_S: Final = 1.0


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--undo", is_flag=True, help="Let it take shares again.")
@click.option("--no-wait", is_flag=True, help="Only begin; a later call waits.")
@json_option
@pass_context
def drain(context: Context, folder: Path, undo: bool, no_wait: bool) -> None:
    """Have a running node give its shares away before it leaves.

    It takes no new shares, and clients and keepers learn from its record that what it has is to be moved;
    until that is done it serves, renews and gives up leases as before.  Waits until no account has a lease on
    any share of it: then the node may be stopped.  Ctrl-C ends the waiting and not the draining, which also
    outlives restarts of the node.
    """
    context.composition.set_draining(folder, draining=not undo)
    if not undo:
        context.interrupted = f"the node goes on draining; 'muni node drain {folder} --undo' ends that"
    address, status = context.run(
        lambda: _wait(context, folder, undo=undo, until_empty=not (undo or no_wait))
    )
    document = {
        "address": address,
        "draining": status.draining,
        "leased_count": status.leased_count,
        "leased_bytes": status.leased_bytes,
        "reserved_bytes": status.reserved_bytes,
    }
    if undo:
        context.emit(document, "the node takes shares again")
    elif _is_empty(status):
        context.emit(document, "nobody has a lease on a share of this node any more: it may be stopped")
    else:
        context.emit(document, f"the node is drained from now on: {_left(status)}")


async def _wait(context: Context, folder: Path, *, undo: bool, until_empty: bool) -> tuple[str, NodeStatus]:
    """Until the node knows of it, and then until it is empty; tells whenever what is left has changed."""
    told = ""
    while True:
        try:
            address, status = await context.composition.node_status(str(folder))
        except UnavailableError:
            context.composition.set_draining(folder, draining=not undo)  # refuses if the node was stopped
        else:
            if status.draining != undo:
                if not until_empty or _is_empty(status):
                    return address, status
                if (left := _left(status)) != told:
                    told = left
                    context.remark(left)
        await asyncio.sleep(_LOOK_S)


def _is_empty(status: NodeStatus) -> bool:
    return not status.leased_count and not status.reserved_bytes


def _left(status: NodeStatus) -> str:
    text = f"{count_text(status.leased_count, 'lease')} left ({bytes_text(status.leased_bytes)})"
    uploads = f", {bytes_text(status.reserved_bytes)} promised to uploads under way"
    return text + (uploads if status.reserved_bytes else "")

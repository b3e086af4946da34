"""`muni grid`: which grid this home uses, and how its nodes are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from muniment.engine.status import NodeSummary
from muniment.errors import UnavailableError
from muniment.gateways.cli.context import Context, Refusal, json_option, pass_context
from muniment.gateways.cli.show import SHORT_CHARS, bytes_text, count_text, table
from muniment.ids import id_text


@click.group()
@json_option
def grid() -> None:
    """Choose the grid you use, and see its nodes."""


@grid.command()
@click.argument("address", metavar="ADDRESS|FILE")
@json_option
@pass_context
def join(context: Context, address: str) -> None:
    """Remember where your grid is: an introducer's address, or a roster file.

    A roster file lists the addresses of nodes, one a line; it is read anew whenever it changes.
    """
    if not address.startswith("mun:") and not Path(address).is_file():
        raise Refusal(
            f"{address} is neither an introducer's address nor a roster file",
            "an address looks like mun:introducer:ID@HOST:PORT; 'muni introducer init' and 'run' print it",
        )
    joined = context.composition.join_grid(context.home, address)

    async def work() -> int:
        async with context.composition.open_grid(context.home, joined) as opened:
            return len(await opened.status())

    try:
        nodes = context.run(work)
    except UnavailableError as error:
        context.remark(f"it is remembered, but does not answer now: {error}")
        nodes = 0
    context.emit({"grid": joined, "nodes": nodes}, f"joined {joined} ({count_text(nodes, 'node')})")


@grid.command()
@json_option
@pass_context
def account(context: Context) -> None:
    """Print your account's id, which a node's operator needs to invite you."""
    identity = context.composition.account(context.home)
    context.emit({"account": identity}, identity)


@grid.command()
@json_option
@pass_context
def status(context: Context) -> None:
    """Ask every node how it is."""

    async def work() -> list[NodeSummary]:
        async with context.open_grid() as opened:
            return await opened.status()

    nodes = context.run(work)
    context.emit({"nodes": [node.to_json() for node in nodes]}, _table(nodes))


def _table(nodes: Sequence[NodeSummary]) -> str:
    rows = [["node", "zone", "state", "latency", "used", "free", "shares", "quarantined", "address"]]
    for node in nodes:
        facts = ["unreachable", *["-"] * 5]
        if node.reachable:
            sizes = [bytes_text(node.used_bytes), bytes_text(node.free_bytes)]
            counts = [str(node.share_count), str(node.quarantined_count)]
            facts = [
                "draining" if node.draining else "up",
                f"{node.latency_s * 1000:.0f} ms",
                *sizes,
                *counts,
            ]
        rows.append([id_text(node.node)[:SHORT_CHARS], node.zone or "-", *facts, ", ".join(node.addresses)])
    up = sum(node.reachable for node in nodes)
    free = bytes_text(sum(node.free_bytes for node in nodes if not node.draining))
    lines = [table(rows, right=range(3, 8)), f"{up} of {count_text(len(nodes), 'node')} up, {free} free"]
    return "\n".join(lines)

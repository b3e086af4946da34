"""`muni usage`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from muniment.gateways.cli.context import Context, json_option, pass_context
from muniment.gateways.cli.passphrases import passphrase_of
from muniment.gateways.cli.show import SHORT_CHARS, bytes_text, count_text, table
from muniment.gateways.cli.when import moment_text
from muniment.ids import id_text

if TYPE_CHECKING:
    from muniment.engine.usage import AccountUsages, Holdings

_SAYS: Final = {
    "own": "your account: what you stored, until its leases end",
    "keeper": "the volume's content, as your keeper leases it",
    "archive": "the volume's log on the grid",
}
_DAY_S: Final = 86400


@click.command()
@click.argument("volume", metavar="[VOL]", required=False)
@json_option
@pass_context
def usage(context: Context, volume: str | None) -> None:
    """Show what your account uses on each node, and until when.

    With a volume also what it uses by itself: the accounts under which your keeper holds its content and the
    archive of its log.
    """

    async def work() -> list[AccountUsages]:
        name, ask = volume and volume.removesuffix(":"), passphrase_of(context)
        return await context.composition.usage(context.home, context.grid, name, ask)

    found = context.run(work)
    context.emit({"accounts": [one.to_json() for one in found]}, "\n\n".join(_text(one) for one in found))
    silent = {usage.node for one in found for usage in one.nodes if usage.error}
    if silent:
        context.remark(f"{count_text(len(silent), 'node')} did not answer: there may be more")


def _text(found: AccountUsages) -> str:
    rows = [["node", "shares", "used", "in trash", "reserved", "quota", "first lease ends"]]
    for one in found.nodes:
        name = id_text(one.node)[:SHORT_CHARS]
        if one.error:
            rows.append([name, *["-"] * 5, "unreachable"])
            continue
        quota = "-" if one.quota_bytes < 0 else bytes_text(one.quota_bytes)
        rows.append([name, *_cells(one.holdings, quota)])
    rows.append(["all", *_cells(found.total, "")])
    return f"{id_text(found.account)}  {_SAYS[found.kind]}\n{table(rows, right=range(1, 6))}"


def _cells(holdings: Holdings, quota: str) -> Sequence[str]:
    sizes = (holdings.used_bytes, holdings.trashed_bytes, holdings.reserved_bytes)
    used, trashed, reserved = map(bytes_text, sizes)
    return str(holdings.share_count), used, trashed, reserved, quota, _end(holdings.first_expiry_s)


def _end(expiry_s: float) -> str:
    if not expiry_s:
        return "-"
    days = (expiry_s - time.time()) / _DAY_S
    return f"{moment_text(int(expiry_s * 1e9))} ({days:.0f} days)"

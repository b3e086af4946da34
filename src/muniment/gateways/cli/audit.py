"""`muni audit`: everything verified again, by a reader that shares no code with what wrote it."""

from __future__ import annotations

from typing import Final

import click

from muniment.audit.report import AuditReport, Verdict
from muniment.errors import MunimentError, PassphraseWrong, VolumeUnknown
from muniment.gateways.cli import exit_codes
from muniment.gateways.cli.context import Context, json_option, pass_context
from muniment.gateways.cli.passphrases import passphrase_of

EXIT: Final = {
    Verdict.CLEAN: exit_codes.OK,
    Verdict.DAMAGED: exit_codes.DAMAGED,
    Verdict.FORGED: exit_codes.FORGED,
}


@click.command()
@click.argument("volume", metavar="VOL")
@click.option("--deep", is_flag=True, help="Read and verify every share of every blob on its nodes.")
@click.option("--offline", is_flag=True, help="Ask nobody: audit what this machine has.")
@json_option
@pass_context
def audit(context: Context, volume: str, deep: bool, offline: bool) -> int:
    """Verify a whole volume again: log, tree, content.

    Says where it is damaged or forged: every signature, right, hash and checkpoint of the log, what it folds
    to against what is stored here, and whether the nodes hold every blob.
    """
    if deep and offline:
        raise click.UsageError("--deep asks the nodes, --offline nobody")

    async def run() -> AuditReport:
        ask, composition = passphrase_of(context), context.composition
        if not offline:
            try:
                async with composition.open_volume(context.home, volume, ask):
                    pass  # in step with its log, as far as that is honest and can be reached
                await composition.fetch_volume(context.home, volume, ask)  # and all of it
            except (VolumeUnknown, PassphraseWrong):
                raise
            except MunimentError as error:
                context.remark(f"the log was not followed first: {error}")
        return await composition.audit(
            context.home, volume, context.grid, ask, ask_nodes=not offline, deep=deep
        )

    report = context.run(run)
    context.emit(report.to_json(), report.text())
    return EXIT[report.verdict]

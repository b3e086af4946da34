"""`muni share`: a capability of what is in a volume."""

from __future__ import annotations

import os

import click

from muniment.gateways.cli import exit_codes
from muniment.gateways.cli.context import Context, json_option, pass_context
from muniment.gateways.cli.vol_paths import METAVAR, VolPath, VolPathType, files_of
from muniment.gateways.cli.when import at_option, maybe_at
from muniment.spec.cap import cap_text


@click.command()
@click.argument("path", type=VolPathType(), metavar=METAVAR)
@click.option("--verify-only", is_flag=True, help="A capability that checks and cannot read.")
@at_option
@json_option
@pass_context
def share(context: Context, path: VolPath, verify_only: bool, when: str | None) -> int:
    """Print a capability of a file or folder in a volume.

    Whoever has it can read what is there now, without being a member, and nothing else of the volume; later
    changes are not in it, and it cannot be taken back.
    """
    from muniment.core.capabilities import weaken

    async def work() -> str:
        async with files_of(context, path.volume) as (opened, files):
            cap = await files.share(path.path, at=await maybe_at(opened, when))
            return cap_text(weaken(cap) if verify_only else cap)

    text = context.run(work)
    context.emit({"path": "/" + os.fsdecode(path.path), "cap": text}, text)
    return exit_codes.OK

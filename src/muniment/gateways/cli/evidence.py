"""`muni evidence`: what proves that a log service lied; anybody can check it."""

from __future__ import annotations

from pathlib import Path

import click

from muniment.engine.evidence import verify_evidence
from muniment.errors import FileFailed
from muniment.gateways.cli.context import Context, json_option, pass_context
from muniment.ids import id_text
from muniment.spec.evidence import EVIDENCE_BYTES_MAX


@click.group()
def evidence() -> None:
    """Check what proves that a log service lied."""


@evidence.command("verify")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@json_option
@pass_context
def evidence_verify(context: Context, file: Path) -> None:
    """Say what an evidence file proves; needs no network, no membership and no key.

    Fails if it proves nothing.
    """
    try:
        with file.open("rb") as stream:
            data = stream.read(EVIDENCE_BYTES_MAX + 1)
    except OSError as error:
        raise FileFailed(path=str(file), reason=error.strerror or str(error)) from error
    verdict = verify_evidence(data)
    key = verdict.log_key.hex()
    context.emit(
        {"volume": id_text(verdict.volume), "log_key": key, "proves": verdict.says},
        f"proved: the log service with the key {key}\nof volume {id_text(verdict.volume)}: {verdict.says}",
    )

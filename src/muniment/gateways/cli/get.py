"""`muni get`."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import click

from muniment.engine.grid import Grid
from muniment.engine.results import GetResult
from muniment.errors import NotCapable
from muniment.gateways.cli import exit_codes
from muniment.gateways.cli.carried import owners_option, strict_option, would_option
from muniment.gateways.cli.context import Context, Refusal, json_option, pass_context
from muniment.gateways.cli.copying import get_from, write_out
from muniment.gateways.cli.output import StandardOutput
from muniment.gateways.cli.replacing import allow, replaces
from muniment.gateways.cli.show import SHORT_CHARS, count_text, progress_bar, rate_text
from muniment.gateways.cli.values import CAP_HELP, ByteRange, read_cap
from muniment.gateways.cli.vol_paths import parse_vol_path
from muniment.gateways.cli.when import at_option
from muniment.ids import id_text
from muniment.spec.cap import BlobFile, LiteralFile, ManifestFile, ReadCap, TreeReadCap


@click.command(epilog=CAP_HELP)
@click.argument("sources", nargs=-1, required=True, metavar="CAP|VOL:/PATH... [FILE|FOLDER|-]")
@click.option(
    "--range",
    "span",
    type=ByteRange(),
    metavar="START-STOP",
    help="Only these bytes of a file, STOP not included; START- for the rest.",
)
@click.option(
    "--replace",
    "--force",
    "replace",
    is_flag=True,
    help="Replace what is there; of a folder, with all that it holds.",
)
@click.option("-r", "--recursive", is_flag=True, help="Of a volume: folders too, with all that is in them.")
@owners_option
@strict_option
@would_option
@at_option
@json_option
@pass_context
def get(
    context: Context,
    sources: tuple[str, ...],
    span: tuple[int, int | None] | None,
    replace: bool,
    recursive: bool,
    owners: bool | None,
    strict: bool,
    dry_run: bool,
    when: str | None,
) -> int:
    """Read a file or folder back, to standard output or a new place.

    What is written was verified.  A file or folder appears under its name when it is whole, or not at all.
    """
    if parse_vol_path(sources[0]) is None and len(sources) > 1 and parse_vol_path(sources[-1]) is not None:
        raise Refusal(f"{sources[-1]} is in a volume", "'muni put' brings files into a volume")
    if parse_vol_path(sources[0]) is not None:
        return _of_volume(
            context,
            sources,
            span,
            replace=replace,
            recursive=recursive,
            when=when,
            owners=owners,
            strict=strict,
            dry_run=dry_run,
        )
    if len(sources) > 2:
        raise click.UsageError("a capability and one target are all that can be given")
    if when is not None:
        raise Refusal("--at is for paths in a volume", "a capability is of one state: leave --at out")
    if owners is not None or strict or dry_run:
        raise Refusal("--owners, --strict and -n are for paths in a volume", "leave them out")
    return _of_cap(context, sources[0], sources[1] if len(sources) > 1 else "-", span, replace)


def _of_volume(
    context: Context,
    words: tuple[str, ...],
    span: tuple[int, int | None] | None,
    *,
    replace: bool,
    recursive: bool,
    when: str | None,
    owners: bool | None,
    strict: bool,
    dry_run: bool,
) -> int:
    paths = [parse_vol_path(word) for word in words]
    target = "-" if len(words) == 1 else words[-1]
    sources = tuple(path for path in paths if path is not None)
    if len(sources) < max(len(words) - 1, 1):
        raise Refusal("some of these are in a volume and some are not", "get them one kind after the other")
    if len(words) > 1 and paths[-1] is not None:
        raise Refusal(f"{target} is in a volume", "name a place here; 'muni cp' copies within a volume")
    if target == "-":
        return write_out(context, sources, when, span or (0, None))
    if span:
        raise Refusal("--range of a volume's file goes to standard output", "leave the target out")
    return get_from(
        context,
        sources,
        target,
        recursive=recursive,
        when=when,
        replace=replace,
        owners=owners,
        strict=strict,
        dry_run=dry_run,
    )


def _of_cap(
    context: Context, capability: str, target: str, span: tuple[int, int | None] | None, replace: bool
) -> int:
    cap = read_cap(capability)
    if not isinstance(cap, LiteralFile | BlobFile | ManifestFile | TreeReadCap):
        raise NotCapable(needed="read", given="verify")
    _check(context, cap, target, span)
    path = Path(target)
    replacing = target != "-" and replaces(path)
    if replacing:
        allow(context, path, replace)
    context.interrupted = "nothing is left behind" if target != "-" else "the output is not complete"
    start, stop = span or (0, None)

    async def work() -> GetResult:
        async with context.open_grid() as grid:
            if target == "-":
                return await _to_standard_output(context, grid, cap, start, stop)
            with progress_bar(context, target) as progress:
                if isinstance(cap, TreeReadCap):
                    return await grid.get_tree(cap, path, replace=replacing, progress=progress)
                return await grid.get(cap, path, start=start, stop=stop, progress=progress)

    started = time.monotonic()
    result = context.run(work)
    took_s = time.monotonic() - started
    _remark(context, target, result, took_s)
    context.emit(_document(target, result, took_s))
    return exit_codes.LOCAL if result.skipped else exit_codes.OK


async def _to_standard_output(
    context: Context, grid: Grid, cap: ReadCap, start: int, stop: int | None
) -> GetResult:
    # A bar and content on one terminal would be written over each other.
    bar = contextlib.nullcontext() if sys.stdout.isatty() else progress_bar(context, "standard output")
    with bar as progress, StandardOutput() as out:
        return await out.interruptible(grid.get(cap, out, start=start, stop=stop, progress=progress))


def _check(context: Context, cap: ReadCap, target: str, span: tuple[int, int | None] | None) -> None:
    """What cannot be meant, before any node is asked."""
    tree = isinstance(cap, TreeReadCap)
    if not target:
        raise Refusal("the name of the target is empty", "name a file or folder, or - for standard output")
    if tree and target == "-":
        raise Refusal("this capability is of a folder", "say where to restore it: muni get CAP FOLDER")
    if tree and span:
        raise Refusal("--range is for files, and this capability is of a folder", "leave --range out")
    if context.json and target == "-":
        raise Refusal("standard output cannot hold content and a document", "with --json name a file")
    if not tree and Path(target).is_dir():
        raise Refusal(f"{target} is a folder, and the capability is of a file", "name the file to write")
    if tree and target != "-" and Path(target).exists() and not Path(target).is_dir():
        raise Refusal(f"{target} is not a folder, and the capability is of one", "name the folder to make")


def _remark(context: Context, target: str, result: GetResult, took_s: float) -> None:
    where = "standard output" if target == "-" else target
    context.remark(f"{where}: {rate_text(result.size_bytes, took_s)}")
    for node, count in result.liars.items():
        lies = count_text(count, "false share")
        context.remark(f"  node {id_text(node)[:SHORT_CHARS]} served {lies}; good ones replaced them")
    for skipped in result.skipped:
        context.remark(f"  not restored: {skipped.path}: {skipped.reason}")


def _document(target: str, result: GetResult, took_s: float) -> dict[str, Any]:
    return {
        "target": target,
        "size_bytes": result.size_bytes,
        "files": result.files,
        "liars": {id_text(node): count for node, count in result.liars.items()},
        "decoded_blobs": result.decoded,
        "skipped": [{"path": s.path, "reason": s.reason} for s in result.skipped],
        "seconds": round(took_s, 3),
    }

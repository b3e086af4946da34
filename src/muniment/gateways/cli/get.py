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
from muniment.gateways.cli.context import Context, Refusal, json_option, pass_context
from muniment.gateways.cli.output import StandardOutput
from muniment.gateways.cli.show import SHORT_CHARS, count_text, progress_bar, rate_text
from muniment.gateways.cli.values import CAP_HELP, ByteRange, read_cap
from muniment.ids import id_text
from muniment.spec.cap import BlobFile, LiteralFile, ManifestFile, ReadCap, TreeReadCap


@click.command(epilog=CAP_HELP)
@click.argument("capability", metavar="CAP")
@click.argument("target", metavar="[FILE|FOLDER|-]", default="-")
@click.option(
    "--range",
    "span",
    type=ByteRange(),
    metavar="START-STOP",
    help="Only these bytes of a file, STOP not included; START- for the rest.",
)
@click.option("--force", is_flag=True, help="Replace what is there; of a folder, with all that it holds.")
@json_option
@pass_context
def get(
    context: Context, capability: str, target: str, span: tuple[int, int | None] | None, force: bool
) -> int:
    """Read a file or folder back, to standard output or a new place.

    What is written was verified.  A file or folder appears under its name when it is whole, or not at all.
    """
    cap = read_cap(capability)
    if not isinstance(cap, LiteralFile | BlobFile | ManifestFile | TreeReadCap):
        raise NotCapable(needed="read", given="verify")
    _check(context, cap, target, span)
    path = Path(target)
    replace = target != "-" and _replaces(path)
    if replace:
        _allow(context, path, force)
    context.interrupted = "nothing is left behind" if target != "-" else "the output is not complete"
    start, stop = span or (0, None)

    async def work() -> GetResult:
        async with context.open_grid() as grid:
            if target == "-":
                return await _to_standard_output(context, grid, cap, start, stop)
            with progress_bar(context, target) as progress:
                if isinstance(cap, TreeReadCap):
                    return await grid.get_tree(cap, path, replace=replace, progress=progress)
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


def _replaces(path: Path) -> bool:
    """Whether there is something that would be gone afterwards."""
    if path.is_dir():
        return any(path.iterdir())
    return path.is_symlink() or path.is_file()


def _allow(context: Context, path: Path, force: bool) -> None:
    """Raises: Refusal: it may not be replaced."""
    if path.is_dir():
        place = path.resolve()
        for needed in (Path.cwd(), Path.home()):
            if needed.is_relative_to(place):
                raise Refusal(f"{path} holds {needed}", "restore into a new folder and move what you need")
    if force:
        return
    what = f"{path} exists and is not empty. Delete all that it holds" if path.is_dir() else f"{path} exists"
    if not context.can_ask:
        raise Refusal(f"{path} exists", "choose another name, or replace it with --force")
    if not click.confirm(f"{what}. Replace it?" if not path.is_dir() else f"{what}?", err=True):
        raise Refusal(f"{path} is left as it was", "choose another name")


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

"""`muni put`."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

import click

from muniment.engine.grid import Grid
from muniment.engine.policy import PlacementName, Policy
from muniment.engine.results import FilePut, Progress, PutResult
from muniment.engine.room import content_bytes
from muniment.erasure.codec import Coding
from muniment.errors import InternalError, MunimentError
from muniment.gateways.cli import exit_codes
from muniment.gateways.cli.carried import strict_option
from muniment.gateways.cli.context import Context, Refusal, json_option, pass_context, printable
from muniment.gateways.cli.copying import put_into
from muniment.gateways.cli.show import bytes_text, count_text, progress_bar, rate_text
from muniment.gateways.cli.values import Size
from muniment.gateways.cli.vol_paths import parse_vol_path
from muniment.spec.cap import cap_text


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="FILE|FOLDER|-... [VOL:/PATH]")
@click.option(
    "--coding",
    default="4/6",
    show_default=True,
    metavar="K/N",
    help="Make N shares, of which any K restore; or rep-N for whole copies.",
)
@click.option(
    "--happy", type=int, metavar="H", help="Succeed when H distinct nodes hold a share.  [default: (K+N+1)/2]"
)
@click.option(
    "--placement",
    type=click.Choice(["rendezvous", "pairs"]),
    default="rendezvous",
    show_default=True,
    help="pairs needs --coding 4/4 and four nodes.",
)
@click.option(
    "--chunk",
    type=Size(),
    default="4MiB",
    show_default=True,
    help="Cut content into chunks of so much, 64KiB to 16MiB.",
)
@click.option("--no-compress", is_flag=True, help="Do not try to compress.")
@click.option("-r", "--recursive", is_flag=True, help="Into a volume: folders too, with all that is in them.")
@click.option(
    "--if-version", type=int, metavar="N", help="Into a volume: only over this version of the file."
)
@click.option("--replace", is_flag=True, help="Into a volume: do not ask before a file gets a new version.")
@click.option("--force", is_flag=True, help="Try it although nodes say that they have too little space.")
@click.option("-m", "--message", metavar="TEXT", default="", help="Into a volume: why, for its history.")
@strict_option
@json_option
@pass_context
def put(
    context: Context,
    paths: tuple[str, ...],
    coding: str,
    happy: int | None,
    placement: PlacementName,
    chunk: int,
    no_compress: bool,
    recursive: bool,
    if_version: int | None,
    replace: bool,
    force: bool,
    message: str,
    strict: bool,
) -> int:
    """Store files or folders; prints a capability for each.

    A file gives a capability of its own, a folder one for the whole tree; - stores standard input.  Whoever
    has the capability can read what it names, and nobody else can: keep it.

    Putting the same again, also after an interruption, sends only what is missing.  What is larger than the
    free space of the nodes is refused before anything is sent, unless --force.

    If the last word is VOL:/PATH, they become files of that volume instead.  A person is asked before a file
    that is there gets a new version.
    """
    target = parse_vol_path(paths[-1])
    if target is not None:
        _refuse_given("coding", "happy", "placement", "chunk", "no_compress")
        return put_into(
            context,
            paths[:-1],
            target,
            recursive=recursive,
            if_version=if_version,
            message=message,
            strict=strict,
            force=force,
            replace=replace,
        )
    if if_version is not None or message or strict or replace:
        raise Refusal(
            "--if-version, --message, --strict and --replace are for volumes", "end the line with VOL:/PATH"
        )
    code = Coding.from_text(coding)
    policy = Policy(
        coding=code,
        happy=(code.k + code.n + 1) // 2 if happy is None else happy,
        chunk_bytes=chunk,
        placement=placement,
        compress=not no_compress,
    )
    _check(paths)
    context.interrupted = "nothing stays reserved; the same put goes on from what is stored already"
    batch = _Batch(context, paths, force=force)
    try:
        context.run(lambda: batch.run(policy))
    finally:
        # What is stored must not be lost because something after it failed or somebody lost patience.
        if not context.json:
            batch.print_caps()
    context.emit({"stored": [batch.documents[path] for path in paths]})
    return batch.exit_code()


def _refuse_given(*names: str) -> None:
    """Raises: Refusal: one of these options was given, and a volume's policy decides that."""
    for name in names:
        if click.get_current_context().get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            option = "--" + name.replace("_", "-")
            raise Refusal(f"{option} is for capabilities", "of a volume its policy decides: leave it out")


class _Batch:
    """All paths of one command.

    Attributes:
        documents: of each path that is done, for --json.
    """

    def __init__(self, context: Context, paths: tuple[str, ...], *, force: bool) -> None:
        self._context, self._paths, self._force = context, paths, force
        self._folders = {path for path in paths if path != "-" and Path(path).is_dir()}
        self._sizes = {path: Path(path).stat().st_size for path in paths if _is_file(path)}
        self._failures: list[MunimentError] = []
        self.documents: dict[str, dict[str, Any]] = {}

    async def run(self, policy: Policy) -> None:
        """Store everything; one that fails does not stop the others."""
        async with self._context.open_grid(policy) as grid:
            if not self._force:
                sources = [Path(path) for path in (*self._folders, *self._sizes)]
                await grid.require_room(await asyncio.to_thread(content_bytes, sources))
            if len(self._sizes) > 1:
                await self._store_many(grid, list(self._sizes))
            for path in self._paths:
                if path not in self.documents:
                    await self._store(grid, path)

    def print_caps(self) -> None:
        """A line for each path that is stored: its capability, and its name if there are several."""
        for path in self._paths:
            cap = self.documents.get(path, {}).get("cap")
            if cap is not None:
                name = printable(path).replace("\n", "\\n")
                click.echo(cap if len(self._paths) == 1 else f"{cap}  {name}")

    def exit_code(self) -> int:
        """That of the first failure; something left out of a folder is one."""
        if self._failures:
            return exit_codes.exit_code(self._failures[0])
        skipped = any(document["skipped"] for document in self.documents.values())
        return exit_codes.LOCAL if skipped else exit_codes.OK

    async def _store(self, grid: Grid, path: str) -> None:
        started = time.monotonic()
        try:
            with progress_bar(self._context, path) as progress:
                if path == "-":
                    result = await grid.put(sys.stdin.buffer, progress=progress)
                elif path in self._folders:
                    result = await grid.put_tree(Path(path), progress=progress)
                else:
                    result = await grid.put(Path(path), progress=progress)
        except MunimentError as error:
            if len(self._paths) == 1:
                raise
            self._fail(path, error)
            return
        took_s = time.monotonic() - started
        _remark(self._context, path, result, took_s)
        self.documents[path] = _document(path, result, took_s)

    async def _store_many(self, grid: Grid, files: list[str]) -> None:
        """Files are stored together, in few requests."""
        started = time.monotonic()
        total_bytes = sum(self._sizes.values())
        done_bytes = 0
        with progress_bar(self._context, count_text(len(files), "file")) as progress:

            def told(one: FilePut) -> None:
                nonlocal done_bytes
                done_bytes += one.size_bytes
                if progress is not None:
                    progress(Progress(done_bytes, total_bytes))

            for path, one in zip(
                files, await grid.put_many([Path(path) for path in files], told=told), strict=True
            ):
                if isinstance(one.error, MunimentError):
                    self._fail(path, one.error)
                elif one.cap is None:
                    raise InternalError(reason=f"{path} has neither a capability nor an error")
                else:
                    self.documents[path] = {
                        "path": path,
                        "cap": cap_text(one.cap),
                        "size_bytes": one.size_bytes,
                        "files": 1,
                        "skipped": [],
                    }
        took_s = time.monotonic() - started
        self._context.remark(f"{count_text(len(files), 'file')}: {rate_text(done_bytes, took_s)}")

    def _fail(self, path: str, error: MunimentError) -> None:
        self._failures.append(error)
        self._context.remark(f"{path}: not stored: {error}\n      {error.hint}")
        told = {"code": error.code, "message": str(error), "hint": error.hint}
        self.documents[path] = {"path": path, "cap": None, "error": told, "skipped": []}


def _is_file(path: str) -> bool:
    """A regular file; a pipe or device is stored by itself, since it can be read but once."""
    return path != "-" and Path(path).is_file()


def _check(paths: tuple[str, ...]) -> None:
    """Notice before anything is stored what is not there."""
    if paths.count("-") > 1:
        raise Refusal("standard input can be stored once", "give - once")
    for path in paths:
        if not path:  # an unset variable of a script; to the system it would be the folder one stands in
            raise Refusal("a path is empty", "nothing was stored; give . for the folder you stand in")
        if path != "-" and not Path(path).exists():
            raise Refusal(f"{path} does not exist", "nothing was stored; correct the path")
    if "-" in paths and sys.stdin.isatty():
        click.echo("reading from the terminal; end with Ctrl-D", err=True)


def _remark(context: Context, path: str, result: PutResult, took_s: float) -> None:
    name = "standard input" if path == "-" else path
    on = f" on {count_text(result.placed, 'node')}" if result.placed else ", all in the capability itself"
    there = f"; {bytes_text(result.present_bytes)} of shares were there" if result.present_bytes else ""
    context.remark(f"{name}: {rate_text(result.size_bytes, took_s)}{on}{there}")
    if result.missing:
        context.remark(f"  {count_text(result.missing, 'share')} found no node; 'muni check' tells more")
    for skipped in result.skipped:
        context.remark(f"  left out: {skipped.path}: {skipped.reason}")


def _document(path: str, result: PutResult, took_s: float) -> dict[str, Any]:
    return {
        "path": path,
        "cap": cap_text(result.cap),
        "size_bytes": result.size_bytes,
        "files": result.files,
        "placed": result.placed,
        "new_bytes": result.new_bytes,
        "present_bytes": result.present_bytes,
        "missing_shares": result.missing,
        "skipped": [{"path": s.path, "reason": s.reason} for s in result.skipped],
        "seconds": round(took_s, 3),
    }

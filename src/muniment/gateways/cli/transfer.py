"""`muni grid`, `put`, `get`, `check` and `cap`: what people do with files and capabilities."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, BinaryIO

import click

from muniment.core.capabilities import weaken
from muniment.engine.policy import PlacementName, Policy
from muniment.engine.results import GetResult, PutResult
from muniment.erasure.codec import Coding
from muniment.errors import ConfigInvalid, InvalidRequest, NotCapable
from muniment.gateways.cli import exit_codes
from muniment.gateways.cli.context import Context, pass_context
from muniment.gateways.cli.show import bytes_text, progress_bar, rate_text
from muniment.gateways.cli.values import ByteRange, Size, read_cap
from muniment.ids import id_text
from muniment.spec.address import parse_introducer
from muniment.spec.cap import BlobFile, Cap, LiteralFile, ManifestFile, TreeReadCap, cap_text

_CAP_HELP = """

CAP is the capability; since other users can see a process's arguments, it may also be - for standard input
or @FILE."""


@click.group()
def grid() -> None:
    """The nodes you use."""


@grid.command("join")
@click.argument("address", metavar="ADDRESS|FILE")
@pass_context
def grid_join(context: Context, address: str) -> None:
    """Remember where your grid is: an introducer's address, or a roster file."""
    if address.startswith("mun:"):
        parse_introducer(address)
    elif not Path(address).is_file():
        raise ConfigInvalid(where=address, reason="neither an introducer's address nor a file")
    else:
        address = str(Path(address).resolve())
    context.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    (context.home / "roster-address").write_text(address + "\n")
    context.emit({"grid": address}, f"joined {address}")


@grid.command("account")
@pass_context
def grid_account(context: Context) -> None:
    """Print your account's id, for a node's operator to invite; made on first use."""
    account = context.composition.account(context.home)
    context.emit({"account": account}, account)


@grid.command("status")
@pass_context
def grid_status(context: Context) -> None:
    """Ask every node of the grid how it is."""

    async def work() -> list[Any]:
        async with context.composition.open_grid(context.home, context.roster(), Policy()) as opened:
            return list(await opened.status())

    nodes = context.run(work)
    lines = [f"{'node':<14}{'zone':<12}{'state':<14}{'latency':>9}{'free':>12}{'capacity':>12}  address"]
    for n in nodes:
        state = "up" if n.reachable else "unreachable"
        latency = f"{n.latency_s * 1000:.0f} ms" if n.reachable else "-"
        free = bytes_text(n.free_bytes) if n.reachable else "-"
        lines.append(
            f"{id_text(n.node)[:12]:<14}{n.zone or '-':<12}{state:<14}{latency:>9}{free:>12}"
            f"{bytes_text(n.capacity_bytes):>12}  {n.addresses[0]}"
        )
    context.emit({"nodes": [n.to_json() for n in nodes]}, "\n".join(lines))


@click.command()
@click.argument("paths", nargs=-1, required=True, metavar="FILE|FOLDER|-...")
@click.option("--coding", default="4/6", show_default=True, metavar="K/N", help="Any K of N shares restore.")
@click.option("--happy", type=int, help="Distinct nodes that must hold a share.  [default: between K and N]")
@click.option(
    "--placement", type=click.Choice(["rendezvous", "pairs"]), default="rendezvous", show_default=True
)
@click.option("--chunk", type=Size(), default="4MiB", show_default=True, help="64KiB to 16MiB.")
@click.option("--no-compress", is_flag=True, help="Do not try to compress.")
@pass_context
def put(
    context: Context,
    paths: tuple[str, ...],
    coding: str,
    happy: int | None,
    placement: PlacementName,
    chunk: int,
    no_compress: bool,
) -> None:
    """Store files or folders and print a capability for each.

    A file gives one capability, a folder one for the whole tree, - stores standard input.  Whoever has the
    capability can read it; nobody else can.
    """
    code = Coding.from_text(coding)
    policy = Policy(
        coding=code,
        happy=(code.k + code.n + 1) // 2 if happy is None else happy,
        chunk_bytes=chunk,
        placement=placement,
        compress=not no_compress,
    )
    for path in paths:
        if path != "-" and not Path(path).exists():
            raise InvalidRequest(reason=f"{path} does not exist")

    folders = {path for path in paths if Path(path).is_dir()}

    async def work() -> list[tuple[str, PutResult, float]]:
        done = []
        async with context.composition.open_grid(context.home, context.roster(), policy) as opened:
            for path in paths:
                started = time.monotonic()
                with progress_bar(context, path) as progress:
                    if path == "-":
                        result = await opened.put(sys.stdin.buffer, progress=progress)
                    elif path in folders:
                        result = await opened.put_tree(Path(path), progress=progress)
                    else:
                        result = await opened.put(Path(path), progress=progress)
                done.append((path, result, time.monotonic() - started))
        return done

    stored = context.run(work)
    for path, result, took in stored:
        again = f", {bytes_text(result.present_bytes)} were there already" if result.present_bytes else ""
        on = f" on {result.placed} nodes" if result.placed else " in the capability itself"
        context.remark(f"{path}: {rate_text(result.size_bytes, took)}{on}{again}")
        for skipped in result.skipped:
            context.remark(f"  left out: {skipped.path}: {skipped.reason}")
    documents = [_put_document(path, result, took) for path, result, took in stored]
    context.emit({"stored": documents}, "\n".join(document["cap"] for document in documents))
    if any(result.skipped for _, result, _ in stored):
        raise SystemExit(exit_codes.FAMILY[exit_codes.errors.LocalError])


def _put_document(path: str, result: PutResult, took_s: float) -> dict[str, Any]:
    return {
        "path": path,
        "cap": cap_text(result.cap),
        "size_bytes": result.size_bytes,
        "files": result.files,
        "placed": result.placed,
        "new_bytes": result.new_bytes,
        "present_bytes": result.present_bytes,
        "skipped": [{"path": s.path, "reason": s.reason} for s in result.skipped],
        "seconds": round(took_s, 3),
    }


@click.command(help="Read a file or tree back." + _CAP_HELP)
@click.argument("capability", metavar="CAP")
@click.argument("target", metavar="[FILE|FOLDER|-]", default="-")
@click.option("--range", "span", type=ByteRange(), metavar="START-STOP", help="Only these bytes of a file.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@pass_context
def get(
    context: Context, capability: str, target: str, span: tuple[int, int | None] | None, force: bool
) -> None:
    """Read a file or tree back."""
    cap = read_cap(capability)
    tree = isinstance(cap, TreeReadCap)
    if not isinstance(cap, LiteralFile | BlobFile | ManifestFile | TreeReadCap):
        raise NotCapable(needed="read", given="verify")
    if tree and target == "-":
        raise InvalidRequest(reason="this capability is of a folder; say where to restore it")
    if tree and span:
        raise InvalidRequest(reason="--range is for files, this capability is of a folder")
    path = Path(target)
    if target != "-" and (path.is_dir() and not tree):
        raise InvalidRequest(reason=f"{target} is a folder, the capability is of a file")
    if target != "-" and path.exists() and not force and not (tree and not any(path.iterdir())):
        if not (context.interactive and sys.stdin.isatty()):
            raise InvalidRequest(reason=f"{target} exists; --force replaces it")
        click.confirm(f"{target} exists. Replace it?", abort=True, err=True)
    start, stop = span or (0, None)

    async def work() -> GetResult:
        async with context.composition.open_grid(context.home, context.roster(), Policy()) as opened:
            with progress_bar(context, target) as progress:
                if isinstance(cap, TreeReadCap):
                    return await opened.get_tree(cap, path, progress=progress)
                out: BinaryIO | Path = sys.stdout.buffer if target == "-" else path
                return await opened.get(cap, out, start=start, stop=stop, progress=progress)

    started = time.monotonic()
    result = context.run(work)
    took = time.monotonic() - started
    if target == "-":
        sys.stdout.buffer.flush()
    context.remark(f"{target}: {rate_text(result.size_bytes, took)}")
    for node, count in result.liars.items():
        context.remark(f"  node {id_text(node)[:12]} served {count} false shares; others replaced them")
    for skipped in result.skipped:
        context.remark(f"  not restored: {skipped.path}: {skipped.reason}")
    document = {
        "target": target,
        "size_bytes": result.size_bytes,
        "files": result.files,
        "liars": {id_text(node): count for node, count in result.liars.items()},
        "skipped": [{"path": s.path, "reason": s.reason} for s in result.skipped],
        "seconds": round(took, 3),
    }
    if target != "-":
        context.emit(document)
    if result.skipped:
        raise SystemExit(exit_codes.FAMILY[exit_codes.errors.LocalError])


@click.command(help="Ask the nodes which shares of a file or tree they hold." + _CAP_HELP)
@click.argument("capability", metavar="CAP")
@click.option("--verify", is_flag=True, help="Read and check every share instead of asking.")
@pass_context
def check(context: Context, capability: str, verify: bool) -> None:
    """Health of a file or tree, for each share and node."""
    cap = read_cap(capability)

    async def work() -> Any:
        async with context.composition.open_grid(context.home, context.roster(), Policy()) as opened:
            return await opened.check(cap, verify=verify)

    health = context.run(work)
    context.emit(health.to_json(), health.text())
    if not health.recoverable:
        raise SystemExit(exit_codes.UNRECOVERABLE)
    if not health.healthy:
        raise SystemExit(exit_codes.DEGRADED)


@click.group()
def cap() -> None:
    """Capabilities themselves."""


@cap.command("verify", help="Print the weaker capability that checks but cannot read." + _CAP_HELP)
@click.argument("capability", metavar="CAP")
@pass_context
def cap_verify(context: Context, capability: str) -> None:
    """Weaken a capability."""
    weaker = cap_text(weaken(read_cap(capability)))
    context.emit({"cap": weaker}, weaker)


@cap.command("show", help="Print what a capability is, without its secret." + _CAP_HELP)
@click.argument("capability", metavar="CAP")
@pass_context
def cap_show(context: Context, capability: str) -> None:
    """Describe a capability."""
    document = describe(read_cap(capability))
    context.emit(document, "\n".join(f"{name:<10} {value}" for name, value in document.items()))


def describe(capability: Cap) -> dict[str, Any]:
    """Kind, right, size and coding of a capability; no secrets."""
    text = cap_text(capability)
    _, kind, right, _ = text.split(":")
    document: dict[str, Any] = {"kind": kind, "right": right}
    if isinstance(capability, LiteralFile):
        document["size_bytes"] = len(capability.data)
    if isinstance(capability, ManifestFile):
        document["size_bytes"] = capability.size_bytes
    if isinstance(capability, BlobFile):
        document["size_bytes"] = capability.ref.plain_bytes
    name = getattr(capability, "name", None)
    if isinstance(capability, BlobFile | ManifestFile | TreeReadCap):
        name = capability.ref.name
    if name is not None:
        shape = name.shape
        document |= {"blob": id_text(name.blob), "coding": Coding(shape.codec, shape.k, shape.n).text}
    return document

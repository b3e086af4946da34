"""`muni mount` and `muni umount`: a volume as a folder of this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from muniment.gateways.cli import exit_codes
from muniment.gateways.cli.background import Background
from muniment.gateways.cli.composition import MountRequest
from muniment.gateways.cli.context import Context, Refusal, Stopped, json_option, pass_context
from muniment.gateways.cli.passphrases import passphrase_of
from muniment.gateways.cli.values import parse_size
from muniment.gateways.cli.when import maybe_at

if TYPE_CHECKING:
    from muniment.engine.opened import OpenVolume
    from muniment.fs.options import Options

_FOLDER: Final = click.Path(path_type=Path)
_NAMES_S: Final = 1.0
_SECONDS_MAX: Final = 1e6
_FLAGS: Final = {
    "ro": {"read_only": True},
    "rw": {"read_only": False},
    "sync": {"sync": True},
    "async": {"sync": False},
    "lazy_close": {"durable_close": False},
    "lax": {"strict": False},
}


def _seconds(text: str) -> float:
    """Raises: ValueError: not a time that can be waited."""
    seconds = float(text)
    if not 0 <= seconds <= _SECONDS_MAX:
        raise ValueError(text)
    return seconds


def _some(parse: Callable[[str], float]) -> Callable[[str], float]:
    """The same for what must be more than 0."""

    def parsed(text: str) -> float:
        value = parse(text)
        if not value:
            raise ValueError(text)
        return value

    return parsed


_VALUES: Final[dict[str, tuple[str, Callable[[str], Any]]]] = {
    "dirty": ("dirty_bytes", _some(parse_size)),
    "cache": ("cache_bytes", parse_size),
    "disk_cache": ("disk_cache_bytes", parse_size),
    "deadline": ("deadline_s", _some(_seconds)),
    "linger": ("linger_s", _seconds),
    "writeback": ("writeback_s", _some(_seconds)),
}
_LOCKS: Final = {"mount": {"shared_locks": False}, "volume": {"shared_locks": True}}
_KERNEL: Final = {
    "allow_other": ("allow_other", True),
    "suid": ("suid", True),
    "nosuid": ("suid", False),
    "dev": ("dev", True),
    "nodev": ("dev", False),
    "exec": ("noexec", False),
    "noexec": ("noexec", True),
}
_IGNORED: Final = frozenset({"defaults", "auto", "noauto", "user", "nouser", "_netdev", "nofail"})
"""What stands in fstab for others."""


@click.command()
@click.argument("volume", metavar="VOL")
@click.argument("folder", type=_FOLDER, metavar="FOLDER")
@click.option(
    "--at", "when", metavar="WHEN", help="As it was: an entry, a snapshot, a time, '2h ago', 'yesterday'."
)
@click.option("--read-only", is_flag=True, help="Nothing can be changed through this mount.")
@click.option("--allow-other", is_flag=True, help="Other users of this machine may use it too.")
@click.option("--foreground", is_flag=True, help="Serve in this process until Ctrl-C.")
@click.option(
    "-o",
    "options",
    multiple=True,
    metavar="OPTION[,OPTION]...",
    help="ro, sync, lazy_close, lax, allow_other, suid, dev, noexec, dirty=SIZE, cache=SIZE, "
    "disk_cache=SIZE, deadline=S, linger=S, writeback=S, names=S, locks=mount|volume.",
)
@json_option
@pass_context
def mount(
    context: Context,
    volume: str,
    folder: Path,
    when: str | None,
    read_only: bool,
    allow_other: bool,
    foreground: bool,
    options: tuple[str, ...],
) -> int:
    """Have a volume as a folder of this machine.

    All programs can use it then.  It is served by a process in the background until 'muni umount FOLDER', or
    until that process is ended; either way all that was written is saved before, or, while nodes or the log
    service are away, kept on this machine for the next mount.
    """
    chosen, names_s, kernel = _parsed(options)
    if read_only or when is not None:
        chosen = replace(chosen, read_only=True)

    others = frozenset(("allow_other",) if allow_other else ())

    async def at(opened: OpenVolume) -> int | None:
        return await maybe_at(opened, when)

    name = volume.removesuffix(":")
    request = MountRequest(name, folder, chosen, at, kernel | others, names_s)
    document = {"mounted": {"volume": name, "folder": str(folder)}}
    background = None if foreground else Background.begin()
    if background is not None and background.is_parent:
        code = background.wait()
        if code == exit_codes.OK:
            context.emit(document, f"{name} is mounted at {folder}")
        return code

    def ready(log_file: Path) -> None:
        if background is None:
            context.emit(document, f"{name} is mounted at {folder}; Ctrl-C unmounts it")
        else:
            background.ready(log_file)

    async def work() -> None:
        composition = context.composition
        await composition.mount(context.home, context.grid, request, passphrase_of(context), ready)

    try:
        context.run(work)
    except (Stopped, KeyboardInterrupt):
        context.remark(f"{folder} is unmounted")
    return exit_codes.OK


@click.command()
@click.argument("folder", type=_FOLDER, metavar="FOLDER")
@click.option("--lazy", is_flag=True, help="At once, though somebody uses it or not all is saved yet.")
@json_option
@pass_context
def umount(context: Context, folder: Path, lazy: bool) -> int:
    """Take a mounted volume away, when all of it is saved."""

    async def work() -> None:
        await context.composition.unmount(context.home, folder, lazy=lazy)

    context.run(work)
    if lazy:
        context.remark(f"{folder} is away; who uses it can go on, and all is saved when they are done")
    context.emit({"unmounted": {"folder": str(folder)}}, None)
    return exit_codes.OK


def _parsed(texts: tuple[str, ...]) -> tuple[Options, float, frozenset[str]]:
    """Options of the file system, how long the kernel keeps names, and what else it is told."""
    from muniment.fs.options import Options

    options, names_s, kernel = Options(), _NAMES_S, dict[str, bool]()
    for text in filter(None, ",".join(texts).split(",")):
        name, equals, value = text.partition("=")
        try:
            if name in _FLAGS and not equals:
                options = replace(options, **_FLAGS[name])
            elif name in _VALUES and equals:
                field, parse = _VALUES[name]
                options = replace(options, **{field: parse(value)})
            elif name == "locks" and value in _LOCKS:
                options = replace(options, **_LOCKS[value])
            elif name == "names" and equals:
                names_s = _seconds(value)
            elif name in _KERNEL and not equals:
                told, is_wanted = _KERNEL[name]
                kernel[told] = is_wanted
            elif name not in _IGNORED:
                raise Refusal(f"there is no option {text!r} for mounts", "see 'muni mount --help'")
        except ValueError as error:
            raise Refusal(f"{value!r} cannot be the value of {name}", "see 'muni mount --help'") from error
    return options, names_s, frozenset(told for told, is_wanted in kernel.items() if is_wanted)

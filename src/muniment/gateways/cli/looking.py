"""Opening a volume for commands that only look: the log service may be away, or entries closed to the user.

What this machine has seen of a volume is signed and verified, so it can be read without its log service, as
far as it goes; whoever looks is told how far that is, and what is closed to him.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from muniment.crypto.member import VerifySecret
from muniment.engine.volume_names import VolumeNames
from muniment.errors import UnavailableError
from muniment.gateways.cli.context import Context, Refusal
from muniment.gateways.cli.passphrases import passphrase_of
from muniment.gateways.cli.when import moment_text

if TYPE_CHECKING:
    from muniment.engine.opened import OpenVolume
    from muniment.engine.volume_files import VolumeFiles


@contextlib.asynccontextmanager
async def looking_at(context: Context, volume: str) -> AsyncIterator[tuple[OpenVolume, VolumeNames]]:
    """A volume in step with its log, or as it was seen last if the log service cannot be reached.

    Raises: Refusal: nothing of it is open to the user; UnavailableError: nothing of it was seen yet.
    """
    async with contextlib.AsyncExitStack() as stack:
        opened = await _opened(context, volume, stack)
        await _tell_what_is_closed(context, opened)
        yield opened, VolumeNames(opened.volume)


@contextlib.asynccontextmanager
async def reading(context: Context, volume: str) -> AsyncIterator[tuple[OpenVolume, VolumeFiles]]:
    """The same with the grid that has its content."""
    from muniment.engine.volume_files import VolumeFiles

    async with looking_at(context, volume) as (opened, _), context.open_grid() as grid:
        yield opened, VolumeFiles(opened.volume, grid)


async def _opened(context: Context, volume: str, stack: contextlib.AsyncExitStack) -> OpenVolume:
    composition, home = context.composition, context.home
    ask = passphrase_of(context)
    try:
        return await stack.enter_async_context(composition.open_volume(home, volume, ask))
    except UnavailableError as error:
        opened = await stack.enter_async_context(composition.open_offline(home, volume, ask))
        seen = await opened.volume.run(lambda: opened.volume.view.size)
        if not seen:
            raise
        (last,) = await opened.volume.run(lambda: opened.volume.view.entries(seen - 1, seen))
        context.warn(
            f"the log service {error}; this is {volume} after entry {seen - 1} "
            f"of {moment_text(last.meta.time_ns)}, the last that was seen here"
        )
        return opened


async def _tell_what_is_closed(context: Context, opened: OpenVolume) -> None:
    volume, name = opened.volume, opened.known.name
    entries, seen, keys = await volume.run(
        lambda: (volume.follower.frontier.size, volume.view.size, volume.follower.ring.newest)
    )
    if seen >= entries:
        return
    if opened.held.member in volume.membership.joins() and keys is None:
        raise Refusal(
            f"you wait to be accepted in {name}",
            "an owner accepts you with 'muni member accept'; give him your id: 'muni identity show'",
        )
    if keys is None and opened.held.member in volume.membership.members:
        raise Refusal(
            f"you are a witness of {name}, and cannot read it",
            "to read it, ask the owners: 'muni member join --role reader'",
        )
    if keys is None:
        raise Refusal(f"you are no member of {name}", "ask its owners: 'muni member join'")
    if keys.read is None or isinstance(opened.held, VerifySecret):
        raise Refusal(
            f"you may check {name}, and not read it",
            "'muni audit' checks it; to read it, ask the owners: 'muni member join --role reader'",
        )
    context.warn(f"entry {seen} and later ones of {name} are closed to you: you were not given their keys")

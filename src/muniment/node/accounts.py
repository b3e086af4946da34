"""The composition root's part for `muni usage`: the accounts under which a home has shares."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from muniment.crypto.identity import Identity
from muniment.engine.grid import Grid
from muniment.engine.usage import AccountUsages
from muniment.node.home import account_identity
from muniment.node.keepers import accounts_of
from muniment.node.volume_home import Passphrase


async def usage(
    home: Path,
    name: str | None,
    passphrase: Passphrase,
    own_grid: Callable[[], AbstractAsyncContextManager[Grid]],
    open_grid: Callable[[Identity], AbstractAsyncContextManager[Grid]],
) -> list[AccountUsages]:
    """What the home's account uses, and those of a volume if one is named.

    Raises: VolumeUnknown, PassphraseWrong: before any node is asked; GridUnknown, RosterEmpty.
    """
    of_volume = [] if name is None else accounts_of(home, name, passphrase)
    async with own_grid() as grid:
        found = [AccountUsages("own", account_identity(home).account, await grid.usage())]
    for kind, account in of_volume:
        async with open_grid(account) as grid:
            found.append(AccountUsages(kind, account.account, await grid.usage()))
    return found

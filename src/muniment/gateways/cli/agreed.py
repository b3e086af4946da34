"""The options that make a volume's policy, and how policies and votes look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from muniment.engine.policy import Policy
from muniment.erasure.codec import Coding
from muniment.gateways.cli.values import Size
from muniment.spec.act import LIFETIME_S_MAX, Quorum, VolumePolicy

_F = TypeVar("_F", bound=Callable[..., Any])

DAY_S: Final = 24 * 3600
_QUORUMS: Final = {
    "one": Quorum.ONE, "majority": Quorum.MAJORITY, "two-thirds": Quorum.TWO_THIRDS, "all": Quorum.ALL,
}  # fmt: skip
DEFAULT: Final = VolumePolicy(Quorum.MAJORITY, 30 * DAY_S, "4/6", 5, 4 * 2**20)


def policy_options(defaults: bool) -> Callable[[_F], _F]:
    """--quorum, --vote-days, --coding, --happy and --chunk.

    Args:
        defaults: whether what is not given is that of DEFAULT, or stays None.
    """

    def default(value: object) -> dict[str, Any]:
        return {"default": value, "show_default": True} if defaults else {}

    options = (
        click.option(
            "--quorum",
            type=click.Choice(list(_QUORUMS)),
            help="How many owners must agree on members and policy.",
            **default("majority"),
        ),
        click.option(
            "--vote-days",
            type=click.IntRange(1, LIFETIME_S_MAX // DAY_S),
            metavar="DAYS",
            help="Votes and joins older than this count no more.",
            **default(DEFAULT.vote_lifetime_s // DAY_S),
        ),
        click.option(
            "--coding",
            metavar="K/N",
            help="Content is cut into N shares, of which any K restore; or rep-N for whole copies.",
            **default("4/6"),
        ),
        click.option(
            "--happy",
            type=int,
            metavar="H",
            help="Stored means: H distinct nodes hold a share.  [default: (K+N+1)/2]",
        ),
        click.option(
            "--chunk",
            type=Size(),
            help="Cut content into chunks of so much, 64KiB to 16MiB.",
            **default("4MiB"),
        ),
    )

    def decorate(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def policy_of(
    before: VolumePolicy,
    quorum: str | None,
    vote_days: int | None,
    coding: str | None,
    happy: int | None,
    chunk: int | None,
) -> VolumePolicy:
    """A policy with these changes.  Raises: InvalidCoding: they do not fit together."""
    code = Coding.from_text(coding or before.coding)
    if happy is None:
        happy = (code.k + code.n + 1) // 2 if coding else before.happy
    chunk_bytes = before.chunk_bytes if chunk is None else chunk
    Policy(coding=code, happy=happy, chunk_bytes=chunk_bytes)
    return VolumePolicy(
        before.quorum if quorum is None else _QUORUMS[quorum],
        before.vote_lifetime_s if vote_days is None else vote_days * DAY_S,
        coding or before.coding,
        happy,
        chunk_bytes,
    )


def quorum_text(quorum: Quorum) -> str:
    """As the option has it."""
    return next(text for text, value in _QUORUMS.items() if value is quorum)


def policy_document(policy: VolumePolicy) -> dict[str, Any]:
    """For --json."""
    return {
        "quorum": quorum_text(policy.quorum),
        "vote_lifetime_s": policy.vote_lifetime_s,
        "coding": policy.coding,
        "happy": policy.happy,
        "chunk_bytes": policy.chunk_bytes,
    }


def policy_rows(policy: VolumePolicy) -> list[tuple[str, str]]:
    """For people."""
    days = policy.vote_lifetime_s / DAY_S
    kib = policy.chunk_bytes / 1024
    chunk = f"{kib / 1024:g} MiB" if kib >= 1024 else f"{kib:g} KiB"
    return [
        ("quorum", f"{quorum_text(policy.quorum)} of the owners; votes count {days:g} days"),
        ("coding", f"{policy.coding}, stored on {policy.happy} nodes or more, chunks of {chunk}"),
    ]

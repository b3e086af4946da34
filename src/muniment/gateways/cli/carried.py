"""What a transfer between this machine and a volume has done, and how it is told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from muniment.gateways.cli import exit_codes
from muniment.gateways.cli.context import Context
from muniment.gateways.cli.show import count_text, rate_text

if TYPE_CHECKING:
    from muniment.engine.results import Skipped

strict_option = click.option(
    "--strict", is_flag=True, help="Of a volume: exit code 6 if an owner, attribute or device is left out."
)
owners_option = click.option(
    "--owners/--no-owners",
    default=None,
    help="Of a volume: users and groups as they were, and set-user bits; of root's own accord only.",
)
would_option = click.option("-n", "--dry-run", is_flag=True, help="Only say what would be written.")


@dataclass(frozen=True, slots=True)
class Done:
    """One path that was brought somewhere.

    Attributes:
        skipped: files that were not.
        entry: of the log; None where it was read.
        new_bytes: of shares that were sent; None if that is not known of this path alone.
        left_out: of what was brought, facts that were not.
    """

    source: str
    target: str
    size_bytes: int
    files: int
    took_s: float
    skipped: tuple[Skipped, ...] = ()
    entry: int | None = None
    new_bytes: int | None = 0
    left_out: Counter[str] = field(default_factory=Counter)

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {
            "path": self.source,
            "target": self.target,
            "size_bytes": self.size_bytes,
            "files": self.files,
            "new_bytes": self.new_bytes,
            "entry": self.entry,
            "skipped": [{"path": s.path, "reason": s.reason} for s in self.skipped],
            "left_out": dict(sorted(self.left_out.items())),
            "seconds": round(self.took_s, 3),
        }


def tell(context: Context, key: str, done: list[Done], not_done: str, *, strict: bool = False) -> int:
    """Remarks and the document; returns the exit code.

    Args:
        not_done: what is said of files that were skipped.
        strict: facts that were left out are a failure too.
    """
    for one in done:
        rate = rate_text(one.size_bytes, one.took_s)
        entry = f", entry {one.entry}" if one.entry is not None else ""
        files = f"{count_text(one.files, 'file')}, " if one.files != 1 else ""
        context.remark(f"{one.source} -> {one.target}: {files}{rate}{entry}")
        for skipped in one.skipped:
            context.remark(f"  {not_done}: {skipped.path}: {skipped.reason}")
        if one.left_out:
            context.remark(f"  left out: {left_out_text(one.left_out)}")
    context.emit({key: [one.document() for one in done]})
    failed = any(one.skipped or (strict and one.left_out) for one in done)
    return exit_codes.LOCAL if failed else exit_codes.OK


def left_out_text(left_out: Counter[str]) -> str:
    """In one line, the most frequent first."""
    return ", ".join(f"{what} ({count_text(count, 'time')})" for what, count in left_out.most_common())


def tell_would(context: Context, moves: list[tuple[str, str, bool]]) -> int:
    """What a dry run has found: from where, to where, and whether something is replaced there."""
    rows = [{"path": old, "target": new, "replaces": replaces} for old, new, replaces in moves]
    lines = [f"{old} -> {new}" + (" (replaced)" if replaces else "") for old, new, replaces in moves]
    context.emit({"would": rows, "dry_run": True}, "\n".join(lines))
    return exit_codes.OK

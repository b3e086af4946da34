"""Whether something here may be replaced by what is got: asked at a terminal, refused elsewhere."""

from __future__ import annotations

from pathlib import Path

import click

from muniment.gateways.cli.context import Context, Refusal


def replaces(path: Path) -> bool:
    """Whether there is something that would be gone afterwards."""
    if path.is_dir():
        return any(path.iterdir())
    return path.is_symlink() or path.is_file()


def allow(context: Context, path: Path, replace: bool) -> None:
    """Raises: Refusal: it may not be replaced."""
    if path.is_dir():
        place = path.resolve()
        for needed in (Path.cwd(), Path.home()):
            if needed.is_relative_to(place):
                raise Refusal(f"{path} holds {needed}", "restore into a new folder and move what you need")
    if replace:
        return
    what = f"{path} exists and is not empty. Delete all that it holds" if path.is_dir() else f"{path} exists"
    if not context.can_ask:
        raise Refusal(f"{path} exists", "choose another name, or replace it with --replace")
    if not click.confirm(f"{what}. Replace it?" if not path.is_dir() else f"{what}?", err=True):
        raise Refusal(f"{path} is left as it was", "choose another name")

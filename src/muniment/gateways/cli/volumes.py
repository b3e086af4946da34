"""`muni volume`: the volumes that a user has."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Any

import click

from muniment.engine.opened import LOCAL, KnownVolume, OpenVolume, right_of
from muniment.gateways.cli.agreed import DEFAULT, policy_document, policy_of, policy_options, policy_rows
from muniment.gateways.cli.checkpoints import (
    checkpoints,
    compare,
    cosigned_document,
    cosigned_text,
    newest_checkpoint,
)
from muniment.gateways.cli.context import Context, json_option, pass_context
from muniment.gateways.cli.kept import keeping_document, keeping_rows
from muniment.gateways.cli.passphrases import passphrase_of
from muniment.gateways.cli.show import bytes_text, count_text, progress_bar, table
from muniment.gateways.cli.values import CAP_HELP, Line, cap_argument
from muniment.gateways.cli.when import moment_text
from muniment.ids import id_text
from muniment.spec.act import NAME_CHARS_MAX, NOTE_CHARS_MAX, Role
from muniment.spec.volume_cap import Invitation, Right, parse_volume_cap

if TYPE_CHECKING:
    from muniment.engine.view_snapshot import SnapshotMade

ROLES = [role.name.lower() for role in Role]

own_name_option = click.option(
    "--own-name",
    type=Line(NAME_CHARS_MAX),
    metavar="NAME",
    help="What the others see you as; the log service too.  [default: your login name]",
)
role_option = click.option(
    "--role", type=click.Choice(ROLES), default="writer", show_default=True, help="What you want to be."
)
note_option = click.option(
    "--note",
    type=Line(NOTE_CHARS_MAX, empty=True),
    metavar="TEXT",
    default="",
    help="A word to the owners; the log service sees it too.",
)


def login_name() -> str:
    """What to call somebody who does not say."""
    try:
        return getpass.getuser()[:NAME_CHARS_MAX]
    except (OSError, KeyError):
        return "member"


@click.group()
@json_option
def volume() -> None:
    """Make, join and look at volumes."""


volume.add_command(checkpoints)
volume.add_command(compare)


@volume.command("create")
@click.argument("name", type=Line(NAME_CHARS_MAX))
@click.option(
    "--log",
    metavar="ADDRESS|local",
    default=LOCAL,
    show_default=True,
    help="The log service that orders its changes; local: this machine does.",
)
@policy_options(defaults=True)
@own_name_option
@json_option
@pass_context
def create(
    context: Context,
    name: str,
    log: str,
    quorum: str,
    vote_days: int,
    coding: str,
    happy: int | None,
    chunk: int,
    own_name: str | None,
) -> None:
    """Make a volume, whose first owner you are.

    Its members, their names, roles and votes are seen by its log service; content, names of files and what
    was done to them are not.
    """
    policy = policy_of(DEFAULT, quorum, vote_days, coding, happy, chunk)
    made = context.run(
        lambda: context.composition.create_volume(
            context.home,
            name,
            log,
            policy,
            own_name=own_name or login_name(),
            passphrase=passphrase_of(context),
        )
    )
    context.emit(_known(made), id_text(made.volume))
    if log == LOCAL:
        context.remark(
            "its log is on this machine only: nobody else can join, and without a copy of this home's "
            "folder the volume is lost with this machine; '--log ADDRESS' names a log service"
        )
    else:
        context.remark(f"keep its capability: muni volume cap {name} --right write")


@volume.command("list")
@json_option
@pass_context
def list_volumes(context: Context) -> None:
    """List the volumes that this home knows."""
    known = context.composition.volumes(context.home)
    rows = [["name", "volume", "log"], *([one.name, id_text(one.volume), one.log] for one in known)]
    context.emit({"volumes": [_known(one) for one in known]}, table(rows) if known else None)
    if not known:
        context.remark("no volume is known here; 'muni volume create' and 'join' bring one")


@volume.command("join", epilog=CAP_HELP)
@click.argument("capability", metavar="CAP")
@click.option(
    "--name", type=Line(NAME_CHARS_MAX), metavar="NAME", help="What to call it here.  [default: its own name]"
)
@role_option
@own_name_option
@note_option
@json_option
@pass_context
def join(
    context: Context, capability: str, name: str | None, role: str, own_name: str | None, note: str
) -> None:
    """Ask for membership by an invitation, or use a volume by a capability.

    An invitation asks the owners, who then vote.  A capability brings a volume to a new machine at once, as
    the member whose it is; nothing else is needed but the grid.
    """
    text = cap_argument(capability)
    cap = parse_volume_cap(text)
    known = context.run(
        lambda: context.composition.join_volume(
            context.home,
            text,
            name=name,
            role=Role[role.upper()],
            own_name=own_name or login_name(),
            note=note,
            passphrase=passphrase_of(context),
        )
    )
    right = None if isinstance(cap, Invitation) else cap.right.value
    document = _known(known) | {"right": right}
    context.emit(document, f"{known.name}  {id_text(known.volume)}")
    if right is None:
        context.remark(
            "an owner accepts you with 'muni member accept'; give him your id: 'muni identity show'"
        )


@volume.command("info")
@click.argument("volume", metavar="VOL")
@json_option
@pass_context
def info(context: Context, volume: str) -> None:
    """Print what a volume is and how far its log was followed.

    Who has the same number of entries and the same checkpoint has seen the same history; who has the same
    state hash too has the same files.
    """

    async def work() -> tuple[dict[str, Any], str]:
        async with context.composition.open_volume(context.home, volume, passphrase_of(context)) as opened:
            document = await opened.volume.run(lambda: _info(opened))
            return document, _info_text(document, opened)

    document, text = context.run(work)
    context.emit(document, text)
    for warning in document["keeping"]["warnings"]:
        context.warn(warning)


@volume.command("snapshot-view")
@click.argument("volume", metavar="VOL")
@click.option("-m", "--message", metavar="TEXT", default="", help="Why, for the history.")
@json_option
@pass_context
def snapshot_view(context: Context, volume: str, message: str) -> None:
    """Store and sign a volume's present state, for newcomers.

    Who is new to the volume then needs this state and the entries behind it instead of the whole log; what
    was before he can fetch later.  You vouch for the state: an audit compares it with the log and names who
    signed another one.  Newcomers look back some thousand entries, so make one every few thousand.
    """

    async def work() -> SnapshotMade:
        async with context.composition.open_files(
            context.home, volume, context.grid, passphrase_of(context)
        ) as (opened, files):
            with progress_bar(context, volume) as progress:
                return await files.snapshot_view(opened.known.folder, message=message, progress=progress)

    made = context.run(work)
    document = {
        "index": made.committed.index,
        "entries": made.size,
        "size_bytes": made.size_bytes,
        "state_hash": id_text(made.state_hash),
    }
    size = count_text(made.size, "entry", "entries")
    context.emit(document, f"{made.committed.index}  the state after {size}, {bytes_text(made.size_bytes)}")


@volume.command("fetch")
@click.argument("volume", metavar="VOL")
@json_option
@pass_context
def fetch(context: Context, volume: str) -> None:
    """Fetch a volume's whole log, where this machine began with a view snapshot.

    Everything is verified and folded from the first entry on; then all of the past can be looked at.
    Broken off, it goes on where it was the next time.  'muni audit' does it too.
    """
    entries = context.run(
        lambda: context.composition.fetch_volume(context.home, volume, passphrase_of(context))
    )
    said = f"all {count_text(entries, 'entry', 'entries')} are here" if entries else "nothing was missing"
    context.emit({"fetched": bool(entries), "entries": entries}, said)


@volume.command("move")
@click.argument("volume", metavar="VOL")
@click.argument("address", metavar="ADDRESS")
@json_option
@pass_context
def move(context: Context, volume: str, address: str) -> None:
    """Follow a volume's log at another log service from now on.

    Accepted only if the log there continues what this home has seen; see 'muni log rehost'.
    """
    moved = context.run(
        lambda: context.composition.move_volume(context.home, volume, address, passphrase_of(context))
    )
    context.emit(_known(moved), f"{moved.name} is followed at {moved.log}")


@volume.command("cap")
@click.argument("volume", metavar="VOL")
@click.option(
    "--right",
    type=click.Choice([right.value for right in Right]),
    required=True,
    help="write is all that you may; read reads; verify checks, and reads nothing.",
)
@json_option
@pass_context
def cap(context: Context, volume: str, right: str) -> None:
    """Print a capability of a volume: what brings it to another machine.

    It is yours and ends with your membership.  The one to write is your identity: keep it, and give it to
    nobody; others join by an invitation.
    """

    async def work() -> str:
        async with context.composition.open_volume(context.home, volume, passphrase_of(context)) as opened:
            return context.composition.volume_cap(opened, Right(right))

    text = context.run(work)
    context.emit({"cap": text, "right": right}, text)
    if right == Right.WRITE.value:
        context.remark("this is your identity: whoever has it can act as you, in all your volumes")


def _known(known: KnownVolume) -> dict[str, Any]:
    return {"volume": id_text(known.volume), "name": known.name, "log": known.log}


def _info(opened: OpenVolume) -> dict[str, Any]:
    """In the volume's thread."""
    volume, state = opened.volume, opened.volume.membership
    me = state.members.get(opened.held.member)
    newest = newest_checkpoint(opened)
    return _known(opened.known) | {
        "own_name": state.name,
        "right": right_of(opened.held).value,
        "member": id_text(opened.held.member),
        "role": None if me is None else me.role.name.lower(),
        "members": len(state.members),
        "waiting": len(state.joins()),
        "epoch": state.epoch,
        "rotation_due": state.rotation_due,
        "policy": policy_document(state.policy),
        "entries": volume.follower.frontier.size,
        "start": max(volume.follower.replica.start, volume.view.start),
        "folded": volume.view.size,
        "state_hash": id_text(volume.view.state_hash().digest()),
        "checkpoint": newest.note.decode(),
        "checkpoint_time_s": newest.time_s,
        "witnesses": sum(one.role is Role.WITNESS for one in state.members.values()),
        "cosigned": cosigned_document(opened, newest),
        "keeping": keeping_document(opened),
    }


def _info_text(document: dict[str, Any], opened: OpenVolume) -> str:
    entries, folded = document["entries"], document["folded"]
    waits = opened.held.member in opened.volume.membership.joins()
    role = document["role"] or ("waiting to be accepted" if waits else "no member")
    members = count_text(document["members"], "member")
    epoch = str(document["epoch"])
    if document["rotation_due"]:
        epoch += "; a member left: the next change begins a new one"
    size = count_text(entries, "entry", "entries")
    if document["checkpoint_time_s"] is not None:
        size += f", the last of {moment_text(int(document['checkpoint_time_s'] * 1e9))}"
    if document["start"]:
        size += f"; those before {document['start']} are not here ('muni volume fetch')"
    if folded < entries:
        size += f"; {folded} are read, for the next one you have no keys"
    rows = [
        ("name", document["name"]),
        ("its own name", document["own_name"]),
        ("volume", document["volume"]),
        ("log", document["log"]),
        ("you", f"{document['member']}, {role}, with the right to {document['right']}"),
        ("members", f"{members}, {document['waiting']} waiting"),
        ("epoch", epoch),
        *policy_rows(opened.volume.membership.policy),
        ("size", size),
        ("cosigned", cosigned_text(document["cosigned"], document["witnesses"])),
        *keeping_rows(document["keeping"]),
        ("state hash", document["state_hash"]),
        ("checkpoint", document["checkpoint"].split("\n\n")[0].split("\n")[2]),
    ]
    return table(rows)

"""`muni member`: who may do what in a volume, and the votes on it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import click

from muniment.core.ballots import Acceptance, Removal, Subject
from muniment.core.membership import Membership
from muniment.crypto.member import MemberSecret
from muniment.engine.opened import OpenVolume, right_of
from muniment.errors import InvalidRequest, NotCapable
from muniment.gateways.cli.agreed import policy_document, policy_of, policy_options, policy_rows
from muniment.gateways.cli.asking import confirm
from muniment.gateways.cli.context import Context, json_option, pass_context
from muniment.gateways.cli.passphrases import passphrase_of
from muniment.gateways.cli.show import SHORT_CHARS, count_text, table
from muniment.gateways.cli.volumes import ROLES, login_name, note_option, own_name_option, role_option
from muniment.ids import MemberId, id_text
from muniment.spec.act import Card, Role

_T = TypeVar("_T")
_PREFIX_CHARS_MIN: Final = 6
_MEMBER_HELP: Final = "MEMBER is an id, its first 6 characters or more, or a name that nobody else has there."
_yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask.")
_VOLUME = click.argument("volume", metavar="VOL")
_MEMBER = click.argument("who", metavar="MEMBER")


@click.group()
@json_option
def member() -> None:
    """See, invite, accept and remove the members of a volume."""


@member.command("list")
@_VOLUME
@json_option
@pass_context
def list_members(context: Context, volume: str) -> None:
    """List members, joins that wait for votes, and open votes.

    Names are what members call themselves and prove nothing; ids do.
    """

    async def work(opened: OpenVolume) -> None:
        state = opened.volume.membership
        context.emit(_document(state), _text(state, opened.held.member))

    _with(context, volume, work)


@member.command("invite")
@_VOLUME
@json_option
@pass_context
def invite(context: Context, volume: str) -> None:
    """Print the invitation of a volume: where to ask for membership.

    It holds no secret, and whoever has it can only ask.
    """

    async def work(opened: OpenVolume) -> str:
        return context.composition.volume_cap(opened, None)

    text = _with(context, volume, work)
    context.emit({"invitation": text}, text)
    context.remark("who is invited runs 'muni volume join' with it, and you 'muni member accept'")


@member.command("join")
@_VOLUME
@role_option
@own_name_option
@note_option
@json_option
@pass_context
def join(context: Context, volume: str, role: str, own_name: str | None, note: str) -> None:
    """Ask for a higher role, or for membership again, in a volume that this home knows."""
    wanted = Role[role.upper()]

    async def work(opened: OpenVolume) -> MemberId:
        if not isinstance(opened.held, MemberSecret):
            raise NotCapable(needed="volume write", given=f"volume {right_of(opened.held).value}")
        await opened.members.join(opened.held, own_name or login_name(), wanted, note)
        return opened.held.member

    asker = _with(context, volume, work)
    context.emit({"member": id_text(asker), "role": role}, f"{id_text(asker)} asks to be {role}")
    context.remark("an owner accepts you with 'muni member accept'")


@member.command("accept", epilog=_MEMBER_HELP)
@_VOLUME
@_MEMBER
@click.option("--role", type=click.Choice(ROLES), help="Only if this is what is asked for.")
@json_option
@pass_context
def accept(context: Context, volume: str, who: str, role: str | None) -> None:
    """Vote for one who asks for membership.

    Compare his id with what he told you: anybody can ask under any name.
    """
    wanted = None if role is None else Role[role.upper()]

    async def work(opened: OpenVolume) -> None:
        state = opened.volume.membership
        joins = state.joins()
        found = _find({one: join.card for one, join in joins.items()}, who, "waits for membership")
        asked = joins[found].role if wanted is None else wanted
        await opened.members.accept(found, asked)  # that role, even if he has asked for another since
        state = opened.volume.membership
        now = state.members.get(found)
        done = now is not None and now.role is asked and found not in state.joins()
        name = joins[found].card.name
        text = f"{name} ({id_text(found)}) is {asked.name.lower()} now"
        facts = {"member": id_text(found), "name": name, "role": asked.name.lower()}
        _tell(context, state, Acceptance(found, asked), facts, text, done=done)

    _with(context, volume, work)


@member.command("kick", epilog=_MEMBER_HELP)
@_VOLUME
@_MEMBER
@_yes_option
@json_option
@pass_context
def kick(context: Context, volume: str, who: str, yes: bool) -> None:
    """Vote to remove a member.

    What is written after the removal is closed to him; what he could read before, he may have copied.
    """

    async def work(opened: OpenVolume) -> None:
        before = opened.volume.membership.members
        found = _find({one: held.card for one, held in before.items()}, who, "is a member")
        name = before[found].card.name
        confirm(context, f"Remove {name} ({id_text(found)}) from {opened.known.name}?", yes=yes)
        await opened.members.kick(found)
        state = opened.volume.membership
        done = found not in state.members
        facts = {"member": id_text(found), "name": name, "epoch": state.epoch}
        text = f"{name} ({id_text(found)}) is removed; epoch {state.epoch} has new keys"
        _tell(context, state, Removal(found), facts, text, done=done)

    _with(context, volume, work)


@member.command("leave")
@_VOLUME
@_yes_option
@json_option
@pass_context
def leave(context: Context, volume: str, yes: bool) -> None:
    """End your own membership, or take your join back."""

    async def work(opened: OpenVolume) -> MemberId:
        alone = set(opened.volume.membership.members) == {opened.held.member}
        warning = "You are its only member: nobody can ever change it again. " if alone else ""
        confirm(context, f"{warning}Leave {opened.known.name}?", yes=yes)
        await opened.members.leave()
        return opened.held.member

    gone = id_text(_with(context, volume, work))
    context.emit({"member": gone, "left": True}, f"{gone} has left")


@member.command("policy")
@_VOLUME
@policy_options(defaults=False)
@json_option
@pass_context
def policy(
    context: Context,
    volume: str,
    quorum: str | None,
    vote_days: int | None,
    coding: str | None,
    happy: int | None,
    chunk: int | None,
) -> None:
    """Print what the owners agreed on, or vote to change it.

    What is stored already stays as it is coded.
    """
    changes = (quorum, vote_days, coding, happy, chunk)

    async def work(opened: OpenVolume) -> None:
        state = opened.volume.membership
        wanted = policy_of(state.policy, *changes)
        if all(change is None for change in changes):
            context.emit({"policy": policy_document(state.policy)}, table(policy_rows(state.policy)))
            return
        await opened.members.change_policy(wanted)
        state = opened.volume.membership
        done = state.policy == wanted
        text = table(policy_rows(wanted))
        _tell(context, state, wanted, {"policy": policy_document(wanted)}, text, done=done)

    _with(context, volume, work)


@member.command("rotate")
@_VOLUME
@json_option
@pass_context
def rotate(context: Context, volume: str) -> None:
    """Begin a new epoch: new keys for the present members.

    What was written before stays readable for whoever had the keys; needed if those may have leaked.
    """

    async def work(opened: OpenVolume) -> int:
        await opened.members.rotate()
        return opened.volume.membership.epoch

    epoch = _with(context, volume, work)
    context.emit({"epoch": epoch}, f"epoch {epoch} has begun")


# --- what they share ------------------------------------------------------------------------------


def _with(context: Context, volume: str, work: Callable[[OpenVolume], Coroutine[Any, Any, _T]]) -> _T:
    """Run work on a volume, in step with its log."""

    async def run() -> _T:
        async with context.composition.open_volume(context.home, volume, passphrase_of(context)) as opened:
            return await work(opened)

    return context.run(run)


def _find(cards: dict[MemberId, Card], text: str, what: str) -> MemberId:
    """Who is meant by an id, its beginning, or a name.

    Names are chosen by their bearers: one that is another's id, or its beginning, is ambiguous.
    Raises: InvalidRequest: nobody, or several.
    """
    found = [
        one
        for one, card in cards.items()
        if card.name == text or (len(text) >= _PREFIX_CHARS_MIN and id_text(one).startswith(text))
    ]
    exact = [one for one in found if id_text(one) == text]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if not found:
        raise InvalidRequest(reason=f"nobody called {text!r} {what}; 'muni member list' shows who does")
    ids = ", ".join(id_text(one) for one in found)
    raise InvalidRequest(reason=f"{text!r} may be any of {ids}: use an id")


def _needed(state: Membership) -> tuple[int, int]:
    """Votes needed at present, and of how many owners."""
    owners = sum(one.role is Role.OWNER for one in state.members.values())
    return state.policy.quorum.votes(owners), owners


def _tell(
    context: Context, state: Membership, subject: Subject, facts: dict[str, Any], text: str, *, done: bool
) -> None:
    """What a vote has come to."""
    needed, owners = _needed(state)
    votes = len(state.votes().get(subject, ()))
    missing = 0 if done else max(needed - votes, 0)
    context.emit(facts | {"done": done, "missing_votes": missing}, text if done else None)
    if not done and not context.json:
        still = f"{count_text(missing, 'vote')} of the {count_text(owners, 'owner')} still missing"
        click.echo(f"voted: {votes} of {needed} needed, {still}")


def _vote_document(subject: Subject) -> dict[str, Any]:
    match subject:
        case Acceptance(who, role):
            return {"on": "accept", "member": id_text(who), "role": role.name.lower(), "policy": None}
        case Removal(who):
            return {"on": "kick", "member": id_text(who), "role": None, "policy": None}
        case _:
            return {"on": "policy", "member": None, "role": None, "policy": policy_document(subject)}


def _document(state: Membership) -> dict[str, Any]:
    needed, owners = _needed(state)
    return {
        "members": [
            {
                "member": id_text(one),
                "name": held.card.name,
                "role": held.role.name.lower(),
                "since": held.since,
            }
            for one, held in state.members.items()
        ],
        "joins": [
            {
                "member": id_text(one),
                "name": asks.card.name,
                "role": asks.role.name.lower(),
                "note": asks.note,
                "index": asks.index,
            }
            for one, asks in state.joins().items()
        ],
        "votes": [
            _vote_document(subject) | {"voters": [id_text(voter) for voter in voters]}
            for subject, voters in state.votes().items()
        ],
        "owners": owners,
        "needed_votes": needed,
    }


def _text(state: Membership, me: MemberId) -> str:
    needed, owners = _needed(state)
    names = {one: held.card.name for one, held in state.members.items()}
    names |= {one: asks.card.name for one, asks in state.joins().items()}
    rows = [["member", "role", "name", ""]]
    for one, held in state.members.items():
        rows.append([id_text(one), held.role.name.lower(), held.card.name, "you" if one == me else ""])
    for one, asks in state.joins().items():
        note = f"waits: {asks.note}" if asks.note else "waits"
        rows.append([id_text(one), asks.role.name.lower(), asks.card.name, note])
    lines = [table(rows)]
    for subject, voters in state.votes().items():
        told = _vote_document(subject)
        what = told["on"]
        if told["member"]:
            whom = next(one for one in names if id_text(one) == told["member"])
            what += f" {names[whom]} ({told['member'][:SHORT_CHARS]})"
        if told["policy"]:
            what += " " + ", ".join(f"{name} {value}" for name, value in told["policy"].items())
        by = ", ".join(names.get(voter, id_text(voter)[:SHORT_CHARS]) for voter in voters)
        lines.append(f"vote: {what}: {len(voters)} of {needed} needed, by {by}")
    lines.append(f"{count_text(needed, 'vote')} of {count_text(owners, 'owner')} decide")
    return "\n".join(lines)

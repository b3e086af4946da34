"""`muni volume checkpoints` and `compare`: what members have seen of a log, held against each other."""

from __future__ import annotations

import base64
import contextlib
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from muniment.engine.comparing import Compared
from muniment.engine.comparing import compare as compare_notes
from muniment.engine.seen import SeenCheckpoint, entry_time_ns, exported, seen_checkpoints, seen_sizes
from muniment.errors import FileFailed, MalformedRecord
from muniment.gateways.cli.authors import author_name
from muniment.gateways.cli.context import Context, Refusal, json_option, limit_option, pass_context
from muniment.gateways.cli.passphrases import passphrase_of
from muniment.gateways.cli.show import count_text, table
from muniment.gateways.cli.when import moment_text
from muniment.ids import id_text
from muniment.spec.checkpoint import NOTES_BYTES_MAX, NOTES_MAX, decode_notes
from muniment.spec.evidence import EVIDENCE_BYTES_MAX
from muniment.spec.tags import EVIDENCE_MAGIC

if TYPE_CHECKING:
    from muniment.engine.opened import OpenVolume

_VOLUME = click.argument("volume", metavar="VOL")
_STDIO: Final = "-"


@dataclass(frozen=True, slots=True)
class Newest:
    """The checkpoint to show to others.

    Attributes:
        note: empty before the first.
        time_s: when its last entry was made, by its author's clock; None if that is not here yet.
        seen: who cosigned it; None before the first.
    """

    note: bytes
    time_s: float | None
    seen: SeenCheckpoint | None


def newest_checkpoint(opened: OpenVolume) -> Newest:
    """In the volume's thread."""
    follower = opened.volume.follower
    size = follower.seen_size
    found = seen_checkpoints(follower, _log_keys(opened), size)
    return Newest(follower.newest_note(), _time_s(opened, size), found[-1] if found else None)


def cosigned_document(opened: OpenVolume, newest: Newest) -> list[dict[str, Any]]:
    """Who cosigned it, the latest first."""
    return [] if newest.seen is None else _cosigners(opened, newest.seen)


def cosigned_text(cosigned: Sequence[dict[str, Any]], witnesses: int) -> str:
    """`by 1 of 2 witnesses: wanda 12 s ago`; members who are no witnesses can cosign as well."""
    by = sum(one["role"] == "witness" for one in cosigned)
    text = f"by {by} of {count_text(witnesses, 'witness', 'witnesses')}"
    if not cosigned:
        return text
    return f"{text}: " + ", ".join(f"{one['name']} {_ago(one['time_s'])}" for one in cosigned)


@click.command()
@_VOLUME
@limit_option
@click.option(
    "--export",
    metavar="FILE",
    help="Write them to a new file, or to - (standard output), for another member: as many as it may have.",
)
@json_option
@pass_context
def checkpoints(context: Context, volume: str, limit: int, export: str | None) -> None:
    """List the checkpoints of a volume's log that this home has seen, the newest first.

    Nobody is asked.  Who signed two that cannot both be true is a proven liar: give yours to other members,
    who hold them against theirs with 'muni volume compare'.
    """

    async def work() -> tuple[list[SeenCheckpoint], list[dict[str, Any]], int, str]:
        async with context.composition.open_offline(context.home, volume, passphrase_of(context)) as opened:

            def look() -> tuple[list[SeenCheckpoint], list[dict[str, Any]], int]:
                sizes = seen_sizes(opened.volume.follower)
                start = sizes[-(NOTES_MAX if export else limit) :][:1]
                seen = seen_checkpoints(opened.volume.follower, _log_keys(opened), *start)
                shown = [] if export else [_document(opened, one) for one in seen[: -limit - 1 : -1]]
                return seen, shown, len(sizes)

            return *await opened.volume.run(look), id_text(opened.known.volume)

    seen, shown, count, identifier = context.run(work)
    if export is not None:
        _export(context, seen, export, identifier)
        return
    rows = [["entries", "root", "last entry", "cosigned by"]]
    for one in shown:
        moment = "" if one["time_s"] is None else moment_text(int(one["time_s"] * 1e9))
        by = ", ".join(cosigner["name"] for cosigner in one["cosigned"])
        rows.append([str(one["entries"]), one["root"], moment, by])
    context.emit({"volume": identifier, "seen": count, "checkpoints": shown}, table(rows, right=(0,)))


def _export(context: Context, seen: Sequence[SeenCheckpoint], export: str, identifier: str) -> None:
    data, count = exported(seen)
    document: dict[str, Any] = {"volume": identifier, "exported": count}
    if export == _STDIO:
        if context.json:
            context.emit(document | {"notes": data.decode()})
        else:
            click.echo(data.decode(), nl=False)
        return
    _write_new(Path(export), data)
    context.emit(document | {"file": export}, f"{count_text(count, 'checkpoint')} written to {export}")
    context.remark(f"another member holds them against his: muni volume compare VOL {export}")


@click.command()
@_VOLUME
@click.argument("file", metavar="FILE|-")
@json_option
@pass_context
def compare(context: Context, volume: str, file: str) -> None:
    """Hold the checkpoints that another member has exported against this home's, and against the log.

    If the log service has shown you different logs, evidence is written, which anybody can verify, and this
    home refuses that service.  FILE may also be evidence that another member has.
    """
    data = _read(file)

    async def work() -> tuple[Compared, str]:
        async with context.composition.open_offline(context.home, volume, passphrase_of(context)) as opened:
            if data.startswith(EVIDENCE_MAGIC):
                raise await opened.volume.run(lambda: opened.volume.follower.take_evidence(data))
            notes = decode_notes(data)
            done = await compare_notes(opened.volume, notes, opened.known.former_log_keys)
            return done, id_text(opened.known.volume)

    done, identifier = context.run(work)
    document = {
        "volume": identifier,
        "consistent": True,
        "agree": done.agree,
        "beyond": done.beyond,
        "former": done.former,
        "largest": done.largest,
        "entries": done.size,
        "log_asked": done.unasked is None,
    }
    text = f"consistent: {count_text(done.agree, 'checkpoint')} of the same log"
    if done.beyond:
        text += f", {done.beyond} of a larger one that this home has not seen yet"
    context.emit(document, text)
    if done.former:
        context.remark(f"{done.former} are signed by a service that had the log before: not compared")
    if done.unasked is not None:
        context.remark(f"the log service was not asked: {done.unasked}")


# --- what they share ------------------------------------------------------------------------------


def _log_keys(opened: OpenVolume) -> tuple[bytes, ...]:
    return opened.known.log_key, *opened.known.former_log_keys


def _time_s(opened: OpenVolume, size: int) -> float | None:
    time_ns = entry_time_ns(opened.volume.follower, size)
    return None if time_ns is None else time_ns / 1e9


def _document(opened: OpenVolume, one: SeenCheckpoint) -> dict[str, Any]:
    return {
        "entries": one.checkpoint.size,
        "root": base64.b64encode(one.checkpoint.root).decode(),
        "time_s": _time_s(opened, one.checkpoint.size),
        "cosigned": _cosigners(opened, one),
    }


def _cosigners(opened: OpenVolume, one: SeenCheckpoint) -> list[dict[str, Any]]:
    members = opened.volume.membership.members
    return [
        {
            "member": id_text(member),
            "name": author_name(opened, member),
            "role": members[member].role.name.lower(),
            "time_s": time_s,
        }
        for member, time_s in sorted(one.cosigned.items(), key=lambda item: -item[1])
    ]


def _ago(time_s: int) -> str:
    seconds = max(int(time.time()) - time_s, 0)
    for unit, unit_s in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * unit_s:
            return f"{seconds // unit_s} {unit} ago"
    return f"{seconds} s ago"


def _read(file: str) -> bytes:
    """At most one byte more than what it may be.

    Raises: FileFailed; MalformedRecord: too long.
    """
    try:
        with contextlib.nullcontext(sys.stdin.buffer) if file == _STDIO else Path(file).open("rb") as stream:
            data = stream.read(NOTES_BYTES_MAX + 1)
            if data.startswith(EVIDENCE_MAGIC):
                data += stream.read(EVIDENCE_BYTES_MAX + 1 - len(data))
    except OSError as error:
        raise FileFailed(path=file, reason=error.strerror or str(error)) from error
    if len(data) > (EVIDENCE_BYTES_MAX if data.startswith(EVIDENCE_MAGIC) else NOTES_BYTES_MAX):
        raise MalformedRecord(format="file of checkpoints", reason="it is too long")
    return data


def _write_new(path: Path, data: bytes) -> None:
    """Raises: Refusal: it exists; FileFailed."""
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise Refusal(f"{path} exists", "choose another name") from error
    except OSError as error:
        raise FileFailed(path=str(path), reason=error.strerror or str(error)) from error

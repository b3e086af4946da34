"""`muni cap`: capabilities themselves; no node is asked."""

from __future__ import annotations

from typing import Any, Final

import click

from muniment.core.capabilities import weaken
from muniment.erasure.codec import Coding
from muniment.gateways.cli.context import Context, json_option, pass_context
from muniment.gateways.cli.show import table
from muniment.gateways.cli.values import CAP_HELP, cap_argument, read_cap
from muniment.ids import id_text
from muniment.spec.cap import (
    BlobFile,
    Cap,
    LiteralFile,
    LiteralFileVerify,
    ManifestFile,
    cap_text,
    parse_cap,
)
from muniment.spec.volume_cap import VOLUME_PREFIX, Invitation, VolumeCap, parse_volume_cap


@click.group()
@json_option
def cap() -> None:
    """Weaken or describe a capability."""


@cap.command("verify", epilog=CAP_HELP)
@click.argument("capability", metavar="CAP")
@json_option
@pass_context
def verify(context: Context, capability: str) -> None:
    """Print the weaker capability: it checks, and cannot read.

    Give it to whoever looks after your files.
    """
    weaker = cap_text(weaken(read_cap(capability)))
    context.emit({"cap": weaker}, weaker)


@cap.command("show", epilog=CAP_HELP)
@click.argument("capability", metavar="CAP")
@json_option
@pass_context
def show(context: Context, capability: str) -> None:
    """Print what a capability is and grants, without its secret.

    Takes those of files, folders and volumes, and invitations.
    """
    document = describe(cap_argument(capability).strip())
    context.emit(document, table([(name, str(value)) for name, value in document.items()]))


_GRANTS: Final = {
    ("file", "read"): "to read this file and to check it, for ever",
    ("file", "verify"): "to check and repair this file, not to read it",
    ("tree", "read"): "to read this folder and all below it as it was then, and to check it, for ever",
    ("tree", "verify"): "to check and repair this folder and all below it, not to read it",
    ("volume", "write"): "all that this member may do, in all his volumes: it is his identity",
    ("volume", "read"): "to read and check what this member may, as long as he is one",
    ("volume", "verify"): "to check the volume as this member may, as long as he is one; not to read it",
    ("volume", "invite"): "to ask for membership, on which the owners vote; it holds no secret",
}


def describe(text: str) -> dict[str, Any]:
    """Kind, right, what that grants, and identifiers of what it names; nothing secret.

    Raises: InvalidCap: it is none.
    """
    named = _volume(parse_volume_cap(text)) if text.startswith(VOLUME_PREFIX) else _stored(parse_cap(text))
    _, kind, right, _ = text.split(":", 3)
    return {"kind": kind, "right": right, "grants": _GRANTS[kind, right], **named}


def _volume(capability: VolumeCap | Invitation) -> dict[str, Any]:
    """Which volume, whose secret, and where the log is."""
    member = {"member": id_text(capability.member)} if isinstance(capability, VolumeCap) else {}
    return {"volume": id_text(capability.volume), **member, "log": str(capability.log)}


def _stored(capability: Cap) -> dict[str, Any]:
    """Size where it is known, first blob, coding."""
    document: dict[str, Any] = {}
    match capability:
        case LiteralFile(data):
            return {"size_bytes": len(data), "stored": "in the capability itself"}
        case BlobFile(ref):
            document["size_bytes"] = ref.plain_bytes
        case ManifestFile(_, size_bytes):
            document["size_bytes"] = size_bytes
    weaker = weaken(capability)
    if isinstance(weaker, LiteralFileVerify):
        return {"stored": "in the read capability itself"}
    shape = weaker.name.shape
    coding = Coding(shape.codec, shape.k, shape.n)
    return document | {"blob": id_text(weaker.name.blob), "coding": coding.text}

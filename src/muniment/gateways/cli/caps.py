"""`muni cap`: capabilities themselves; no node is asked."""

from __future__ import annotations

from typing import Any

import click

from muniment.core.capabilities import weaken
from muniment.erasure.codec import Coding
from muniment.gateways.cli.context import Context, json_option, pass_context
from muniment.gateways.cli.show import table
from muniment.gateways.cli.values import CAP_HELP, read_cap
from muniment.ids import id_text
from muniment.spec.cap import BlobFile, Cap, LiteralFile, LiteralFileVerify, ManifestFile, cap_text


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
    """Print what a capability is, without its secret."""
    document = describe(read_cap(capability))
    context.emit(document, table([(name, str(value)) for name, value in document.items()]))


def describe(capability: Cap) -> dict[str, Any]:
    """Kind, right, and for what it names: size, first blob, coding; nothing secret."""
    _, kind, right, _ = cap_text(capability).split(":")
    document: dict[str, Any] = {"kind": kind, "right": right}
    match capability:
        case LiteralFile(data):
            return document | {"size_bytes": len(data), "stored": "in the capability itself"}
        case BlobFile(ref):
            document["size_bytes"] = ref.plain_bytes
        case ManifestFile(_, size_bytes):
            document["size_bytes"] = size_bytes
    weaker = weaken(capability)
    if isinstance(weaker, LiteralFileVerify):
        return document | {"stored": "in the read capability itself"}
    shape = weaker.name.shape
    coding = Coding(shape.codec, shape.k, shape.n)
    return document | {"blob": id_text(weaker.name.blob), "coding": coding.text}

"""Addresses a person passes on: `mun:node:<id>@host:port`, and so for an introducer and a log service.

The id pins the key that must answer there, so an address can be sent by any way that nobody can alter, and
needs no secrecy (docs/spec/record.md section 4).
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from muniment.errors import InvalidRequest
from muniment.ids import NodeId, id_from_text, id_text

_HOST_PORT = r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9_.-]+):([0-9]{1,5})"
_FORM = re.compile(rf"mun:(node|introducer|log):([a-z2-7]{{52}})@{_HOST_PORT}")
_PLAIN_FORM = re.compile(_HOST_PORT)


class PeerKind(enum.Enum):
    """What answers at an address."""

    NODE = "node"
    INTRODUCER = "introducer"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a peer listens, and the NodeId of its key."""

    kind: PeerKind
    node: NodeId
    host_port: str

    def __str__(self) -> str:
        return f"mun:{self.kind.value}:{id_text(self.node)}@{self.host_port}"


def parse_address(text: str, kind: PeerKind | None = None) -> PeerAddress:
    """Read an address.  Raises: InvalidRequest: another form, or another kind than asked for."""
    found = _FORM.fullmatch(text.strip())
    if found is None or not 0 < int(found[4]) < 65536:
        wanted = kind.value if kind else "node"
        raise InvalidRequest(reason=f"an address looks like mun:{wanted}:ID@HOST:PORT, not {text[:200]!r}")
    address = PeerAddress(PeerKind(found[1]), NodeId(id_from_text(found[2])), f"{found[3]}:{found[4]}")
    if kind is not None and address.kind is not kind:
        raise InvalidRequest(
            reason=f"a mun:{kind.value}: address is needed, and this is a mun:{address.kind.value}: one"
        )
    return address


def is_host_port(text: str) -> bool:
    """Whether something can be connected to by this text."""
    found = _PLAIN_FORM.fullmatch(text)
    return found is not None and 0 < int(found[2]) < 65536


def parse_node(text: str) -> PeerAddress:
    """Read a node's address.  Raises: InvalidRequest."""
    return parse_address(text, PeerKind.NODE)

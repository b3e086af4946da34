"""Errors on the wire: every leaf of the error tree to a Problem and an HTTP status, and back.

The code says which leaf it is, the facts its fields.  Identifiers travel shortened (they are for people);
the receiver knows in full what it asked for.  What an error says of the machine it arose on does not travel:
paths and the system's own words are for that machine's log.  Source: docs/spec/wire.md section 4.
"""

from __future__ import annotations

import typing
from dataclasses import fields, replace
from typing import Final

from muniment import errors
from muniment.errors import MunimentError, ProtocolViolation
from muniment.ids import NodeId
from muniment.spec.wire import Problem

STATUS: Final[dict[type[MunimentError], int]] = {
    errors.InvalidCap: 400,
    errors.NotCapable: 403,
    errors.InvalidCoding: 400,
    errors.InvalidRequest: 400,
    errors.RangeOutOfBounds: 416,
    errors.TokenRejected: 401,
    errors.ClockSkewed: 401,
    errors.AccountRefused: 403,
    errors.ReservationMissing: 409,
    errors.BodyTooLarge: 413,
    errors.ShareUnknown: 404,
    errors.OperationRejected: 409,
    errors.FileRefused: 409,
    errors.ContentPruned: 410,
    errors.VolumeUnknown: 404,
    errors.JobUnknown: 404,
    errors.PathUnknown: 404,
    errors.PassphraseWrong: 403,
    errors.EntryMisplaced: 409,
    errors.AuthorChainBroken: 409,
    errors.EpochPassed: 409,
    errors.EntryTimeWrong: 409,
    errors.RotationDue: 409,
    errors.NotMember: 403,
    errors.RoleForbids: 403,
    errors.ActRefused: 409,
    errors.GrantsWrong: 409,
    errors.LastOwner: 409,
    errors.PinMismatch: 502,
    errors.ProtocolViolation: 502,
    errors.NodeLied: 502,
    errors.LogForked: 502,
    errors.MalformedRecord: 422,
    errors.UnknownVersion: 422,
    errors.ShareCorrupt: 422,
    errors.BlobCorrupt: 422,
    errors.BlobInconsistent: 422,
    errors.TooFewShares: 503,
    errors.NotHappy: 503,
    errors.NodeUnreachable: 504,
    errors.DeadlineExceeded: 504,
    errors.RosterEmpty: 503,
    errors.Overloaded: 503,
    errors.NodeDraining: 503,
    errors.GridFull: 503,
    errors.HistoryMissing: 503,
    errors.LogIncomplete: 503,
    errors.Overtaken: 503,
    errors.ConfigInvalid: 500,
    errors.FolderBusy: 500,
    errors.DiskFull: 507,
    errors.CapacityFull: 507,
    errors.QuotaFull: 507,
    errors.StoreFailed: 500,
    errors.FileFailed: 500,
    errors.GridUnknown: 500,
    errors.InternalError: 500,
}
IN_ITS_LOG: Final = "its log has the cause"
"""Told in place of a cause."""

_TOLD: Final[dict[type[MunimentError], dict[str, str]]] = {
    errors.PassphraseWrong: {"file": "a key file of its own"},
    errors.RosterEmpty: {"source": "that it follows"},
    errors.ConfigInvalid: {"where": "its configuration", "reason": IN_ITS_LOG},
    errors.FolderBusy: {"folder": "its folder"},
    errors.DiskFull: {"where": "its store"},
    errors.StoreFailed: {"where": "its store", "reason": IN_ITS_LOG},
    errors.FileFailed: {"path": "a file of its own", "reason": IN_ITS_LOG},
    errors.GridUnknown: {"home": "its home"},
    errors.InternalError: {"reason": IN_ITS_LOG},
}
"""What others are told in place of the fields that describe this machine."""

PEER_LEAVES: Final[frozenset[type[MunimentError]]] = frozenset(
    {
        errors.InvalidRequest,
        errors.RangeOutOfBounds,
        errors.TokenRejected,
        errors.ClockSkewed,
        errors.AccountRefused,
        errors.ReservationMissing,
        errors.BodyTooLarge,
        errors.ShareUnknown,
        errors.VolumeUnknown,
        errors.EntryMisplaced,
        errors.AuthorChainBroken,
        errors.EpochPassed,
        errors.EntryTimeWrong,
        errors.RotationDue,
        errors.NotMember,
        errors.RoleForbids,
        errors.ActRefused,
        errors.GrantsWrong,
        errors.LastOwner,
        errors.MalformedRecord,
        errors.UnknownVersion,
        errors.ShareCorrupt,
        errors.DeadlineExceeded,
        errors.Overloaded,
        errors.NodeDraining,
        errors.DiskFull,
        errors.CapacityFull,
        errors.QuotaFull,
        errors.StoreFailed,
    }
)
"""What a node or introducer may answer; any other code would be its word on our files, keys or nodes."""

_BY_CODE: Final = {leaf.code: leaf for leaf in PEER_LEAVES}
_CODE_CHARS_MAX: Final = 40
_NUMBER_MAX: Final = 1 << 63
_TEXT_CHARS_MAX: Final = 300
"""Of each text that a peer sends in an error; its messages go to logs and terminals."""


def status_of(leaf: type[MunimentError]) -> int:
    """The HTTP status of an error leaf."""
    return STATUS[leaf]


def problem_of(error: MunimentError) -> Problem:
    """What others are told of an error: code, message, hint, retry and facts.

    No secrets, since errors have none, and no word about this machine: see `withheld`.
    """
    error = _told(error)
    facts = {
        name: fact if isinstance(fact, int | float) else str(fact) for name, fact in error.facts().items()
    }
    return Problem(error.code, str(error), error.hint, error.retry.value, facts)


def withheld(error: MunimentError) -> str:
    """The message of an error of which `problem_of` does not tell all, for our own log; else empty."""
    told = _told(error)
    return "" if told is error or str(told) == str(error) else str(error)


def _told(error: MunimentError) -> MunimentError:
    told = _TOLD.get(type(error))
    return replace(error, **told) if told else error


def error_of(problem: Problem, node: NodeId) -> MunimentError:
    """The error a peer told of, as an exception of ours.

    Texts replace identifiers: the fields of the result are for messages.  Only a `node` is known in full,
    for it is the peer itself, whomever it names.

    Returns: the leaf with that code, or ProtocolViolation if a peer has none such to tell of, or its facts
        do not fit.
    """
    leaf = _BY_CODE.get(problem.code)
    if leaf is None:
        reason = f"it reports '{problem.code[:_CODE_CHARS_MAX]}': {problem.message[:_TEXT_CHARS_MAX]}"
        return ProtocolViolation(node=node, reason=reason)
    kinds = typing.get_type_hints(leaf)
    values: dict[str, object] = {}
    for field in fields(leaf):
        fact, kind = problem.facts.get(field.name), kinds[field.name]
        if fact is None:
            return ProtocolViolation(node=node, reason=f"'{problem.code}' without {field.name}")
        if field.name == "node":
            values[field.name] = node
        elif kind in (int, float):
            if not isinstance(fact, int | float) or abs(fact) > _NUMBER_MAX:
                return ProtocolViolation(node=node, reason=f"'{problem.code}' with a wrong {field.name}")
            values[field.name] = kind(fact)
        else:
            values[field.name] = str(fact)[:_TEXT_CHARS_MAX]
    return leaf(**values)

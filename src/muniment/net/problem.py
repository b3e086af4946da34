"""Errors on the wire: every leaf of the error tree to a Problem and an HTTP status, and back.

The code says which leaf it is, the facts its fields.  Identifiers travel shortened (they are for people);
the receiver knows in full what it asked for.  Source: docs/spec/wire.md section 4.
"""

from __future__ import annotations

import typing
from dataclasses import fields
from typing import Final

from muniment import errors
from muniment.errors import InternalError, MunimentError, ProtocolViolation
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
    errors.PinMismatch: 502,
    errors.ProtocolViolation: 502,
    errors.NodeLied: 502,
    errors.MalformedRecord: 422,
    errors.UnknownVersion: 422,
    errors.ShareCorrupt: 422,
    errors.BlobCorrupt: 422,
    errors.TooFewShares: 503,
    errors.NotHappy: 503,
    errors.NodeUnreachable: 504,
    errors.DeadlineExceeded: 504,
    errors.RosterEmpty: 503,
    errors.Overloaded: 503,
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
_BY_CODE: Final = {leaf.code: leaf for leaf in STATUS}


def status_of(leaf: type[MunimentError]) -> int:
    """The HTTP status of an error leaf."""
    return STATUS[leaf]


def problem_of(error: MunimentError) -> Problem:
    """What is told of an error: code, message, hint, retry and facts; no secrets, since errors have none."""
    facts = {
        name: fact if isinstance(fact, int | float) else str(fact) for name, fact in error.facts().items()
    }
    return Problem(error.code, str(error), error.hint, error.retry.value, facts)


def error_of(problem: Problem, node: NodeId) -> MunimentError:
    """The error a peer told of, as an exception of ours.

    Texts replace identifiers: the fields of the result are for messages.

    Returns: the leaf with that code, or ProtocolViolation if there is none or its facts do not fit.
    """
    leaf = _BY_CODE.get(problem.code)
    if leaf is None or leaf is InternalError:
        return ProtocolViolation(node=node, reason=f"it reports '{problem.code}': {problem.message[:200]}")
    kinds = typing.get_type_hints(leaf)
    values: dict[str, object] = {}
    for field in fields(leaf):
        fact, kind = problem.facts.get(field.name), kinds[field.name]
        if fact is None:
            return ProtocolViolation(node=node, reason=f"'{problem.code}' without {field.name}")
        if kind is tuple[str, ...]:
            values[field.name] = (str(fact),)
        elif kind in (int, float):
            if not isinstance(fact, int | float):
                return ProtocolViolation(node=node, reason=f"'{problem.code}' with a wrong {field.name}")
            values[field.name] = kind(fact)
        else:
            values[field.name] = str(fact)
    return leaf(**values)

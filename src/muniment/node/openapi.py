"""The OpenAPI 3.1 description of a service, generated from its table of calls and the message types.

A `Call` says everything about one call but how it is done; `api.py` and `introducer_api.py` bind handlers to
it.  Because parser, router and description read the same table and the same structs, they cannot drift
apart; a fuzzer that reads the description finds no answer it does not list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import msgspec

from muniment.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    DiskFull,
    InternalError,
    InvalidRequest,
    MunimentError,
    Overloaded,
    StoreFailed,
)
from muniment.net.http import JSON
from muniment.net.problem import status_of
from muniment.spec.wire import Problem

_REF: Final = "#/components/schemas/{name}"
ErrorLeaf = type[MunimentError]
EVERY_CALL: Final[tuple[ErrorLeaf, ...]] = (
    InvalidRequest,
    BodyTooLarge,
    Overloaded,
    DeadlineExceeded,
    DiskFull,
    StoreFailed,
    InternalError,
)
"""What any call may answer."""

Method = Literal["GET", "POST", "PUT"]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One value in the path, the query or a header.

    Attributes:
        kind: the annotated type that its text must convert to.
    """

    name: str
    place: Literal["path", "query", "header"]
    kind: Any
    says: str
    required: bool = True


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a service.

    Attributes:
        name: operation id, and the word for it in docs and logs.
        path: with `{name}` for each path parameter.
        says: one sentence.
        status: of success.
        request: message type of the JSON body, or a media type for a binary one, or None.
        answer: likewise.
        parameters: all of them.
        errors: leaves it may answer besides those every call may.
        unguarded: needs no token.
        extra: further success answers: status to (media type, what it is).
        body_bytes_max: longest request body.
    """

    name: str
    method: Method
    path: str
    says: str
    status: int = 200
    request: type[msgspec.Struct] | str | None = None
    answer: type[msgspec.Struct] | str | None = None
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[ErrorLeaf, ...] = ()
    unguarded: bool = False
    extra: dict[int, tuple[str, str]] = field(default_factory=dict)
    body_bytes_max: int = 0


def describe(
    title: str, version: str, calls: Sequence[Call], *, guarded: tuple[ErrorLeaf, ...], says: str
) -> bytes:
    """The description of these calls, as JSON.

    Args:
        guarded: what a call that needs a token may answer because of it.
    """
    messages = [kind for call in calls for kind in (call.request, call.answer) if isinstance(kind, type)]
    types = [*dict.fromkeys([Problem, *messages])]
    kinds = [parameter.kind for call in calls for parameter in call.parameters]
    schemas, components = msgspec.json.schema_components([*types, *kinds], ref_template=_REF)
    parameter_schemas = iter(schemas[len(types) :])
    paths: dict[str, dict[str, object]] = {}
    for call in calls:
        described = [_parameter(parameter, next(parameter_schemas)) for parameter in call.parameters]
        paths.setdefault(call.path, {})[call.method.lower()] = _operation(call, described, guarded)
    document = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "description": says, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "account": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "EdDSA token of the account, made for this node, valid for minutes.",
                }
            },
        },
    }
    return msgspec.json.encode(document)


def _parameter(parameter: Parameter, schema: dict[str, Any]) -> dict[str, object]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.says,
        "schema": schema,
    }


def _operation(
    call: Call, parameters: list[dict[str, object]], guarded: tuple[ErrorLeaf, ...]
) -> dict[str, object]:
    leaves: list[ErrorLeaf] = [*EVERY_CALL, *call.errors, *(() if call.unguarded else guarded)]
    answers: dict[str, object] = {str(call.status): _answer("Done.", call.answer)}
    for status, (media, says) in call.extra.items():
        answers[str(status)] = _answer(says, media)
    by_status: dict[int, list[str]] = {}
    for leaf in leaves:
        codes = by_status.setdefault(status_of(leaf), [])
        if leaf.code not in codes:
            codes.append(leaf.code)
    for status, codes in sorted(by_status.items()):
        answers[str(status)] = _answer("Problem: " + ", ".join(codes) + ".", Problem)
    operation: dict[str, object] = {
        "operationId": call.name,
        "summary": call.says,
        "responses": answers,
        "security": [] if call.unguarded else [{"account": []}],
    }
    if parameters:
        operation["parameters"] = parameters
    if call.request is not None:
        operation["requestBody"] = {
            "required": True,
            "description": f"At most {call.body_bytes_max} bytes.",
            "content": _content(call.request),
        }
    return operation


def _answer(says: str, kind: type[msgspec.Struct] | str | None) -> dict[str, object]:
    return {"description": says} if kind is None else {"description": says, "content": _content(kind)}


def _content(kind: type[msgspec.Struct] | str) -> dict[str, object]:
    if isinstance(kind, str):
        schema = {"type": "object"} if kind == JSON else {"type": "string", "format": "binary"}
        return {kind: {"schema": schema}}
    return {JSON: {"schema": {"$ref": _REF.format(name=kind.__name__)}}}

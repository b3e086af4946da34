"""The node's calls as a table: what `api.py` binds to handlers and `openapi.py` describes."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from muniment.errors import (
    MalformedRecord,
    MunimentError,
    QuotaFull,
    RangeOutOfBounds,
    ShareCorrupt,
    ShareUnknown,
    UnknownVersion,
)
from muniment.net.http import JSON
from muniment.node.openapi import Call, Parameter
from muniment.spec.limits import (
    BATCH_SHARES_MAX,
    CONTROL_BODY_BYTES_MAX,
    LEAVES_MAX,
    LIST_SHARES_MAX,
    PUT_BODY_BYTES_MAX,
    PUT_NAMES_MAX,
)
from muniment.spec.wire import (
    AccountUsage,
    Flags,
    HaveAnswer,
    HaveRequest,
    IdText,
    Leaf,
    LeaseRequest,
    NodeStatus,
    Number,
    Outcomes,
    ProveAnswer,
    ProveRequest,
    QuarantineList,
    ReserveRequest,
    ShareList,
    ShareNames,
)

SHARES_TYPE: Final = "application/vnd.muniment.shares"
SHARE_TYPE: Final = "application/vnd.muniment.share"
COUNT_HEADER: Final = "Muniment-Shares"
NAMES_HEADER: Final = "Muniment-Names"
RESERVING_HEADER: Final = "Muniment-Reserving"

ShareCount = Annotated[int, msgspec.Meta(ge=0, le=BATCH_SHARES_MAX)]
LeafCount = Annotated[int, msgspec.Meta(ge=1, le=LEAVES_MAX)]
RowCount = Annotated[int, msgspec.Meta(ge=1, le=LIST_SHARES_MAX)]
_KEY: Final = r"[a-z2-7]{51}[aq]\.(0|[1-9][0-9]?|1[0-9]{2}|2[0-4][0-9]|25[0-5])"
KeyText = Annotated[str, msgspec.Meta(pattern=f"^{_KEY}$")]
NamesText = Annotated[str, msgspec.Meta(pattern=f"^{_KEY}(,{_KEY}){{0,{PUT_NAMES_MAX - 1}}}$")]
ReservingText = Annotated[str, msgspec.Meta(pattern="^1$")]
RangeText = Annotated[str, msgspec.Meta(pattern="^bytes=[0-9]{0,18}-[0-9]{0,18}$")]

_BLOB: Final = Parameter("blob", "path", IdText, "BlobId.")
_NUMBER: Final = Parameter("number", "path", Number, "Share number.")
_PAGE: Final = (
    Parameter("after", "query", KeyText, "Key of the last row seen: blob.number.", required=False),
    Parameter("limit", "query", RowCount, "Rows at most.", required=False),
)
_READ_ERRORS: Final = (ShareUnknown, ShareCorrupt, RangeOutOfBounds)


def _control(
    name: str,
    path: str,
    says: str,
    request: type[msgspec.Struct],
    answer: type[msgspec.Struct] | str | None,
    *errors: type[MunimentError],
    status: int = 200,
) -> Call:
    """A call with a small JSON body."""
    return Call(
        name,
        "POST",
        path,
        says,
        status=status,
        request=request,
        answer=answer,
        errors=errors,
        body_bytes_max=CONTROL_BODY_BYTES_MAX,
    )


# One row per call; the formatter would spread each over a dozen lines.
# fmt: off
CALLS: Final = (
    Call("info", "GET", "/v1/info", "The node's signed record and present state.", answer=NodeStatus,
         unguarded=True),
    Call("openapi", "GET", "/v1/openapi.json", "This description.", answer=JSON, unguarded=True),
    _control("reserve", "/v1/reserve", "Ask for space, or for a lease on what is held already.",
             ReserveRequest, Outcomes),
    _control("release", "/v1/release", "Give reservations back.", ShareNames, None, status=204),
    Call("put", "PUT", "/v1/shares", "Store shares for which space is reserved, or asked for here.",
         request=SHARES_TYPE, answer=Outcomes, errors=(MalformedRecord, UnknownVersion),
         body_bytes_max=PUT_BODY_BYTES_MAX,
         parameters=(Parameter(COUNT_HEADER, "header", ShareCount, "How many shares the body has."),
                     Parameter(NAMES_HEADER, "header", NamesText, "All shares of the body, so that a node may"
                               " take it whole: what breaks off is released.", required=False),
                     Parameter(RESERVING_HEADER, "header", ReservingText, "Take space for shares that have"
                               " none.", required=False))),
    Call("get", "GET", "/v1/shares/{blob}/{number}", "One share record, verified, whole or a byte range.",
         answer=SHARE_TYPE, errors=_READ_ERRORS, extra={206: (SHARE_TYPE, "The range asked for.")},
         parameters=(_BLOB, _NUMBER, Parameter("Range", "header", RangeText, "One byte range of the record.",
                                               required=False))),
    _control("read", "/v1/shares/read", "Several share records, verified: for each its length in four bytes"
             " (4294967295 if it cannot be served) and the record.", ShareNames, SHARES_TYPE),
    Call("leaves", "GET", "/v1/shares/{blob}/{number}/leaves", "Consecutive leaves of a share with their"
         " proofs.", answer=ProveAnswer, errors=_READ_ERRORS,
         parameters=(_BLOB, _NUMBER, Parameter("first", "query", Leaf, "First leaf.", required=False),
                     Parameter("count", "query", LeafCount, "How many.", required=False))),
    _control("have", "/v1/have", "Which shares of these blobs are held.", HaveRequest, HaveAnswer),
    _control("prove", "/v1/prove", "Leaf and path for each challenge.", ProveRequest, ProveAnswer),
    _control("lease", "/v1/lease", "Extend leases, or own held shares as well.", LeaseRequest, Flags,
             QuotaFull),
    _control("trash", "/v1/trash", "Give shares up.", ShareNames, Flags),
    Call("list", "GET", "/v1/shares", "A page of the account's shares in key order.", answer=ShareList,
         parameters=_PAGE),
    Call("usage", "GET", "/v1/usage", "What the account holds and may hold.", answer=AccountUsage),
    Call("quarantine", "GET", "/v1/quarantine", "A page of what was found damaged or missing among the"
         " account's shares, in key order.", answer=QuarantineList, parameters=_PAGE),
)
# fmt: on

"""What the engine asks of one node: jobs, and the answers they end with.

A job is one share (or one look-up) at one node.  Lanes gather jobs of many blobs into few requests; every job
ends with exactly one answer, given to `done` on the loop and never from within a call to the lane.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from muniment.errors import MunimentError
from muniment.ids import BlobId, ShareKey, ShareNumber
from muniment.ports import Accepted, Held, Refused, ShareClaim, ShareUpload


@dataclass(frozen=True, slots=True)
class Got:
    """The share lies in its buffers, unverified."""


@dataclass(frozen=True, slots=True)
class Found:
    """The node says that it holds these shares of the blob."""

    shares: frozenset[ShareNumber]


@dataclass(frozen=True, slots=True)
class Done:
    """A release was heard (or can never be)."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The request failed as a whole; what it did at the node is unknown."""

    error: MunimentError


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """The job was taken back before it was under way, or broken off."""


Answer = Held | Accepted | Refused | Got | Found | Done | Failed | Withdrawn


@dataclass(slots=True, eq=False)
class Job:
    """One thing asked of one node.

    Attributes:
        done: hears the answer.
        size_bytes: of the share; decides batches, and which latency it is measured against.
        asked_s: loop time at which it was handed to the lane.
        tries: requests that found the node overloaded.
        unwanted: it was withdrawn; if it is under way, its request ends when nothing in it is wanted.
        ended: the answer was given.
    """

    done: Callable[[Answer], None]
    size_bytes: int = field(default=0, kw_only=True)
    asked_s: float = field(default=0.0, init=False)
    tries: int = field(default=0, init=False)
    unwanted: bool = field(default=False, init=False)
    ended: bool = field(default=False, init=False)


@dataclass(slots=True, eq=False)
class ClaimJob(Job):
    """Reserve: Held, Accepted, Refused, Failed or Withdrawn."""

    claim: ShareClaim


@dataclass(slots=True, eq=False)
class SendJob(Job):
    """Put: Held, Refused, Failed or Withdrawn.  The parts must not change until it has ended.

    Attributes:
        direct: no space was asked for before.
    """

    upload: ShareUpload
    direct: bool = False


@dataclass(slots=True, eq=False)
class FetchJob(Job):
    """Get: Got, Failed or Withdrawn.  The buffers are written to until it has ended, and not after."""

    key: ShareKey
    head: memoryview
    data: memoryview


@dataclass(slots=True, eq=False)
class LocateJob(Job):
    """Have: Found, Failed or Withdrawn."""

    blob: BlobId


@dataclass(slots=True, eq=False)
class ReleaseJob(Job):
    """Release: Done or Failed."""

    key: ShareKey

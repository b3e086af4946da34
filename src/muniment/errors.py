"""Every error Muniment raises, as one tree ordered by whose fault it is.

    MunimentError
    +-- CallerError        you asked for something that cannot be granted
    |   +-- InvalidCap, NotCapable, InvalidCoding, InvalidRequest, RangeOutOfBounds
    |   +-- TokenRejected, ClockSkewed, AccountRefused, ReservationMissing, BodyTooLarge, ShareUnknown
    |   +-- OperationRejected, FileRefused, ContentPruned
    |   +-- VolumeUnknown, PathUnknown, PassphraseWrong, JobUnknown
    |   +-- EntryRefused   an entry may not follow in its log
    |       +-- EntryMisplaced, AuthorChainBroken, EpochPassed, EntryTimeWrong, RotationDue
    |       +-- NotMember, RoleForbids, ActRefused, GrantsWrong, LastOwner
    +-- PeerError          another process lied or broke the protocol
    |   +-- PinMismatch, ProtocolViolation, NodeLied, LogForked
    +-- IntegrityError     bytes do not verify
    |   +-- MalformedRecord, UnknownVersion, ShareCorrupt, BlobCorrupt
    +-- UnavailableError   the right thing exists but cannot be had now
    |   +-- TooFewShares, NotHappy, NodeUnreachable, DeadlineExceeded, RosterEmpty, Overloaded
    |   +-- NodeDraining, GridFull, HistoryMissing, LogIncomplete, Overtaken
    +-- LocalError         this machine: disk, capacity, configuration
    |   +-- ConfigInvalid, FolderBusy, DiskFull, CapacityFull, QuotaFull, StoreFailed, FileFailed,
    |   +-- GridUnknown
    +-- InternalError      a bug in Muniment

Fault decides retry, blame and repair; wording does not.  Each leaf has fields (never a secret, never
plaintext), a stable `code` that crosses the wire, a `retry` fact, and a `hint` saying what a user does next.
Foreign exceptions are translated once, at the driver's edge.  This module imports nothing of ours.
"""

from __future__ import annotations

import base64
import enum
from dataclasses import dataclass, fields
from typing import ClassVar


class Retry(enum.Enum):
    """Whether asking again can help: never, later at the same place, or now at another place."""

    NEVER = "never"
    LATER = "later"
    ELSEWHERE = "elsewhere"


def _shown(value: object) -> object:
    """Render an identifier as the first 12 characters of its text; everything else as it is."""
    if isinstance(value, bytes):
        return base64.b32encode(value).decode().lower().rstrip("=")[:12]
    return value


@dataclass(eq=False)
class MunimentError(Exception):
    """Root of the tree; never raised itself."""

    code: ClassVar[str] = ""
    retry: ClassVar[Retry] = Retry.NEVER
    says: ClassVar[str] = ""
    hint: ClassVar[str] = ""

    def facts(self) -> dict[str, object]:
        """The error's fields by name, identifiers shortened: for logs, JSON output and the wire."""
        return {f.name: _shown(getattr(self, f.name)) for f in fields(self)}

    def __str__(self) -> str:
        return self.says.format(**self.facts())


class CallerError(MunimentError):
    """The request itself cannot be granted; asking again the same way never helps."""


class PeerError(MunimentError):
    """Another process lied or broke the protocol; ask somebody else and remember who it was."""

    retry = Retry.ELSEWHERE


class IntegrityError(MunimentError):
    """Bytes do not verify against the name or signature they came under."""


class UnavailableError(MunimentError):
    """What was asked for cannot be had at the moment."""

    retry = Retry.LATER


class LocalError(MunimentError):
    """This machine cannot do it: disk, capacity, permissions or configuration."""


# --- caller -------------------------------------------------------------------------------------


@dataclass(eq=False)
class InvalidCap(CallerError):
    """The text is not a capability: wrong prefix, characters, length or checksum."""

    reason: str
    code = "invalid-cap"
    says = "not a valid capability: {reason}"
    hint = "copy the capability again, whole; it starts with 'mun:' and ends with its checksum"


@dataclass(eq=False)
class NotCapable(CallerError):
    """The capability is valid but grants less than was asked for."""

    needed: str
    given: str
    code = "not-capable"
    says = "this needs a {needed} capability, but a {given} capability was given"
    hint = "ask whoever shared it for the stronger capability"


@dataclass(eq=False)
class InvalidCoding(CallerError):
    """k, n, happy, codec, placement or chunk size do not fit together."""

    reason: str
    code = "invalid-coding"
    says = "these coding parameters cannot work: {reason}"
    hint = "use 1 <= k <= happy <= n <= 256, for example --coding 4/6 --happy 5"


@dataclass(eq=False)
class InvalidRequest(CallerError):
    """A request or argument does not fit its schema."""

    reason: str
    code = "invalid-request"
    says = "{reason}"
    hint = "put that right and try again"


@dataclass(eq=False)
class RangeOutOfBounds(CallerError):
    """A byte range starts behind the end of what it is taken from, or ends before it starts."""

    start: int
    stop: int
    size_bytes: int
    code = "range-out-of-bounds"
    says = "range {start}-{stop} does not lie within {size_bytes} bytes"
    hint = "give a range START-STOP with START < STOP <= size"


@dataclass(eq=False)
class TokenRejected(CallerError):
    """The account token is missing, malformed, expired, signed by another key or made for another node."""

    reason: str
    code = "token-rejected"
    says = "the account token was refused: {reason}"
    hint = "check that the account key is the one the node invited"


@dataclass(eq=False)
class ClockSkewed(CallerError):
    """The token's times cannot be right by the node's clock."""

    skew_s: int
    code = "clock-skewed"
    says = "this machine's clock and the node's differ by {skew_s} s"
    hint = "set the clock (for example with NTP) and try again"


@dataclass(eq=False)
class AccountRefused(CallerError):
    """The node's policy does not admit this account."""

    account: bytes
    reason: str
    code = "account-refused"
    says = "the node does not serve account {account}: {reason}"
    hint = "ask the node's operator for an invitation"
    retry = Retry.ELSEWHERE


@dataclass(eq=False)
class ReservationMissing(CallerError):
    """A share arrived for which no space is (or is any longer) set aside."""

    blob: bytes
    share: int
    code = "reservation-missing"
    says = "no space is reserved for share {share} of blob {blob}"
    hint = "reserve first; reservations expire"


@dataclass(eq=False)
class BodyTooLarge(CallerError):
    """A request body is longer than its limit; it was not read to the end."""

    limit_bytes: int
    code = "body-too-large"
    says = "the body is larger than {limit_bytes} bytes"
    hint = "send fewer items in one request"


@dataclass(eq=False)
class ShareUnknown(CallerError):
    """The node does not hold this share."""

    blob: bytes
    share: int
    code = "share-unknown"
    says = "share {share} of blob {blob} is not here"
    hint = "ask another node"
    retry = Retry.ELSEWHERE


@dataclass(eq=False)
class PassphraseWrong(CallerError):
    """A key file is undamaged, and this passphrase does not open it."""

    file: str
    code = "passphrase-wrong"
    says = "the passphrase does not open {file}"
    hint = "type it again and mind the keyboard's layout; a forgotten passphrase cannot be recovered"


@dataclass(eq=False)
class PathUnknown(CallerError):
    """The volume has nothing under this path in the state that was asked about."""

    path: str
    code = "path-unknown"
    says = "there is no {path} in the volume"
    hint = "'muni ls' shows what there is; --at looks at an earlier state"


@dataclass(eq=False)
class JobUnknown(CallerError):
    """The queue has no job of this number: it is done, was dropped, or never was."""

    job: int
    code = "job-unknown"
    says = "there is no job {job} in the queue"
    hint = "'muni queue list' shows what there is; a job that is done is gone"


@dataclass(eq=False)
class ContentPruned(CallerError):
    """An owner let content of the past go that was asked for.

    Attributes:
        entry: the prune.
        rule: the entry with the rule that allowed it; -1: none did.
        keep_s: how long that keeps versions, in seconds.
    """

    entry: int
    rule: int
    keep_s: int
    code = "pruned"
    says = (
        "pruned: by entry {entry} under the rule of entry {rule}, by which versions are kept for {keep_s} s"
    )
    hint = "nobody has that content any more; 'muni history' shows which versions there are"


@dataclass(eq=False)
class VolumeUnknown(CallerError):
    """No such volume here: the log service does not have it, or no name of that kind was joined."""

    volume: str
    code = "volume-unknown"
    says = "there is no volume {volume} here"
    hint = (
        "'muni volume list' shows those known here, 'muni volume join' makes one known; "
        "if a log service said this, check its address"
    )


@dataclass(eq=False)
class OperationRejected(CallerError):
    """The fold found something else than an operation expects; its whole transaction changes nothing.

    `why` is the code of docs/spec/entry.md section 5, `operation` counts from 0.
    """

    why: str
    operation: int
    reason: str
    code = "operation-rejected"
    says = "the volume does not allow this: {reason} ({why})"
    hint = "nothing was changed; look at what is there now and decide again"


@dataclass(eq=False)
class FileRefused(CallerError):
    """A call on a file or folder cannot be granted, for a reason that POSIX has a name for.

    `why` is one of `fs/errnos.py`.
    """

    why: str
    reason: str
    code = "file-refused"
    says = "{reason} ({why})"
    hint = "nothing was changed; look at what is there now and decide again"


class EntryRefused(CallerError):
    """An entry may not follow in its log; never raised itself.

    To its author the leaf says what to do.  In a log that is being replayed any of them means that the
    service ordered what it had to refuse: the log is forged.
    """


@dataclass(eq=False)
class EntryMisplaced(EntryRefused):
    """The entry is of another volume, of another place in the log, or says to have seen what is not there."""

    reason: str
    code = "entry-misplaced"
    says = "the entry does not belong here: {reason}"
    hint = "check which volume it is for"


@dataclass(eq=False)
class AuthorChainBroken(EntryRefused):
    """The entry does not follow the last one of its author: a gap, a replay or another history."""

    member: bytes
    expected: int
    got: int
    code = "author-chain-broken"
    says = "entry {got} of member {member} does not follow the log, which expects entry {expected}"
    hint = "fetch the log and sign again; if nothing else writes with this key, somebody else has it"


@dataclass(eq=False)
class EpochPassed(EntryRefused):
    """The entry is sealed under the keys of another epoch than the present one."""

    epoch: int
    current: int
    code = "epoch-passed"
    says = "the entry is of epoch {epoch}, the volume has epoch {current}"
    hint = "fetch the log and seal again under the keys of the present epoch"
    retry = Retry.LATER


@dataclass(eq=False)
class EntryTimeWrong(EntryRefused):
    """The entry's time is long before that of entries which stand before it."""

    behind_s: int
    code = "entry-time-wrong"
    says = "the entry's time is {behind_s} s before the time of the log"
    hint = "set the clock, fetch the log and sign again"


@dataclass(eq=False)
class RotationDue(EntryRefused):
    """A member has left and still has the present keys: nothing is written until there are new ones."""

    epoch: int
    code = "rotation-due"
    says = "a member has left, and the keys of epoch {epoch} are not replaced yet"
    hint = "a writer or owner rotates the keys; then try again"
    retry = Retry.LATER


@dataclass(eq=False)
class NotMember(EntryRefused):
    """The author is no member of the volume, or not any more."""

    member: bytes
    code = "not-member"
    says = "{member} is not a member of this volume"
    hint = "ask its owners to be accepted"


@dataclass(eq=False)
class RoleForbids(EntryRefused):
    """The author is a member, but one of his role may not do this."""

    role: str
    act: str
    code = "role-forbids"
    says = "the role {role} does not allow to {act}"
    hint = "ask an owner to do it, or ask the owners for another role"


@dataclass(eq=False)
class ActRefused(EntryRefused):
    """A membership act that has nothing to act on, or was done already."""

    reason: str
    code = "act-refused"
    says = "this cannot be done: {reason}"
    hint = "fetch the log and look at members, joins and votes as they are now"


@dataclass(eq=False)
class GrantsWrong(EntryRefused):
    """New keys are not wrapped to exactly those who must get them."""

    reason: str
    code = "grants-wrong"
    says = "the keys are not granted to exactly those who get them: {reason}"
    hint = "fetch the log and wrap the keys for those who are members now"
    retry = Retry.LATER


@dataclass(eq=False)
class LastOwner(EntryRefused):
    """The last owner cannot go while there are other members: nobody could accept or remove anybody."""

    member: bytes
    code = "last-owner"
    says = "{member} is the last owner, and there are other members"
    hint = "make another member an owner first, or remove the others"


# --- peer ---------------------------------------------------------------------------------------


@dataclass(eq=False)
class PinMismatch(PeerError):
    """The process at this address does not hold the key that the NodeId names."""

    address: str
    expected: bytes
    got: bytes
    code = "pin-mismatch"
    says = "{address} answered as {got}, not as {expected}"
    hint = "the address is stale, or somebody answers in the node's place"


@dataclass(eq=False)
class ProtocolViolation(PeerError):
    """A peer's answer does not follow the protocol."""

    node: bytes
    reason: str
    code = "protocol-violation"
    says = "node {node} broke the protocol: {reason}"
    hint = "the node is faulty or runs an incompatible version"


@dataclass(eq=False)
class LogForked(PeerError):
    """A log service signed two histories of one volume that cannot both be true."""

    volume: bytes
    reason: str
    code = "log-forked"
    says = "the log of volume {volume} contradicts what was seen of it before: {reason}"
    hint = "show the evidence to the other members; 'muni log rehost' moves the volume to an honest service"
    retry = Retry.NEVER


@dataclass(eq=False)
class NodeLied(PeerError):
    """A node served bytes that do not verify against the BlobId."""

    node: bytes
    blob: bytes
    share: int
    reason: str
    code = "node-lied"
    says = "node {node} served a false share {share} of blob {blob}: {reason}"
    hint = "nothing was lost: the share was thrown away and another one used; tell the node's operator"


# --- integrity ----------------------------------------------------------------------------------


@dataclass(eq=False)
class MalformedRecord(IntegrityError):
    """Bytes are not a record of the named format."""

    format: str
    reason: str
    code = "malformed-record"
    says = "not a {format}: {reason}"
    hint = "the data is damaged or was never a Muniment record"


@dataclass(eq=False)
class UnknownVersion(IntegrityError):
    """The record's version is newer than this program."""

    format: str
    version: int
    code = "unknown-version"
    says = "{format} has version {version}, which this program does not know"
    hint = "update Muniment"


@dataclass(eq=False)
class ShareCorrupt(IntegrityError):
    """A share does not verify against its BlobId."""

    blob: bytes
    share: int
    reason: str
    code = "share-corrupt"
    says = "share {share} of blob {blob} does not verify: {reason}"
    hint = "the share was thrown away or quarantined; any k good ones restore the blob"
    retry = Retry.ELSEWHERE


@dataclass(eq=False)
class BlobCorrupt(IntegrityError):
    """All shares verify, but the blob does not open with the capability's key."""

    blob: bytes
    code = "blob-corrupt"
    says = "blob {blob} does not open with the key of this capability"
    hint = "whoever made the capability made it wrong; no other node can help"


@dataclass(eq=False)
class BlobInconsistent(IntegrityError):
    """Its shares verify one by one, but are not of one coding: different ones give different content."""

    blob: bytes
    code = "blob-inconsistent"
    says = "the shares of blob {blob} do not fit together"
    hint = "whoever stored it coded it wrongly; if it can be read, store the content anew"


# --- unavailable --------------------------------------------------------------------------------


@dataclass(eq=False)
class TooFewShares(UnavailableError):
    """Fewer than k good shares can be reached."""

    blob: bytes
    needed: int
    found: int
    code = "too-few-shares"
    says = "blob {blob} needs {needed} good shares, only {found} can be reached"
    hint = "try again when more nodes are up; 'muni check CAP' shows which are missing"


@dataclass(eq=False)
class NotHappy(UnavailableError):
    """Fewer than `happy` distinct nodes took a share."""

    blob: bytes
    happy: int
    placed: int
    reasons: tuple[str, ...]
    code = "not-happy"
    says = "not stored: {happy} distinct nodes must take a share of blob {blob}, {placed} did: {reasons}"
    hint = "add nodes or space, or lower --coding or --happy; a second put sends only what is missing"

    def facts(self) -> dict[str, object]:
        return {**super().facts(), "reasons": "; ".join(self.reasons) or "no other node"}


@dataclass(eq=False)
class GridFull(UnavailableError):
    """The nodes' free space is less than an upload needs; nothing of it was sent."""

    wanted_bytes: int
    room_bytes: int
    happy: int
    code = "grid-full"
    says = "{wanted_bytes} bytes do not fit: {happy} distinct nodes have room for {room_bytes} of content"
    hint = "nothing was stored; add nodes or space; if it compresses well, or is there already, try --force"


@dataclass(eq=False)
class NodeUnreachable(UnavailableError):
    """No connection to the node, log service or introducer, or it broke in the middle."""

    node: bytes
    reason: str
    code = "node-unreachable"
    says = "{node} cannot be reached: {reason}"
    hint = "check that it runs and its address is right ('muni grid status', 'muni volume list')"


@dataclass(eq=False)
class DeadlineExceeded(UnavailableError):
    """A remote call did not finish within its deadline."""

    node: bytes
    call: str
    deadline_s: float
    code = "deadline-exceeded"
    says = "node {node} did not finish '{call}' within {deadline_s} s"
    hint = "the node is slow or stopped"


@dataclass(eq=False)
class RosterEmpty(UnavailableError):
    """The roster knows no node (yet)."""

    source: str
    code = "roster-empty"
    says = "no node is known: {source} names none, or does not answer"
    hint = "start nodes, or check the address of the introducer or roster file"


@dataclass(eq=False)
class Overloaded(UnavailableError):
    """The peer has reached a stated limit of concurrent work."""

    limit: str
    code = "overloaded"
    says = "too much work at once: {limit}"
    hint = "try again shortly"


@dataclass(eq=False)
class NodeDraining(UnavailableError):
    """The node gives its shares away and takes no new ones."""

    code = "node-draining"
    says = "the node is being drained: it takes no new shares"
    hint = "use another node; this one still serves what it has"
    retry = Retry.ELSEWHERE


@dataclass(eq=False)
class Overtaken(UnavailableError):
    """Others changed the volume each time while a change was on its way into the log.

    Nothing was changed, and nobody has forbidden the change: `reason` is what the last try was told.
    """

    tries: int
    reason: str
    code = "overtaken"
    says = "others were faster {tries} times in a row: {reason}"
    hint = "try again; if nobody else writes to the volume, somebody else has this key"
    retry = Retry.LATER


@dataclass(eq=False)
class LogIncomplete(UnavailableError):
    """A log cannot be restored as a whole from its archive on the grid.

    Attributes:
        start: the first entry that is missing.
        stop: behind the last that is known to be missing; 0 where nothing is known of the log.
        who: who may have them.
    """

    volume: bytes
    start: int
    stop: int
    who: str
    code = "log-incomplete"
    says = "the archive of volume {volume} lacks {missing} of the log; {who} may have them"
    hint = (
        "try again when all nodes are up; a member adds what his home has by 'muni log rehost VOL FOLDER'; "
        "--incomplete takes what comes before, and gives up the rest"
    )

    def facts(self) -> dict[str, object]:
        last = self.stop - 1
        missing = f"entry {last}" if last == self.start else f"entries {self.start} to {last}"
        return {**super().facts(), "missing": missing if self.stop else "all entries"}


@dataclass(eq=False)
class HistoryMissing(UnavailableError):
    """This machine began with a view snapshot, and what was asked for came before it."""

    start: int
    code = "history-missing"
    says = "what came before entry {start} is not on this machine, which began with a view snapshot"
    hint = "'muni volume fetch VOL' brings the whole log"


# --- local --------------------------------------------------------------------------------------


@dataclass(eq=False)
class ConfigInvalid(LocalError):
    """Configuration is missing or wrong."""

    where: str
    reason: str
    code = "config-invalid"
    says = "{where}: {reason}"
    hint = "put that right and try again"


@dataclass(eq=False)
class FolderBusy(LocalError):
    """Another process uses this data folder."""

    folder: str
    code = "folder-busy"
    says = "another process is using {folder}"
    hint = "stop the other process, or give this one a folder of its own"


@dataclass(eq=False)
class DiskFull(LocalError):
    """The disk under a store or target has no room."""

    where: str
    code = "disk-full"
    says = "no space left on the disk of {where}"
    hint = "free space on that disk"
    retry = Retry.ELSEWHERE


@dataclass(eq=False)
class CapacityFull(LocalError):
    """The node's configured capacity does not allow another share of this size."""

    wanted_bytes: int
    free_bytes: int
    code = "capacity-full"
    says = "{wanted_bytes} bytes wanted, {free_bytes} free within the node's capacity"
    hint = "raise the node's capacity or use another node"
    retry = Retry.ELSEWHERE


@dataclass(eq=False)
class QuotaFull(LocalError):
    """The account's quota on this node does not allow another share of this size."""

    wanted_bytes: int
    free_bytes: int
    code = "quota-full"
    says = "{wanted_bytes} bytes wanted, {free_bytes} left of the account's quota"
    hint = "ask the node's operator for a larger quota or use another node"
    retry = Retry.ELSEWHERE


@dataclass(eq=False)
class StoreFailed(LocalError):
    """The store's medium refused an operation (input/output error, permission, object store failure)."""

    where: str
    reason: str
    code = "store-failed"
    says = "{where}: {reason}"
    hint = "check the disk or object store behind the node"
    retry = Retry.ELSEWHERE


@dataclass(eq=False)
class FileFailed(LocalError):
    """A local file or folder that is to be stored or restored cannot be read or written."""

    path: str
    reason: str
    code = "file-failed"
    says = "{path}: {reason}"
    hint = "check that the file exists, is readable or writable, and its disk is healthy"


@dataclass(eq=False)
class GridUnknown(LocalError):
    """No roster was named and none has been joined."""

    home: str
    code = "grid-unknown"
    says = "no grid is known yet: {home} has joined none"
    hint = (
        "join one with 'muni grid join ADDRESS', or name it with --grid or MUNIMENT_GRID; "
        "'muni demo --keep' starts one to try"
    )


@dataclass(eq=False)
class InternalError(MunimentError):
    """A bug in Muniment: an invariant does not hold."""

    reason: str
    code = "internal-error"
    says = "bug: {reason}"
    hint = "please report this with the log"

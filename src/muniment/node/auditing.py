"""The composition root's part for audits: all that a home keeps of a volume, and what it opens it with.

The log and the view are audited by `audit.volume`.  What stands beside them is held against its checksum or
against what it belongs to here: the key file or capability, kept checkpoints, and for a volume whose log is
on this machine the log service's own file and key.  Nothing is changed.
"""

from __future__ import annotations

import os
from pathlib import Path

from muniment.audit.report import AuditReport, Finding, Severity
from muniment.audit.volume import audit_volume
from muniment.crypto.member import MemberSecret, ReadSecret, VerifySecret
from muniment.engine.opened import LOCAL, KnownVolume
from muniment.errors import ConfigInvalid, IntegrityError, InvalidCap, VolumeUnknown
from muniment.ids import ID_BYTES, MemberId, VolumeId, id_text
from muniment.logs.checkpoints import FolderCheckpoints
from muniment.logs.sqlite import SqliteLog
from muniment.node.folder import read_identity, wait_lock
from muniment.node.log_host import SUFFIX
from muniment.node.volume_home import (
    CHECKPOINTS_FOLDER,
    LOCAL_KEY_FILE,
    LOCAL_LOGS_FOLDER,
    REPLICA_FILE,
    VIEW_FILE,
    Passphrase,
    damaged_settings,
    find_volume,
    holding,
    secret_file,
)
from muniment.ports import BlobChecker
from muniment.views.sqlite import SqliteView


async def audit(
    home: Path,
    name: str,
    passphrase: Passphrase,
    nodes: BlobChecker | None,
    *,
    deep: bool,
    unasked: str = "",
) -> AuditReport:
    """Audit what a home has of a volume; nothing is changed.

    Args:
        nodes: asked for blobs; None: nobody is asked.
        unasked: why nobody is, for the report.
        deep: every share is read.
    Raises: VolumeUnknown, PassphraseWrong, FileFailed, RosterEmpty.
    """
    try:
        known = find_volume(home, name, damaged=True)
    except VolumeUnknown:
        damaged = damaged_settings(home, name)
        if damaged is None:
            raise
        return _without_settings(*damaged)
    found: list[Finding] = []
    secret = _secret(home, known, passphrase, found)
    lock = await wait_lock(known.folder)
    try:
        notes = _notes(known, found)
        if known.log == LOCAL:
            await _audit_service(home, known, notes, found)
        report = await audit_volume(
            known.volume,
            secret or _outsider(),
            known.log_key,
            log=lambda: SqliteLog(known.folder / REPLICA_FILE),
            view=None if secret is None else lambda: SqliteView(known.folder / VIEW_FILE),
            notes=notes,
            blobs=nodes,
            deep=deep,
            former_log_keys=known.former_log_keys,
            found=found,
        )
        if nodes is None and unasked:
            report.blobs = unasked
        return report
    finally:
        lock.close()


def _without_settings(volume: VolumeId, error: ConfigInvalid) -> AuditReport:
    """Which key signs the log is in the settings, so without them nothing else can be judged."""
    unchecked = "not before the settings of the volume are whole"
    report = AuditReport(volume, content=unchecked, view=unchecked, blobs=unchecked)
    consequence = (
        "this home cannot use the volume, and nothing else of it was audited; no entry is lost by it"
    )
    report.damaged(error.where, error.reason, consequence)
    return report


def _secret(
    home: Path, known: KnownVolume, passphrase: Passphrase, found: list[Finding]
) -> ReadSecret | VerifySecret | None:
    """What the home opens the volume with; None if the file is damaged."""
    try:
        held = holding(home, known, passphrase)
    except (IntegrityError, InvalidCap) as error:
        consequence = "nothing that is encrypted can be opened with it; restore it from your copy"
        found.append(_damaged(str(secret_file(home, known)), str(error), consequence))
        return None
    return held.read if isinstance(held, MemberSecret) else held


def _outsider() -> VerifySecret:
    """Of nobody: what the log shows in clear is audited without any key."""
    return VerifySecret(MemberId(os.urandom(ID_BYTES)), os.urandom(ID_BYTES))


def _notes(known: KnownVolume, found: list[Finding]) -> list[bytes]:
    checkpoints = FolderCheckpoints(known.folder / CHECKPOINTS_FOLDER)
    try:
        for line in checkpoints.inspect():
            consequence = "a checkpoint that was seen is lost: evidence, if the log service forgets it too"
            found.append(_damaged("a file of kept checkpoints", line, consequence))
        return list(checkpoints.notes())
    finally:
        checkpoints.close()


async def _audit_service(home: Path, known: KnownVolume, notes: list[bytes], found: list[Finding]) -> None:
    """The log itself, from which the replica is: there is no other service that has it."""
    key = home / LOCAL_KEY_FILE
    try:
        if read_identity(key).public_key != known.log_key:
            raise ConfigInvalid(where=str(key), reason="it is not the key that signs this volume's log")
    except ConfigInvalid as error:
        consequence = (
            "nothing more can be ordered here; restore it, or give the log to a service by 'log rehost'"
        )
        found.append(_damaged(str(key), error.reason, consequence))
    path = home / LOCAL_LOGS_FOLDER / f"{id_text(known.volume)}{SUFFIX}"
    if not path.exists():
        found.append(_damaged(str(path), "it is missing", "restore it from the replica by 'log rehost'"))
        return
    report = await audit_volume(
        known.volume,
        _outsider(),
        known.log_key,
        log=lambda: SqliteLog(path),
        notes=notes,
        former_log_keys=known.former_log_keys,
    )
    found += (
        Finding(one.severity, f"{path}: {one.place}", one.what, one.consequence) for one in report.findings
    )


def _damaged(place: str, what: str, consequence: str) -> Finding:
    return Finding(Severity.DAMAGED, place, what, consequence)

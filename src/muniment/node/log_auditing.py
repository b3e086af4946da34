"""The composition root's part for audits of a log service: all that its folder holds, by whoever runs it.

All is checked that needs no key of a volume: signatures, rights, tree, checkpoints, SQLite's own check.
Nothing is changed.  A service that runs goes on: its logs are copied first, each as it is at one moment.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from muniment.audit.report import Finding, Severity
from muniment.audit.service_report import ServiceReport
from muniment.audit.volume import audit_volume
from muniment.core.clear_part import load_clear
from muniment.crypto.checkpoints import open_checkpoint
from muniment.crypto.member import VerifySecret
from muniment.durable_file import failed
from muniment.errors import (
    ConfigInvalid,
    DiskFull,
    FolderBusy,
    InvalidRequest,
    MalformedRecord,
    MunimentError,
    StoreFailed,
    UnknownVersion,
)
from muniment.ids import ID_BYTES, MemberId, VolumeId, id_from_text, id_text
from muniment.logs.clear_file import FileClear
from muniment.logs.sqlite import SqliteLog
from muniment.node import config as files
from muniment.node.folder import FolderLock, read_identity
from muniment.node.log_host import CLEAR_SUFFIX, SUFFIX
from muniment.spec.checkpoint import origin_of

_FETCH = "get the log again from a member ('muni log rehost'), or from a backup"


async def audit_logs(folder: Path) -> ServiceReport:
    """Audit all logs of a service's folder; it may run meanwhile, and then as much again must be free.

    Raises: ConfigInvalid: it is no folder of a log service; DiskFull, StoreFailed: it cannot be read at all.
    Cost: as `audit_volume` for each log, in memory of one of them.
    """
    files.load_log_config(folder)
    report = ServiceReport(folder)
    with contextlib.ExitStack() as stack:
        logs = _logs(folder, report, stack)
        key = _key(folder / files.KEY_FILE, logs, report)
        for volume, path in sorted(logs.items()):
            _check_clear(folder / files.LOGS_FOLDER / f"{id_text(volume)}{CLEAR_SUFFIX}", report)
            outsider = VerifySecret(MemberId(os.urandom(ID_BYTES)), os.urandom(ID_BYTES))
            audited = await audit_volume(volume, outsider, key, log=lambda path=path: SqliteLog(path))  # type: ignore[misc]
            audited.content = "what is encrypted is for members to audit"
            audited.blobs = "what is stored on nodes is for members to audit"
            report.logs.append(audited)
    return report


def _logs(folder: Path, report: ServiceReport, stack: contextlib.ExitStack) -> dict[VolumeId, Path]:
    """The files to audit by the volume whose log each must be: the service's own, or copies while it runs."""
    found: dict[VolumeId, Path] = {}
    logs = folder / files.LOGS_FOLDER
    try:
        names = sorted(logs.iterdir()) if logs.exists() else []
    except OSError as error:
        raise failed(logs, error) from error
    for path in names:
        if path.suffix != SUFFIX:
            continue
        try:
            found[VolumeId(id_from_text(path.stem))] = path
        except InvalidRequest:
            consequence = "no volume's log is looked for under this name; rename it back"
            report.findings.append(_damaged(path, "its name is no VolumeId", consequence))
    try:
        stack.callback(FolderLock(folder).close)
    except FolderBusy:
        return dict(_copied(found, folder, report, stack))
    return found


def _copied(
    logs: dict[VolumeId, Path], folder: Path, report: ServiceReport, stack: contextlib.ExitStack
) -> Iterator[tuple[VolumeId, Path]]:
    try:
        target = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="audit-", dir=folder)))
    except OSError as error:
        raise failed(folder, error) from error
    for volume, path in logs.items():
        copy = target / path.name
        try:
            with contextlib.closing(SqliteLog(path)) as log:
                log.backup(copy)
        except DiskFull:
            raise
        except (StoreFailed, UnknownVersion) as error:
            consequence = f"the service cannot serve this volume; {_FETCH}"
            report.findings.append(_damaged(path, f"it cannot be read: {error}", consequence))
            continue
        yield volume, copy


def _key(path: Path, logs: dict[VolumeId, Path], report: ServiceReport) -> bytes:
    """The key that signs; without it all that is signed is held against nobody's."""
    consequence = "members refuse what the service signs; restore the file from a backup"
    try:
        key = read_identity(path).public_key
    except ConfigInvalid as error:
        report.findings.append(_damaged(path, error.reason, consequence))
        return bytes(ID_BYTES)
    signed = [_signs(key, volume, log) for volume, log in logs.items()]
    if signed and not any(signed):
        what = "it is not the key that has signed the checkpoints of the logs here"
        report.findings.append(_damaged(path, what, consequence))
    return key


def _signs(key: bytes, volume: VolumeId, path: Path) -> bool:
    try:
        with contextlib.closing(SqliteLog(path)) as log:
            open_checkpoint(log.checkpoint(), key, origin=origin_of(volume))
    except MunimentError:
        return False
    return True


def _check_clear(path: Path, report: ServiceReport) -> None:
    """What is kept beside a log: a cache, but it is told when it rots."""
    data = FileClear(path).load()
    if not data:
        return
    try:
        load_clear(data)
    except (MalformedRecord, UnknownVersion) as error:
        report.findings.append(_damaged(path, str(error), "none: the service makes it anew from the log"))


def _damaged(path: Path, what: str, consequence: str) -> Finding:
    return Finding(Severity.DAMAGED, str(path), what, consequence)

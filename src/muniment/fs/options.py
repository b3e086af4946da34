"""What whoever mounts a volume decides."""

from __future__ import annotations

from dataclasses import dataclass

from muniment.spec.limits import MIB


@dataclass(frozen=True, slots=True)
class Options:
    """See docs/gateways/mount.md.

    Attributes:
        read_only: nothing can be changed.
        sync: every change of a name or attribute is in the log before its call returns.
        durable_close: closing a file that was written waits until all of it is on the grid and in the log;
            otherwise it is brought there soon, and only fsync waits.
        strict: opening a file asks the log service whether somebody else has changed anything.
        shared_locks: locks hold across all mounts of the volume, each change of them an entry.
        linger_s: so long a change for which nobody waits waits for others to share its entry.
        deadline_s: so long any call waits for nodes or the log service.
        writeback_s: what was written is saved after so long, also while the file is open.
        dirty_bytes: written and not stored yet, at most.
        cache_bytes: opened chunks kept in memory, at most.
        disk_cache_bytes: sealed chunks kept on this machine's disk, at most, by all mounts of a home.
    """

    read_only: bool = False
    sync: bool = False
    durable_close: bool = True
    strict: bool = True
    shared_locks: bool = False
    linger_s: float = 0.1
    deadline_s: float = 60.0
    writeback_s: float = 5.0
    dirty_bytes: int = 128 * MIB
    cache_bytes: int = 256 * MIB
    disk_cache_bytes: int = 1024 * MIB

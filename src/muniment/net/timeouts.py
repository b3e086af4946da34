"""How long a remote call may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Deadlines of calls, each for the whole call with connecting and retry.

    Attributes:
        connect_s: TCP and TLS handshake.
        control_s: a call without share data.
        bulk_floor_bytes_s: a transfer slower than this misses its deadline, `control_s` + bytes / floor.
    """

    connect_s: float = 5.0
    control_s: float = 15.0
    bulk_floor_bytes_s: float = 128 * 1024

    def bulk_s(self, size_bytes: int) -> float:
        """The deadline of a call that moves `size_bytes`."""
        return self.control_s + size_bytes / self.bulk_floor_bytes_s

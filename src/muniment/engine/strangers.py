"""How often a log service takes acts of those who are no members: so often for an address, and for a volume.

Whoever knows a VolumeId can ask to join and take that back.  How many such entries a log can hold is a rule
that all members check (docs/spec/entry.md section 3); how fast they come is this service's own affair.
"""

from __future__ import annotations

import ipaddress
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from muniment.errors import Overloaded
from muniment.ids import VolumeId

ADDRESSES_KEPT: Final = 4096
_VOLUMES_KEPT: Final = 100_000
_HOST_BITS_IPV6: Final = 64


@dataclass(frozen=True, slots=True)
class Rate:
    """So many at once, and one more every `every_s` seconds."""

    at_once: int
    every_s: float


ADDRESS_RATE: Final = Rate(32, 60.0)
VOLUME_RATE: Final = Rate(256, 10.0)


class Strangers:
    """Counts the acts of strangers; any thread.

    Args:
        now_s: a clock that only goes forward.
        address: for one IPv4 address, or one network of 64 bits of IPv6.
        volume: for all of them in one volume.
    """

    def __init__(
        self, now_s: Callable[[], float], *, address: Rate = ADDRESS_RATE, volume: Rate = VOLUME_RATE
    ) -> None:
        self._now_s = now_s
        self._addresses = _Buckets(address, ADDRESSES_KEPT)
        self._volumes = _Buckets(volume, _VOLUMES_KEPT)
        self._lock = threading.Lock()

    def take(self, volume: VolumeId, peer: str) -> None:
        """Count one act that came from `peer`, `address:port`.  Raises: Overloaded: there were too many."""
        now_s, address = self._now_s(), network_of(peer)
        with self._lock:
            if not self._addresses.has(address, now_s):
                raise Overloaded(limit="joins from one address; wait some minutes")
            if not self._volumes.has(volume, now_s):
                raise Overloaded(limit="joins of strangers to one volume; wait some minutes")
            self._addresses.take(address)
            self._volumes.take(volume)


class _Buckets:
    """What each has left; those who have not come for longest are forgotten first."""

    def __init__(self, rate: Rate, kept: int) -> None:
        self._rate, self._kept = rate, kept
        self._left: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def has(self, who: Hashable, now_s: float) -> bool:
        left, since_s = self._left.pop(who, (float(self._rate.at_once), now_s))
        left = min(float(self._rate.at_once), left + (now_s - since_s) / self._rate.every_s)
        self._left[who] = left, now_s
        if len(self._left) > self._kept:
            self._left.popitem(last=False)
        return left >= 1

    def take(self, who: Hashable) -> None:
        left, since_s = self._left[who]
        self._left[who] = left - 1, since_s


def network_of(peer: str) -> str:
    """What one household or machine can choose freely of its address is left out: the port, half of IPv6."""
    host = peer.rpartition(":")[0].strip("[]") or peer
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, _HOST_BITS_IPV6), strict=False))
    return str(address)

"""What processes tell their metrics when they are asked (docs/metrics.md names each value).

Blocking and cheap: one row of a ledger, sizes of files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from muniment.core.keeping.repair import Condition
from muniment.ids import id_text
from muniment.net.reading import Reading

if TYPE_CHECKING:  # a process knows one of these only
    from muniment.core.keeping.job import KindCount
    from muniment.node.introducer import IntroducerService
    from muniment.node.keepers import Post
    from muniment.node.log_host import LogStatistics
    from muniment.node.service import NodeService

_VOLUME_CHARS: Final = 12
"""Of a VolumeId, which is not for everybody: enough to tell logs apart."""


def node_readings(service: NodeService) -> Iterator[Reading]:
    """A node: space, shares, leases, and what its scrub does."""
    status = service.info()
    yield Reading("node_capacity_bytes", "What the node gives.", status.capacity_bytes)
    yield Reading("node_used_bytes", "Records of shares stored.", status.used_bytes)
    yield Reading("node_reserved_bytes", "Promised to uploads and not yet there.", status.reserved_bytes)
    yield Reading("node_shares", "Shares stored.", status.share_count)
    yield Reading("node_leases", "Leases that are not in the trash.", status.leased_count)
    yield Reading("node_leased_bytes", "Bytes under these leases.", status.leased_bytes)
    yield Reading(
        "node_quarantined", "Shares damaged or missing, once for each owner.", status.quarantined_count
    )
    yield Reading("node_reconciled", "1 when store and ledger were compared.", status.reconciled)
    yield Reading("node_draining", "1 while the node is drained.", status.draining)
    free_bytes = service.medium_bytes()
    if free_bytes is not None:
        yield Reading("node_medium_free_bytes", "What the disk has room for.", free_bytes)
    if scrub := status.scrub:
        whole_s = scrub.whole_since_s
        age_s = max(0.0, status.time_s - whole_s) if whole_s else float("inf")
        yield Reading("node_scrub_age_seconds", "Every share was read since so long; +Inf: never.", age_s)
        yield Reading("node_scrub_done_ratio", "Part of this round that is read.", scrub.done)
        yield Reading("node_scrub_read_bytes", "Read in this round.", scrub.read_bytes)
        yield Reading("node_scrub_unreadable", "Shares the medium failed to read.", scrub.unreadable_count)
        yield Reading("node_scrub_found", "Damaged or missing, in all rounds.", scrub.found_count, "counter")


def log_readings(statistics: LogStatistics) -> Iterator[Reading]:
    """A log service: how many logs, how large, and how long those that are open."""
    yield Reading("log_volumes", "Logs kept.", statistics.volumes)
    yield Reading("log_file_bytes", "Their files.", statistics.file_bytes)
    for volume, size in statistics.entries.items():
        labels = {"volume": id_text(volume)[:_VOLUME_CHARS]}
        yield Reading("log_entries", "Entries of a log that is open.", size, labels=labels)


def introducer_readings(service: IntroducerService) -> Iterator[Reading]:
    """An introducer: the nodes it knows."""
    yield Reading("introducer_records", "Nodes in the roster.", service.record_count)


def keeper_readings(posts: Sequence[Post], queue: Mapping[str, KindCount]) -> Iterator[Reading]:
    """Keepers: what they found of each volume, what they did since the start, and what there is to do."""
    for post in posts:
        yield from _post_readings(post)
    for kind in sorted({kind.partition(".")[0] for kind in queue}):
        counts = [count for name, count in queue.items() if name.partition(".")[0] == kind]
        for state, sum_ in (
            ("waiting", sum(count.waiting for count in counts)),
            ("aside", sum(count.aside for count in counts)),
        ):
            labels = {"kind": kind, "state": state}
            yield Reading("keeper_jobs", "In the queue, of all volumes of the home.", sum_, labels=labels)


def _post_readings(post: Post) -> Iterator[Reading]:
    labels = {"volume": id_text(post.known.volume)[:_VOLUME_CHARS]}

    def one(name: str, says: str, value: float, kind: str = "counter") -> Reading:
        return Reading(f"keeper_{name}", says, value, kind, labels=labels)  # type: ignore[arg-type]

    tally, repaired, standing = post.keeper.tally, post.keeper.repaired, post.archiver.standing
    for condition in Condition:
        of = {**labels, "condition": condition.value}
        count = tally.conditions[condition]
        yield Reading("keeper_blobs", "In the last scan, or the one under way.", count, labels=of)
    yield one("scans", "Ended.", tally.scans)
    yield one("proofs", "Shares proven.", tally.proofs)
    yield one("leases", "Taken or renewed.", tally.leased)
    yield one("leases_refused", "Shares without a lease since the last scan.", tally.unpaid.total(), "gauge")
    yield one("rebuilt_shares", "Rebuilt and stored.", repaired.rebuilt)
    yield one("rebuilt_bytes", "Of these shares.", repaired.rebuilt_bytes)
    yield one("moved_shares", "Brought to where placement wants them.", repaired.moved)
    yield one("read_bytes", "Read to rebuild.", repaired.read_bytes)
    yield one("collected_leases", "Given up, as nothing refers to the share.", tally.collected)
    if standing is not None:
        yield one("log_entries", "Of the volume's log.", standing.size, "gauge")
        yield one("log_archived_entries", "Of these, on the grid.", standing.archived, "gauge")
        yield one("archive_tiles", "That have them.", standing.tiles, "gauge")
        yield one("archive_weak_tiles", "Of these, with too few live shares.", standing.weak, "gauge")

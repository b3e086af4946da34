"""A home with a queue in which something is under way, something waits and something has failed."""

from __future__ import annotations

from pathlib import Path

from muniment.core.keeping.job import Outcome, encoded, new_job, new_step
from muniment.ids import id_text
from muniment.node.home_queue import open_queue

NOW_S = 1_790_000_000.0
BLOB = bytes(range(32))


def home_with_queue(home: Path) -> Path:
    """Jobs 1 (scan), 2 (repair, set aside) and 3 (move, waits), and one of a kind that nobody knows."""
    kinds = ["scan", "repair", "move"]
    with open_queue(home, make=True) as queue:
        move = new_job("move", f"{id_text(BLOB)}.3", [BLOB, 3], steps=["copy", "verify"], last=["give-up"])
        queue.add([new_job("scan", "books", priority=5), new_job("repair", id_text(BLOB)), move], NOW_S)
        scan, repair, moved = sorted(
            queue.ready(NOW_S, kinds, without=(), limit=3).jobs, key=lambda job: job.id
        )
        page = Outcome(again=True, boxes={"after": encoded(BLOB)}, progress=(1000, 4100))
        queue.done(scan, page, NOW_S)
        queue.failed(repair, "too-few-shares: blob aaaqeaye needs 4 good shares", due_s=None)
        queue.done(moved, Outcome(due_s=9e9, steps=(new_step("tell", ["who"]),)), NOW_S)
        queue.add([new_job("from-tomorrow", "x")], NOW_S)
    return home

"""`scripts/drill`: a grid of real processes, faults by a schedule, clients whose every word is checked.

Exit code 0: no wrong byte, no acknowledged write lost, and nothing else that a problem line would tell.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

import uvloop
from tests.drill.disks import enter_namespace
from tests.drill.ending import End
from tests.drill.faults import Faults
from tests.drill.history import History
from tests.drill.journal import Journal, read_journal
from tests.drill.netem import netem_permitted
from tests.drill.place import Place
from tests.drill.report import Report, count_clients, count_repairs
from tests.drill.shape import Shape


async def drill(place: Place) -> Report:
    """The whole drill; whatever happens, no process is left."""
    shape = place.shape
    report = Report(
        shape.seed,
        shape.minutes,
        f"{shape.nodes} nodes, {shape.coding}, happy {shape.happy}, {shape.budget} nodes in trouble at once",
        notes=_notes(mounts=place.mounts),
    )
    try:
        await place.begin()
        _say("the grid serves; clients and faults begin")
        await place.begin_clients()
        faults = Faults(place, Journal(place.folder / "faults.journal"))
        await faults.run(shape.seconds)
        _say("the faults are over; everything is to become whole")
        end = End(place)
        stored = await end.run()
    finally:
        for service in place.started:
            service.kill()
    journals = {name: read_journal(place.journal(name)) for name in place.members}
    history = History(journals, stored)
    history.judge()
    count_clients(report, journals)
    count_repairs(report, faults.tally.repairs)
    report.faults = dict(faults.tally.counts.most_common())
    report.keeper = place.watch.sums()
    found = end.found
    report.whole_after_s, report.blobs, report.shares = found.whole_s, found.blobs, dict(found.shares)
    report.versions, report.read_bytes = found.versions, found.read_bytes
    report.acknowledged = sum(len(register.acknowledged) for register in history.registers.values())
    report.unacknowledged_landed = report.versions - report.acknowledged
    report.wrong_bytes, report.acknowledged_lost = len(history.wrong_bytes), len(history.lost)
    report.problems += [*history.wrong_bytes, *history.lost, *history.disagreements]
    report.problems += [*faults.tally.broken, *found.problems]
    return report


def _notes(*, mounts: bool) -> list[str]:
    full = "small file systems in memory" if mounts else "lower capacities: mounting is not permitted here"
    notes = [f"full disks are {full}"]
    why = netem_permitted()
    how = f"the kernel has no netem ({why})" if why else "netem is not needed"
    return [*notes, f"cut and slow links are a relay's: {how}"]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser("scripts/drill", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="of faults; the end takes some more")
    parser.add_argument("--seed", type=int, help="of the schedule; the same again")
    parser.add_argument("--json", action="store_true", help="the report as JSON")
    given = parser.parse_args()
    mounts = enter_namespace()
    shape = Shape(given.minutes, random.randrange(1 << 31) if given.seed is None else given.seed)
    folder = Path(tempfile.mkdtemp(prefix="muniment-drill-"))
    _say(f"seed {shape.seed}; everything is in {folder}")
    place, keep = Place(folder, shape, mounts=mounts), True
    try:
        report = uvloop.run(drill(place))
        keep = bool(report.problems)
    finally:
        for disk in place.disks.values():
            disk.close(keep=keep)
        if keep:
            _say(f"kept: {folder}; again: scripts/drill --minutes {shape.minutes:g} --seed {shape.seed}")
            _say("look at faults.journal, at NAME.journal and NAME.err of each process, and at keeper.out")
        else:
            shutil.rmtree(folder)
    print(json.dumps(report.to_json()) if given.json else report.text())
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())

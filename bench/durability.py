"""What keeping costs and when data is lost, simulated with our own decisions: `python -m bench.durability`.

    formula    traffic of lazy repair against the formula, for three codings
    survival   24 months, many seeds: how many blobs are lost, by coding, repair threshold and life of a node
    detection  challenges against nodes that dropped a part of their leaves, against (1 - p)^c

Prints tables and a plot; --svg writes the plot as a file.  Seeds are printed, and --seed repeats one.
"""

from __future__ import annotations

import argparse
import math
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

from muniment.core.keeping.challenge import challenge_seed, challenged_leaf, detection
from muniment.core.keeping.survival import Hazard, LazyRepair, loss_probability
from muniment.ids import BlobId, MemberId, NodeId, ShareKey, ShareNumber, VolumeId
from muniment.testing.simulator import DAY_S, MONTH_S, Keeping, Outcome, World, simulate

_CODINGS = ((3, 6, 10), (10, 12, 14), (29, 35, 80))
_BAR = 40


def formula(seed: int, months: int) -> list[tuple[str, float, float]]:
    """Monthly traffic for each stored byte, simulated and by the formula."""
    rows = []
    for k, threshold, n in _CODINGS:
        world = World(nodes=200, zones=200, node_mttf_s=12 * MONTH_S)
        keeping = Keeping(k=k, n=n, repair_below=threshold + 1, scan_s=0.0, repair_s=0.0)
        found = simulate(world, keeping, months=months, seed=seed)
        stored = keeping.blobs * keeping.blob_bytes * months
        wanted = LazyRepair(k, threshold, n, 12.0)
        name = f"{k}/{threshold}/{n}"
        rows.append((f"{name} download", found.download_bytes / stored, wanted.download))
        rows.append((f"{name} upload", found.upload_bytes / stored, wanted.upload))
    print(f"\nlazy repair k/m/n, seed {seed}, {months} months, MTTF 12 months: a month, for each stored byte")
    print(f"{'':<20}{'simulated':>12}{'formula':>12}{'ratio':>8}")
    for name, got, expected in rows:
        bar = "#" * round(_BAR * got / max(row[1] for row in rows))
        print(f"{name:<20}{got:>12.4f}{expected:>12.4f}{got / expected:>8.3f}  {bar}")
    return rows


def _run(job: tuple[World, Keeping, int, int]) -> Outcome:
    world, keeping, months, seed = job
    return simulate(world, keeping, months=months, seed=seed)


def survival(first_seed: int, seeds: int, months: int) -> None:
    """How many blobs are lost, and what the model says for one interval."""
    base, keeping = World(), Keeping()
    cases = [
        ("4-of-10, MTTF 12 months", base, keeping),
        ("4-of-10, and zones die too", replace(base, zone_mttf_s=120 * MONTH_S), keeping),
        ("4-of-10, homes: away 5 % of the time", replace(base, up_s=4.75 * DAY_S), keeping),
        ("4-of-10, 5 % cheats and bit rot", replace(base, cheats=0.05, rot_s=240 * MONTH_S), keeping),
        ("4-of-6, MTTF 12 months", base, replace(keeping, n=6, repair_below=6)),
        (
            "4-of-6, MTTF 2 months",
            replace(base, node_mttf_s=2 * MONTH_S),
            replace(keeping, n=6, repair_below=6),
        ),
        ("4-of-6, nobody keeps", base, replace(keeping, n=6, repair_below=0)),
    ]
    print(f"\n{months} months, 100 nodes in 10 zones, 100 blobs, {seeds} seeds from {first_seed} on")
    print(f"{'':<40}{'blobs lost':>12}{'of':>9}{'fewest':>8}{'rebuilt':>9}{'model, a day':>14}")
    with ProcessPoolExecutor() as pool:
        for name, world, how in cases:
            jobs = [(world, how, months, seed) for seed in range(first_seed, first_seed + seeds)]
            found = list(pool.map(_run, jobs, chunksize=4))
            lost, blobs = sum(one.lost for one in found), how.blobs * seeds
            hazard = Hazard(world.node_mttf_s, world.zone_mttf_s, how.scan_s + how.repair_s)
            places = [
                (NodeId(bytes([at]) * 32), f"{at % world.zones}")
                for at in range(max(how.repair_below, how.k))
            ]
            model = loss_probability(how.k, places, hazard)
            fewest, rebuilt = min(one.fewest for one in found), sum(one.rebuilt for one in found) / seeds
            print(f"{name:<40}{lost:>12}{blobs:>9}{fewest:>8}{rebuilt:>9.0f}{model:>14.1e}", flush=True)


def challenges(seed: int, audits: int) -> None:
    """How often c challenges find a node that dropped a part of its leaves."""
    leaves = 64
    print(f"\n{audits} audits of shares of {leaves} leaves, seed {seed}: found by c challenges")
    print(f"{'':<10}" + "".join(f"{count:>16}" for count in (1, 5, 20, 60, 100)))
    for lost in (0.01, 0.05):
        cells = []
        for count in (1, 5, 20, 60, 100):
            found = 0
            for audit in range(audits):
                drawn = challenge_seed(
                    VolumeId(bytes(32)), seed.to_bytes(32, "big"), audit, MemberId(bytes(32))
                )
                share = ShareKey(BlobId(audit.to_bytes(32, "big")), ShareNumber(0))
                bad = lost * leaves * 1_000_000
                found += any(
                    challenged_leaf(drawn, share, leaves * 1_000_000, draw) < bad for draw in range(count)
                )
            cells.append(f"{found / audits:>8.3f}{detection(lost, count):>8.3f}")
        print(f"{lost:<10.0%}" + "".join(cells))


def plot(rows: list[tuple[str, float, float]], target: Path) -> None:
    """The first table as a picture."""
    most, width, line = max(max(row[1:]) for row in rows), 400, 26
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width + 240}" height="{line * len(rows) + 40}"'
        ' font-family="sans-serif" font-size="12">',
        '<text x="10" y="18">Repair traffic a month for each stored byte; the mark is the formula</text>',
    ]
    for at, (name, got, wanted) in enumerate(rows):
        y = 34 + at * line
        x = 150 + width * wanted / most
        parts += [
            f'<text x="10" y="{y + 12}">{name}</text>',
            f'<rect x="150" y="{y}" width="{width * got / most:.1f}" height="16" fill="#4a7ba6"/>',
            f'<line x1="{x:.1f}" y1="{y - 3}" x2="{x:.1f}" y2="{y + 19}" stroke="#c33" stroke-width="2"/>',
            f'<text x="{160 + width * got / most:.1f}" y="{y + 12}">{got:.3f}</text>',
        ]
    target.write_text("\n".join([*parts, "</svg>"]) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--months", type=int, default=24)
    parser.add_argument("--audits", type=int, default=10_000)
    parser.add_argument("--svg", type=Path, help="write the plot there")
    chosen = parser.parse_args()
    rows = formula(chosen.seed, max(120, chosen.months))
    if chosen.svg:
        plot(rows, chosen.svg)
    challenges(chosen.seed, chosen.audits)
    survival(chosen.seed, chosen.seeds, chosen.months)
    worst = max(abs(math.log(got / wanted)) for _, got, wanted in rows)
    print(f"\nfurthest from the formula: {math.expm1(worst):.1%}")


if __name__ == "__main__":
    main()

"""The drill in its shortest form, so that it is there when it is needed."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.e2e.muni_command import ROOT

WORDS = ("-m", "tests.drill", "--minutes", "0.05", "--seed", "7", "--json")


def test_the_shortest_drill_loses_nothing() -> None:
    done = subprocess.run([sys.executable, *WORDS], cwd=ROOT, capture_output=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    report = json.loads(done.stdout)
    assert (report["wrong_bytes"], report["acknowledged_lost"], report["problems"]) == (0, 0, [])
    assert report["operations"]["write"] > 0
    assert report["operations"]["read"] > 0
    assert report["versions"] >= report["acknowledged"] == report["operations"]["write"]
    assert sum(report["faults"].values()) >= 4
    assert report["shares"]["needed"] == 4 * report["blobs"]

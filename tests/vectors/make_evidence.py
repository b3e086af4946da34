"""Made `evidence_v1.json`; by hand, for a new version only: `python -m tests.vectors.make_evidence FILE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from muniment.crypto.identity import Identity
from muniment.engine.evidence import make_evidence, verify_evidence
from muniment.merkle.log_tree import inclusion_path
from muniment.spec.evidence import Charge, Contradiction, LeafProof, WrongEntry, WrongHistory
from muniment.testing.log_author import LogAuthor
from muniment.testing.lying_log import store_of


def charges(author: LogAuthor, key: Identity) -> list[Charge]:
    """One of each kind, and both kinds of contradiction."""
    volume, entries = author.volume, [author.founding]
    entries += [author.transaction(b"entry %d" % at) for at in range(6)]
    forged = entries[5][:-1] + bytes([entries[5][-1] ^ 1])
    good = store_of(volume, entries[:5], key)
    bad = store_of(volume, [*entries[:4], forged, entries[6]], key)
    same = store_of(volume, [*entries[:4], entries[6]], key)
    note = bad.checkpoint()
    return [
        Contradiction(good.checkpoint(), note, LeafProof(bad.node(0, 4), inclusion_path(4, 6, bad.node))),
        Contradiction(good.checkpoint(), same.checkpoint(), None),
        WrongEntry(note, 4, forged, inclusion_path(4, 6, bad.node), None),
        WrongHistory(same.checkpoint(), (*entries[:4], entries[6]), inclusion_path(4, 5, same.node)),
    ]


def main() -> None:
    author, key = LogAuthor.founder(77), Identity.from_seed(b"v" * 32)
    files = [make_evidence(author.volume, key.public_key, charge) for charge in charges(author, key)]
    rows = [{"file": file.hex(), "says": verify_evidence(file).says} for file in files]
    vectors = {"volume": author.volume.hex(), "log_key": key.public_key.hex(), "evidence": rows}
    Path(sys.argv[1]).write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""Made `archive_v1.json`; by hand, for a new version only: `python -m tests.vectors.make_archive FILE`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from muniment.core.keeping.tiles import seal_tile
from muniment.crypto.identity import Identity
from muniment.crypto.keeping import archive_account, archive_secret
from muniment.spec.archive import Tile
from muniment.testing.log_author import LogAuthor
from muniment.testing.lying_log import store_of


def main() -> None:
    author, key = LogAuthor.founder(78), Identity.from_seed(b"v" * 32)
    entries = [author.founding, *(author.transaction(b"entry %d" % at) for at in range(4))]
    note = store_of(author.volume, entries, key).checkpoint()
    verify = author.secret.verify
    secret = archive_secret(verify, author.volume)
    rows = []
    for number, (start, stop) in enumerate([(0, 5), (0, 1), (2, 4)]):
        salt = bytes([number]) * 32
        tile = Tile(start, key.public_key, note, tuple(entries[start:stop]))
        sealed = seal_tile(tile, secret, lambda size, salt=salt: salt[:size])  # type: ignore[misc]
        rows.append(
            {
                "start": start,
                "stop": stop,
                "salt": salt.hex(),
                "note": note.decode(),
                "entries": [entry.hex() for entry in tile.entries],
                "sealed": sealed.hex(),
            }
        )
    vectors = {
        "volume": author.volume.hex(),
        "member": verify.member.hex(),
        "verify_seed": verify.seed.hex(),
        "account": archive_account(verify, author.volume).account.hex(),
        "secret": secret.hex(),
        "log_key": key.public_key.hex(),
        "tiles": rows,
    }
    Path(sys.argv[1]).write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()

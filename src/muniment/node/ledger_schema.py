"""Tables of the ledger: every column with its meaning, unit, sentinel and invariant.

The schema carries its version in `PRAGMA user_version`.  Cost of the step from version 1: O(leases).
"""

from __future__ import annotations

from typing import Final

from muniment.sqlite_file import FileKind

APPLICATION_ID: Final = 0x4D554E4C
""""MUNL": tells a ledger from any other SQLite file."""

_SHARES: Final = """
-- Shares that the store holds durably.
CREATE TABLE shares (
    blob BLOB NOT NULL,          -- BlobId, 32 bytes
    number INTEGER NOT NULL,     -- share number, 0 to 255
    size_bytes INTEGER NOT NULL, -- whole record, head included; > 0
    stored_s REAL NOT NULL,      -- when it was recorded here, seconds since the epoch, node's clock
    PRIMARY KEY (blob, number)
) WITHOUT ROWID;

-- Who wants a share kept.  Every share has at least one.
CREATE TABLE leases (
    account BLOB NOT NULL,       -- AccountId, 32 bytes; 32 zero bytes: found in the store, owner not known
    blob BLOB NOT NULL,          -- of a row of `shares`
    number INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL, -- the share's, repeated so that sums and listings need no join
    expires_s REAL NOT NULL,     -- seconds since the epoch; never moved back
    trashed_s REAL NOT NULL,     -- 0: wanted; else since when it is in the trash, by call or by expiry
    PRIMARY KEY (account, blob, number)
) WITHOUT ROWID;
CREATE INDEX leases_by_share ON leases (blob, number);
CREATE INDEX leases_by_expiry ON leases (expires_s) WHERE trashed_s = 0;
CREATE INDEX leases_by_trash ON leases (trashed_s) WHERE trashed_s > 0;

-- Shares found damaged or missing, once for each account that had a lease; gone when stored again or trashed.
CREATE TABLE quarantine (
    account BLOB NOT NULL,       -- as in `leases`
    blob BLOB NOT NULL,          -- never in `shares` at the same time
    number INTEGER NOT NULL,
    reason TEXT NOT NULL,        -- for people
    found_s REAL NOT NULL,       -- seconds since the epoch
    PRIMARY KEY (account, blob, number)
) WITHOUT ROWID;
CREATE INDEX quarantine_by_share ON quarantine (blob, number);

-- Sums per account over `leases`; no row: nothing held.
CREATE TABLE usage (
    account BLOB PRIMARY KEY,
    used_bytes INTEGER NOT NULL,
    share_count INTEGER NOT NULL
) WITHOUT ROWID;

-- Sums over the node, one row.
CREATE TABLE totals (
    used_bytes INTEGER NOT NULL,        -- over `shares`
    share_count INTEGER NOT NULL,       -- of `shares`
    quarantined_count INTEGER NOT NULL  -- of `quarantine`
);
INSERT INTO totals VALUES (0, 0, 0);

CREATE TRIGGER share_added AFTER INSERT ON shares BEGIN
    UPDATE totals SET used_bytes = used_bytes + new.size_bytes, share_count = share_count + 1;
END;
CREATE TRIGGER share_resized AFTER UPDATE OF size_bytes ON shares WHEN new.size_bytes <> old.size_bytes BEGIN
    UPDATE totals SET used_bytes = used_bytes + new.size_bytes - old.size_bytes;
    UPDATE leases SET size_bytes = new.size_bytes WHERE blob = new.blob AND number = new.number;
END;
CREATE TRIGGER share_removed AFTER DELETE ON shares BEGIN
    UPDATE totals SET used_bytes = used_bytes - old.size_bytes, share_count = share_count - 1;
END;
CREATE TRIGGER lease_added AFTER INSERT ON leases BEGIN
    INSERT INTO usage VALUES (new.account, new.size_bytes, 1) ON CONFLICT DO UPDATE
        SET used_bytes = used_bytes + new.size_bytes, share_count = share_count + 1;
END;
CREATE TRIGGER lease_resized AFTER UPDATE OF size_bytes ON leases WHEN new.size_bytes <> old.size_bytes BEGIN
    UPDATE usage SET used_bytes = used_bytes + new.size_bytes - old.size_bytes WHERE account = new.account;
END;
CREATE TRIGGER lease_removed AFTER DELETE ON leases BEGIN
    UPDATE usage SET used_bytes = used_bytes - old.size_bytes, share_count = share_count - 1
        WHERE account = old.account;
    DELETE FROM usage WHERE account = old.account AND share_count = 0;
END;
CREATE TRIGGER quarantine_added AFTER INSERT ON quarantine BEGIN
    UPDATE totals SET quarantined_count = quarantined_count + 1;
END;
CREATE TRIGGER quarantine_removed AFTER DELETE ON quarantine BEGIN
    UPDATE totals SET quarantined_count = quarantined_count - 1;
END;
"""

_LEASED: Final = """
-- Sums over the leases that are not in the trash.
ALTER TABLE totals ADD COLUMN leased_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE totals ADD COLUMN leased_count INTEGER NOT NULL DEFAULT 0;
UPDATE totals SET leased_bytes = (SELECT coalesce(sum(size_bytes), 0) FROM leases WHERE trashed_s = 0),
    leased_count = (SELECT count(*) FROM leases WHERE trashed_s = 0);

CREATE TRIGGER wanted_added AFTER INSERT ON leases WHEN new.trashed_s = 0 BEGIN
    UPDATE totals SET leased_bytes = leased_bytes + new.size_bytes, leased_count = leased_count + 1;
END;
CREATE TRIGGER wanted_changed AFTER UPDATE OF size_bytes, trashed_s ON leases
    WHEN (new.trashed_s = 0) <> (old.trashed_s = 0) OR new.size_bytes <> old.size_bytes BEGIN
    UPDATE totals SET
        leased_bytes = leased_bytes + (new.trashed_s = 0) * new.size_bytes
            - (old.trashed_s = 0) * old.size_bytes,
        leased_count = leased_count + (new.trashed_s = 0) - (old.trashed_s = 0);
END;
CREATE TRIGGER wanted_removed AFTER DELETE ON leases WHEN old.trashed_s = 0 BEGIN
    UPDATE totals SET leased_bytes = leased_bytes - old.size_bytes, leased_count = leased_count - 1;
END;
"""

_SCRUB: Final = """
-- How far the shares have been read again, one row (`node.scrub`).
CREATE TABLE scrub (
    started_s REAL NOT NULL,      -- begin of this round, seconds since the epoch; 0: none has begun
    blob BLOB NOT NULL,           -- with `number`: the last share read in this round; empty: none
    number INTEGER NOT NULL,
    shares INTEGER NOT NULL,      -- read in this round, with their bytes
    bytes INTEGER NOT NULL,
    damaged INTEGER NOT NULL,     -- of them: did not verify, now in quarantine
    missing INTEGER NOT NULL,     -- of them: not in the store any more
    unreadable INTEGER NOT NULL,  -- of them: the medium failed, which says nothing about the share
    whole_s REAL NOT NULL,        -- begin of the last round that came to its end; 0: none has
    found INTEGER NOT NULL        -- damaged and missing, of all rounds
);
INSERT INTO scrub VALUES (0, x'', -1, 0, 0, 0, 0, 0, 0, 0);
"""

STEPS: Final = (_SHARES, _LEASED + _SCRUB)
LEDGER: Final = FileKind("ledger", APPLICATION_ID, STEPS, "move it away to have it rebuilt")

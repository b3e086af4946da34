"""Tables of a queue's file: every column with its meaning, unit, sentinel and invariant.

The schema carries its version in `PRAGMA user_version`.  A later version brings a migration from each
earlier one; a file of a later version than this program knows is refused.
"""

from __future__ import annotations

from typing import Final

from muniment.sqlite_file import FileKind

DUE: Final = 0
WAITING: Final = 1
ASIDE: Final = 2

_SCHEMA: Final = """
-- What is to be done.  Every job has at least one step.
CREATE TABLE jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, -- never given twice; the order of adding
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    args BLOB NOT NULL,                   -- canonical CBOR
    priority INTEGER NOT NULL,            -- smaller goes first
    added_s REAL NOT NULL,                -- seconds since the epoch
    due_s REAL NOT NULL,                  -- seconds since the epoch; 0: at once
    state INTEGER NOT NULL,               -- 0: due_s has come; 1: it had not when last looked; 2: set aside
    tries INTEGER NOT NULL DEFAULT 0,     -- failures of the next step in a row
    error TEXT NOT NULL DEFAULT '',       -- what the last failure said; '': the step before went well
    changes INTEGER NOT NULL DEFAULT 0,   -- how often a step was noted, done or failed
    done INTEGER NOT NULL DEFAULT 0,      -- progress, in units of the job
    total INTEGER NOT NULL DEFAULT 0,     -- 0: not known
    next_number INTEGER NOT NULL DEFAULT 0 -- of the next step that is added; never falls
) STRICT;
-- Equal jobs are one.
CREATE UNIQUE INDEX jobs_by_name ON jobs (kind, key);
CREATE INDEX jobs_due ON jobs (priority, id) WHERE state = 0;
CREATE INDEX jobs_waiting ON jobs (due_s) WHERE state = 1;

-- What is left of each job, in the order in which it is done; a step that went well is deleted.
CREATE TABLE steps (
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    last INTEGER NOT NULL,                -- 0; 1: behind all that are not
    number INTEGER NOT NULL,              -- from 0; a number, so that 10 follows 9
    name TEXT NOT NULL,
    args BLOB NOT NULL,                   -- canonical CBOR
    PRIMARY KEY (job, last, number)
) STRICT, WITHOUT ROWID;

-- What the steps of a job keep for each other, as long as the job is there.
CREATE TABLE boxes (
    job INTEGER NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    value BLOB NOT NULL,                  -- canonical CBOR
    PRIMARY KEY (job, name)
) STRICT, WITHOUT ROWID;
"""

_CLOCK: Final = """
-- Tells when the clock was set back, after which everything that waits would wait for too long.
CREATE TABLE clock (
    id INTEGER PRIMARY KEY CHECK (id = 0), -- one row
    seen_s REAL NOT NULL                   -- seconds since the epoch: when jobs were last looked for, at most
                                           -- a minute behind; 0: never
) STRICT;
INSERT INTO clock VALUES (0, 0);
"""

QUEUE: Final = FileKind(
    "work queue",
    0x4D554E51,
    (_SCHEMA, _CLOCK),
    "move it away, and what is due is found anew",
    settings=("foreign_keys = ON", "journal_size_limit = 16777216"),  # a burst must not keep the disk
)
""""MUNQ" tells it from any other file."""

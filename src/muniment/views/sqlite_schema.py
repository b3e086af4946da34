"""Tables of the SQLite view: every column with its meaning, unit, sentinel and invariant.

Temporal: a row is valid from the entry `valid_from` until the entry `valid_to`, exclusive, both indexes in
the log; the present rows have `valid_to` = OPEN.  Rows are closed, never changed otherwise, so what was true
after an entry is found the same for ever.  A row that one entry brings and takes is never written.

The clustered keys end in `valid_from`: the version of a row as of any entry is one seek.  Listings of the
present use partial indexes over the open rows, so that they cost what there is, not what there ever was.
The schema carries its version in `PRAGMA user_version`; a view is disposable, so a later version may have it
folded anew instead of migrating.
"""

from __future__ import annotations

from typing import Final

APPLICATION_ID: Final = 0x4D554E56
""""MUNV": tells a view from any other SQLite file."""

OPEN: Final = 1 << 62
"""`valid_to` of what is valid still."""

SCHEMA: Final = f"""
-- The state as a whole: one row.
CREATE TABLE meta (
    size INTEGER NOT NULL,       -- entries folded; the rows of `entries` are 0 to size - 1
    lanes BLOB NOT NULL,         -- state hash of the open rows, 2048 bytes (docs/spec/view.md section 4)
    next_inode INTEGER NOT NULL  -- as in the last row of `entries`; 2 if there is none
);

-- The log as it was folded.
CREATE TABLE entries (
    idx INTEGER PRIMARY KEY,     -- index in the log, from 0 without a gap
    hash BLOB NOT NULL,          -- leaf hash, 32 bytes
    author BLOB NOT NULL,        -- MemberId, 32 bytes
    time_ns INTEGER NOT NULL,    -- by the author's clock, nanoseconds since the epoch
    reached_ns INTEGER NOT NULL, -- largest time_ns up to here: never falls, so times can be searched
    epoch INTEGER NOT NULL,      -- of its keys
    message TEXT NOT NULL,       -- the author's words; empty for an act
    outcome INTEGER NOT NULL,    -- 0 act, 1 transaction that took effect, 2 rejected
    code TEXT NOT NULL,          -- of the rejection (docs/spec/entry.md section 5); else empty
    operation INTEGER NOT NULL,  -- that was rejected, from 0; -1: none
    reason TEXT NOT NULL,        -- of the rejection, for people; else empty
    next_inode INTEGER NOT NULL, -- the number that the next inode takes after this entry; never falls
    touched BLOB NOT NULL        -- keys it changed: MessagePack [[inode], [[folder, name]]]; else empty
);

-- Inodes.  For each number the versions follow each other without a gap, until it is removed.
CREATE TABLE inodes (
    inode INTEGER NOT NULL,      -- from 1; never used again
    kind INTEGER NOT NULL,       -- 1 to 7, as docs/spec/entry.md section 5 has them
    mode INTEGER NOT NULL,       -- permission bits
    uid INTEGER NOT NULL,        -- owner, below 2^32
    gid INTEGER NOT NULL,        -- group, below 2^32
    atime_ns INTEGER NOT NULL,   -- nanoseconds since the epoch, may be negative; as the next two
    mtime_ns INTEGER NOT NULL,   -- of the content, or of the names in a folder
    ctime_ns INTEGER NOT NULL,   -- of any change
    size INTEGER NOT NULL,       -- bytes of content with holes; 0 for what has none
    links INTEGER NOT NULL,      -- open names of it; of a folder 2 + the folders in it
    entries INTEGER NOT NULL,    -- open names in it; 0 for what is no folder
    rdev INTEGER NOT NULL,       -- of a device, 64 bits as two's complement
    version INTEGER NOT NULL,    -- idx of the entry that changed the content last, or made it
    parent INTEGER NOT NULL,     -- of a folder: where it is (root: 1); else 0
    valid_from INTEGER NOT NULL, -- idx of an entry; -1 for the root as it is before all entries
    valid_to INTEGER NOT NULL,   -- > valid_from
    PRIMARY KEY (inode, valid_from)
) WITHOUT ROWID;

-- Names in folders.
CREATE TABLE names (
    parent INTEGER NOT NULL,     -- inode of the folder
    name BLOB NOT NULL,          -- 1 to 255 bytes
    inode INTEGER NOT NULL,      -- what it leads to
    kind INTEGER NOT NULL,       -- of that inode, so that listings need no join
    valid_from INTEGER NOT NULL, -- idx of an entry
    valid_to INTEGER NOT NULL,   -- > valid_from
    PRIMARY KEY (parent, name, valid_from)
) WITHOUT ROWID;
CREATE INDEX names_open ON names (parent, name, inode, kind, valid_to) WHERE valid_to = {OPEN};

-- Content; open extents of one inode never overlap, and what none covers is a hole.
CREATE TABLE extents (
    inode INTEGER NOT NULL,         -- of a file, or of a symbolic link: its target
    offset INTEGER NOT NULL,        -- in the file, bytes
    length INTEGER NOT NULL,        -- bytes, 1 to 16 MiB: a look-up searches no further back
    blob INTEGER NOT NULL,          -- id in `blobs`; 0: the bytes are in `inlines`
    inline INTEGER NOT NULL,        -- id in `inlines`; 0: the bytes are in a blob
    source_offset INTEGER NOT NULL, -- in the blob's plaintext; 0 for inline bytes
    valid_from INTEGER NOT NULL,    -- idx of an entry
    valid_to INTEGER NOT NULL,      -- > valid_from
    PRIMARY KEY (inode, offset, valid_from)
) WITHOUT ROWID;
CREATE INDEX extents_open ON extents (inode, offset) WHERE valid_to = {OPEN};

-- Extended attributes.
CREATE TABLE xattrs (
    inode INTEGER NOT NULL,      -- that has it
    name BLOB NOT NULL,          -- 1 to 255 bytes
    value BLOB NOT NULL,         -- at most 64 KiB; empty is a value
    valid_from INTEGER NOT NULL, -- idx of an entry
    valid_to INTEGER NOT NULL,   -- > valid_from
    PRIMARY KEY (inode, name, valid_from)
) WITHOUT ROWID;
CREATE INDEX xattrs_open ON xattrs (inode, name) WHERE valid_to = {OPEN};

-- Blobs that any extent refers to or ever did, each reference once; never removed.
CREATE TABLE blobs (
    id INTEGER PRIMARY KEY,        -- from 1, in the order in which they were first referred to
    blob BLOB NOT NULL,            -- BlobId, 32 bytes; twice if a writer lied about the other columns
    codec INTEGER NOT NULL,        -- 1 Reed-Solomon, 2 replication (docs/spec/share.md)
    k INTEGER NOT NULL,            -- shares that restore it
    n INTEGER NOT NULL,            -- shares there are, k to 256
    length INTEGER NOT NULL,       -- bytes, sealed
    key BLOB NOT NULL,             -- SECRET: AES-256 key, 32 bytes; the reason for file mode 0600
    plain_bytes INTEGER NOT NULL,  -- bytes of plaintext
    compression INTEGER NOT NULL   -- 0 none, 1 zstd
);
CREATE INDEX blobs_by_id ON blobs (blob);

-- Bytes that live in entries and not in blobs; apart from `extents` so that its rows stay small.  SECRET too.
CREATE TABLE inlines (
    id INTEGER PRIMARY KEY,      -- from 1; of exactly one extent
    data BLOB NOT NULL           -- 1 to 2048 bytes
);

-- Names for states; never removed.
CREATE TABLE snapshots (
    name BLOB PRIMARY KEY,       -- 1 to 255 bytes
    idx INTEGER NOT NULL         -- entry that made it; it names the state before that entry
) WITHOUT ROWID;
"""

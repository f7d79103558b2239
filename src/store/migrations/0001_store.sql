-- The store: one file for all logical tables, laid out so that replication adds and rewrites nothing.

-- The counters of this database file. Stored, never computed from the rows: a number given out
-- once is never given out again, even after the row that carried it is gone.
CREATE TABLE node_state (
    id          INTEGER PRIMARY KEY CHECK (id = 1),
    db_uid      BLOB    NOT NULL CHECK (length(db_uid) = 16),
    incarnation INTEGER NOT NULL REFERENCES incarnations (number),
    seq         INTEGER NOT NULL,   -- writes made by the incarnation, over all tables
    lsn         INTEGER NOT NULL,   -- feed number: changes applied to this file, wherever they were made
    hlc         INTEGER NOT NULL,   -- greatest timestamp drawn or seen
    is_copy     INTEGER NOT NULL DEFAULT 0  -- 1 inside backup files, so that a restored one is told apart
) STRICT;

-- Origins of writes. Rows name them by their short number.
CREATE TABLE incarnations (
    number   INTEGER PRIMARY KEY,
    uid      BLOB    NOT NULL UNIQUE CHECK (length(uid) = 16),
    born_hlc INTEGER NOT NULL
) STRICT;

CREATE TABLE tables (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again after a drop
    uid         BLOB    NOT NULL UNIQUE CHECK (length(uid) = 16),
    owner       INTEGER NOT NULL,
    name        TEXT    NOT NULL,
    attributes  TEXT    NOT NULL,   -- separated by commas, the key field first
    scope       TEXT    NOT NULL DEFAULT 'local',
    replicated  INTEGER NOT NULL DEFAULT 0,  -- 1 once rows may have left this machine: deletions leave tombstones
    dropped     INTEGER NOT NULL DEFAULT 0,  -- 1 while its rows are being removed in the background
    records     INTEGER NOT NULL DEFAULT 0,  -- live rows
    bytes       INTEGER NOT NULL DEFAULT 0,  -- of their keys and values
    created_hlc INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX tables_by_name ON tables (owner, name) WHERE dropped = 0;

CREATE INDEX tables_dropped ON tables (id) WHERE dropped = 1;

CREATE TABLE grants (
    table_id  INTEGER NOT NULL REFERENCES tables (id) ON DELETE CASCADE,
    principal TEXT    NOT NULL,
    rights    INTEGER NOT NULL,   -- bits: read 1, write 2, admin 4
    PRIMARY KEY (table_id, principal)
) STRICT, WITHOUT ROWID;

-- A rowid table with a unique index, not WITHOUT ROWID: there, values of a kilobyte would spill
-- onto overflow pages, every one of them.
CREATE TABLE records (
    id          INTEGER PRIMARY KEY,
    table_id    INTEGER NOT NULL,
    key         BLOB    NOT NULL,
    value       BLOB,               -- the client's bytes; NULL for a tombstone
    hlc         INTEGER NOT NULL,
    incarnation INTEGER NOT NULL,   -- with hlc the place in the merge order, with seq the name of the write
    seq         INTEGER NOT NULL,
    lsn         INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX records_by_key ON records (table_id, key);

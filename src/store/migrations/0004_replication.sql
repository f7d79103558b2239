-- Copies of tables on several machines: what each has incorporated, in which order it tells others,
-- and where it stands in theirs.

-- This machine's copies. The system table is one of them.
CREATE TABLE replicas (
    uid        BLOB    PRIMARY KEY CHECK (length(uid) = 16),  -- of the table
    table_id   INTEGER UNIQUE,      -- NULL until the first rows have come, and with them its name
    life       INTEGER NOT NULL,    -- which stay of this machine's copy; 0 where there is none
    ready      INTEGER NOT NULL,    -- 1 once it is whole
    feed       BLOB    NOT NULL CHECK (length(feed) = 16),  -- another one whenever rows leave otherwise than by collection
    cut        INTEGER NOT NULL,    -- entries of the feed up to here are gone
    fed        INTEGER NOT NULL,    -- feed number of the last change
    digest     BLOB    NOT NULL CHECK (length(digest) = 32),  -- of the live rows
    tombstones INTEGER NOT NULL,
    -- Up to which writes of each origin are incorporated, and up to which its deletions were forgotten: pairs
    -- of an incarnation's number and a seq. In the row, since all of it changes with each write: one page.
    vector     BLOB    NOT NULL,
    floor      BLOB    NOT NULL
) STRICT, WITHOUT ROWID;

-- The order in which others are told of changes. An entry whose row has another feed number by now
-- says nothing. Appended to, and cut at its beginning.
CREATE TABLE feed (
    table_id INTEGER NOT NULL,
    lsn      INTEGER NOT NULL,
    record   INTEGER NOT NULL,
    PRIMARY KEY (table_id, lsn)
) STRICT, WITHOUT ROWID;

-- Where this machine stands in the copies of others.
CREATE TABLE cursors (
    table_id INTEGER NOT NULL,
    peer     TEXT    NOT NULL,   -- the other machine's name
    feed     BLOB    NOT NULL CHECK (length(feed) = 16),
    lsn      INTEGER NOT NULL,
    pass     INTEGER,            -- the number of a pass in key order that is under way; NULL for none
    whole    INTEGER,            -- 1 for a full one, 0 for one that removes nothing
    reached  BLOB,               -- the key that it has reached
    vector   BLOB,               -- what the other copy had incorporated when it began
    floor    BLOB,               -- and had forgotten
    PRIMARY KEY (table_id, peer)
) STRICT, WITHOUT ROWID;

-- Versions, by their feed number here, that a full pass has delivered.
CREATE TABLE marks (
    table_id INTEGER NOT NULL,
    peer     TEXT    NOT NULL,
    lsn      INTEGER NOT NULL,
    PRIMARY KEY (table_id, peer, lsn)
) STRICT, WITHOUT ROWID;

-- What writers had seen, each kept once: pairs of an incarnation's number and a seq.
CREATE TABLE contexts (
    id   INTEGER PRIMARY KEY AUTOINCREMENT,
    body BLOB    NOT NULL UNIQUE,
    uses INTEGER NOT NULL
) STRICT;

ALTER TABLE records ADD COLUMN context INTEGER;          -- what the writer had seen; NULL for nothing
ALTER TABLE records ADD COLUMN pushed INTEGER NOT NULL DEFAULT 0;  -- 1 where others must get it though they claim to have it
CREATE INDEX records_tombstones ON records (table_id, hlc) WHERE value IS NULL;

-- Versions that have lost against another without either writer having seen the other's. Bounded.
CREATE TABLE conflicts (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    table_id     INTEGER NOT NULL,
    key          BLOB    NOT NULL,
    value        BLOB,               -- NULL for a deletion
    hlc          INTEGER NOT NULL,
    incarnation  INTEGER NOT NULL,
    seq          INTEGER NOT NULL,
    bytes        INTEGER NOT NULL,   -- of key and value
    winner_hlc         INTEGER NOT NULL,
    winner_incarnation INTEGER NOT NULL,
    winner_seq         INTEGER NOT NULL,
    seen_ms      INTEGER NOT NULL,   -- wall clock, Unix milliseconds
    acknowledged INTEGER NOT NULL DEFAULT 0,
    UNIQUE (table_id, key, incarnation, seq)
) STRICT;

-- To count those that nobody has taken note of.
CREATE INDEX conflicts_open ON conflicts (table_id) WHERE acknowledged = 0;

-- What each table has lost of its conflicts to their bounds.
ALTER TABLE replicas ADD COLUMN conflicts_evicted INTEGER NOT NULL DEFAULT 0;

-- Tables that others may have copies of have been whole here from the beginning. Their rows are in no
-- feed: whoever wants them reads them in the order of their keys. Only writes made here are known to be
-- complete.
INSERT INTO replicas (uid, table_id, life, ready, feed, cut, fed, digest, tombstones, vector, floor)
    SELECT t.uid, t.id, t.id = 0, 1, randomblob(16), n.lsn, n.lsn, zeroblob(32),
           (SELECT count(*) FROM records r WHERE r.table_id = t.id AND r.value IS NULL),
           coalesce((SELECT unhex(printf('%016x%016x', n.incarnation, max(r.seq))) FROM records r
                     WHERE r.table_id = t.id AND r.incarnation = n.incarnation
                     HAVING count(*) > 0), x''),
           x''
    FROM tables t, node_state n WHERE t.replicated = 1 AND t.dropped = 0;

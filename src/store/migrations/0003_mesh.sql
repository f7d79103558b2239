-- A mesh of machines: owners that are not uids of this one, the rows that all nodes share, and the
-- tokens that have been used.

-- Which mesh this database belongs to, and under which name. NULL as long as there was none.
ALTER TABLE node_state ADD COLUMN mesh BLOB CHECK (length(mesh) = 16);
ALTER TABLE node_state ADD COLUMN node TEXT;

-- The owner of a table becomes text: '1000', '1000@home', or '@' and the id of a federated identity.
-- SQLite changes no column's type, so the table is made anew; the grants, which refer to it, are put
-- aside meanwhile, or they would go with the old one. Ids that were used once must stay used.
CREATE TABLE tables_3 (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again after a drop
    uid         BLOB    NOT NULL UNIQUE CHECK (length(uid) = 16),
    owner       TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    attributes  TEXT    NOT NULL,   -- separated by commas, the key field first
    scope       TEXT    NOT NULL DEFAULT 'local',
    replicated  INTEGER NOT NULL DEFAULT 0,  -- 1 once rows may have left this machine: deletions leave tombstones
    dropped     INTEGER NOT NULL DEFAULT 0,  -- 1 while its rows are being removed in the background
    records     INTEGER NOT NULL DEFAULT 0,  -- live rows
    bytes       INTEGER NOT NULL DEFAULT 0,  -- of their keys and values
    created_hlc INTEGER NOT NULL
) STRICT;
INSERT INTO tables_3
    SELECT id, uid, CAST(owner AS TEXT), name, attributes, scope, replicated, dropped, records, bytes, created_hlc
    FROM tables;
DELETE FROM sqlite_sequence WHERE name = 'tables_3';
INSERT INTO sqlite_sequence (name, seq) SELECT 'tables_3', seq FROM sqlite_sequence WHERE name = 'tables';

CREATE TABLE grants_2 (table_id INTEGER NOT NULL, principal TEXT NOT NULL, rights INTEGER NOT NULL) STRICT;
INSERT INTO grants_2 SELECT table_id, principal, rights FROM grants;
DROP TABLE grants;
DROP TABLE tables;
ALTER TABLE tables_3 RENAME TO tables;
CREATE UNIQUE INDEX tables_by_name ON tables (owner, name) WHERE dropped = 0;
CREATE INDEX tables_dropped ON tables (id) WHERE dropped = 1;

-- Of tables whose rows stay here. The grants on others are rows of the system table.
CREATE TABLE grants (
    table_id  INTEGER NOT NULL REFERENCES tables (id) ON DELETE CASCADE,
    principal TEXT    NOT NULL,
    rights    INTEGER NOT NULL,   -- bits: read 1, write 2, admin 4
    PRIMARY KEY (table_id, principal)
) STRICT, WITHOUT ROWID;
INSERT INTO grants SELECT table_id, principal, rights FROM grants_2;
DROP TABLE grants_2;

-- The system table: identities, mappings, grants, names and scopes, as records like any other. Its
-- owner is no owner that anybody can be. The same lasting id on every node; the number that no other
-- table gets.
INSERT INTO tables (id, uid, owner, name, attributes, scope, replicated, created_hlc)
    VALUES (0, X'636f7274657864000000000000000000', 'system', 'directory', 'key', 'all', 1, 0);

-- To find the oldest event of one uid.
CREATE INDEX events_by_uid ON events (uid, id);

-- Claim tokens that were redeemed here, kept until they expire by themselves.
CREATE TABLE used_tokens (
    id         BLOB    PRIMARY KEY CHECK (length(id) = 16),
    expires_ms INTEGER NOT NULL,   -- Unix milliseconds
    node       TEXT    NOT NULL,   -- by whom
    uid        INTEGER NOT NULL
) STRICT;
CREATE INDEX used_tokens_by_expiry ON used_tokens (expires_ms);

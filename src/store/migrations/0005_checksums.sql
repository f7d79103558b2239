-- Each row with a checksum of its own, so that a byte that a disk has changed is found.

-- CRC-32C of table, key, version and value. NULL for a row of an earlier schema, until the scrub has given it one.
ALTER TABLE records ADD COLUMN checksum INTEGER;

-- 1 once every row has one: from then on a row without is damaged.
ALTER TABLE tables ADD COLUMN checksummed INTEGER NOT NULL DEFAULT 0;

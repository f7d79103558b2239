-- What is gone is to be gone from the disk too, before anybody is told so.

-- Stays of copies that are over, and of which bytes may still be in the file or in its log. The others hear
-- that a stay is over once they are not.
CREATE TABLE departures (
    table_id INTEGER PRIMARY KEY,  -- the number that the table had here
    uid      BLOB    NOT NULL CHECK (length(uid) = 16),
    life     INTEGER NOT NULL,     -- which stay
    owner    INTEGER,              -- the uid here whose table it was; NULL for nobody's
    name     TEXT    NOT NULL,     -- of the table, for people
    taker    TEXT    NOT NULL      -- the machine that has confirmed to have everything; empty where there was nothing
) STRICT;

-- 1 once all pages of the file have been looked at for bytes of what is gone.
ALTER TABLE node_state ADD COLUMN swept INTEGER NOT NULL DEFAULT 0;

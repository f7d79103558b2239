-- What an administrator may ask about afterwards. Bounded: the oldest give way.
CREATE TABLE events (
    id    INTEGER PRIMARY KEY AUTOINCREMENT,
    at_ms INTEGER NOT NULL,   -- wall clock, Unix milliseconds
    uid   INTEGER,            -- whom it concerns; NULL for the daemon itself
    kind  TEXT    NOT NULL,
    text  TEXT    NOT NULL
) STRICT;

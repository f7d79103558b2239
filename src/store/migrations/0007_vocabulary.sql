-- Who wrote a version is an actor: a node's database between two rollbacks. Version vectors count by actors.
ALTER TABLE incarnations RENAME TO actors;
ALTER TABLE records RENAME COLUMN incarnation TO actor;
ALTER TABLE node_state RENAME COLUMN incarnation TO actor;
ALTER TABLE conflicts RENAME COLUMN incarnation TO actor;
ALTER TABLE conflicts RENAME COLUMN winner_incarnation TO winner_actor;

-- A replica's local order of changes is its change log, counted by LSN and truncated at its beginning.
ALTER TABLE feed RENAME TO change_log;
ALTER TABLE replicas RENAME COLUMN feed TO change_log;
ALTER TABLE replicas RENAME COLUMN cut TO truncated_lsn;
ALTER TABLE replicas RENAME COLUMN fed TO last_lsn;
ALTER TABLE cursors RENAME COLUMN feed TO change_log;

-- One stay of a replica in its table's scope is a replica epoch.
ALTER TABLE replicas RENAME COLUMN life TO epoch;
ALTER TABLE departures RENAME COLUMN life TO epoch;

-- Up to where a replica has forgotten tombstones is its GC watermark.
ALTER TABLE replicas RENAME COLUMN floor TO gc_watermark;
ALTER TABLE cursors RENAME COLUMN floor TO gc_watermark;

-- A read of a whole replica is a snapshot transfer. A row that a source may lack is announced again.
ALTER TABLE cursors RENAME COLUMN pass TO snapshot;
ALTER TABLE records RENAME COLUMN pushed TO re_announced;

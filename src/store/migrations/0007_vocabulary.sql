-- Who wrote a version is an actor: a node's database between two rollbacks. Version vectors count by actors.
ALTER TABLE incarnations RENAME TO actors;
ALTER TABLE records RENAME COLUMN incarnation TO actor;
ALTER TABLE node_state RENAME COLUMN incarnation TO actor;
ALTER TABLE conflicts RENAME COLUMN incarnation TO actor;
ALTER TABLE conflicts RENAME COLUMN winner_incarnation TO winner_actor;

//! I5: what belongs to one step changes together or not at all, in the file and in memory alike.

use cortexd::store::{
    AuditStep, Audited, Command, Database, Outcome, SYSTEM_TABLE, UpkeepCommand, UpkeepOutcome,
};

use crate::world::{World, broken};

/// All that a database holds, as text.
pub(crate) fn fingerprint(db: &Database) -> String {
    let mut text = String::new();
    for table in [
        "records",
        "change_log",
        "cursors",
        "marks",
        "replicas",
        "contexts",
        "conflicts",
        "tables",
        "node_state",
    ] {
        let mut statement =
            db.connection().prepare(&format!("SELECT * FROM {table}")).expect("a table");
        let columns = statement.column_count();
        let mut rows = statement.query([]).expect("rows");
        while let Some(row) = rows.next().expect("a row") {
            for column in 0..columns {
                let value: rusqlite::types::Value = row.get(column).expect("a value");
                text.push_str(&format!("{value:?},"));
            }
        }
    }
    text
}

/// What is in memory is what the file says.
pub(crate) fn same_from_disk(world: &World, n: usize, image: &Database) {
    let db = &world.nodes[n].db;
    for table in world.tables.iter().chain([&SYSTEM_TABLE]) {
        let kept = db.replica(*table).cloned().map(|mut replica| {
            replica.drain = None;
            replica
        });
        let read = image.replica(*table).cloned();
        if kept != read {
            broken(format!("I5 n{n}: in memory {kept:?}, on disk {read:?}"));
        }
        let view = |db: &Database| {
            let entry = db.catalog().by_uid(*table)?;
            Some((entry.table.clone(), entry.standing, entry.ready, entry.usage.records()))
        };
        if view(db) != view(image) {
            broken(format!("I5 n{n}: in memory {:?}, on disk {:?}", view(db), view(image)));
        }
    }
    if db.actor() != image.actor() {
        broken(format!("I5 n{n}: another actor on disk"));
    }
}

/// What an audit computes from the rows is what was kept of them all along.
pub(crate) fn an_audit_corrects_nothing(world: &mut World, n: usize) {
    let now_ms = world.now_ms;
    let db = &mut world.nodes[n].db;
    let tables: Vec<_> = {
        let all = db.catalog().namespaces().flat_map(|(_, namespace)| namespace.tables());
        all.filter(|entry| entry.is_in_file()).map(|entry| entry.table.id).collect()
    };
    for table in tables {
        let mut begins = true;
        let report = loop {
            let step = Command::Upkeep(UpkeepCommand::Audit(AuditStep { table, audit: 1, begins }));
            begins = false;
            match db.execute(&step, now_ms) {
                Ok(Outcome::Upkeep(UpkeepOutcome::Audited(Audited::More { .. }))) => {}
                Ok(Outcome::Upkeep(UpkeepOutcome::Audited(Audited::Ended(report)))) => {
                    break report;
                }
                other => broken(format!("I5 n{n}: an audit of {table:?} came to {other:?}")),
            }
        };
        if report.corrected || report.damaged > 0 {
            broken(format!(
                "I5 n{n}: the rows of {table:?} are not what was kept of them: {report:?}"
            ));
        }
    }
}

/// Counts that are kept beside the rows are those of the rows.
pub(crate) fn totals_are_those_of_the_rows(world: &World, n: usize) {
    let node = &world.nodes[n];
    let wrong: Option<(i64, i64, i64)> = {
        let mut statement = node
            .db
            .connection()
            .prepare_cached(
                "SELECT c.id, c.uses, ifnull(r.n, 0) FROM contexts c LEFT JOIN
                 (SELECT context, count(*) n FROM records WHERE context IS NOT NULL GROUP BY context) r
                 ON r.context = c.id WHERE c.uses <> ifnull(r.n, 0) OR r.n IS NULL
                 UNION ALL
                 SELECT r.context, -1, count(*) FROM records r WHERE r.context IS NOT NULL
                 AND NOT EXISTS (SELECT 1 FROM contexts c WHERE c.id = r.context) GROUP BY r.context",
            )
            .expect("a statement");
        let mut rows = statement.query([]).expect("rows");
        rows.next()
            .expect("a row")
            .map(|row| (row.get_unwrap(0), row.get_unwrap(1), row.get_unwrap(2)))
    };
    if let Some((id, uses, rows)) = wrong {
        broken(format!("contexts n{n}: {id} is said to be used {uses} times, by {rows} rows"));
    }
    for table in &world.tables {
        let Some(entry) = node.db.catalog().by_uid(*table) else { continue };
        let rows = node.disk.copies.get(table).map(|copy| &copy.rows);
        let live = rows.into_iter().flatten().filter(|(_, version)| version.value.is_some());
        let sizes = live
            .map(|(key, version)| (key.len() + version.value.as_ref().map_or(0, Vec::len)) as u64);
        let (count, bytes) = sizes.fold((0, 0), |(n, sum), bytes| (n + 1, sum + bytes));
        if (entry.usage.records(), entry.usage.bytes()) != (count, bytes) {
            broken(format!("totals n{n}: {:?}, the rows are {count}, {bytes}", entry.usage));
        }
    }
}

//! I9: what stands before a position in another replica's change log has come.

use crate::world::{World, broken};

pub(crate) fn a_position_says_what_has_come(world: &World, n: usize) {
    let reader = &world.nodes[n];
    for table in &world.tables {
        if reader.db.replica(*table).is_none_or(|replica| replica.table.is_none()) {
            continue;
        }
        for source in world.nodes.iter().filter(|source| source.name != reader.name) {
            let position = reader.db.position(*table, &source.name).expect("a position");
            let Some(cursor) = position.cursor else { continue };
            let change_log = source.db.replica(*table).map(|replica| replica.change_log);
            let Some(copy) =
                source.disk.copies.get(table).filter(|_| change_log == Some(cursor.change_log))
            else {
                continue;
            };
            for (key, row) in copy.rows.iter().filter(|(_, row)| row.lsn <= cursor.lsn) {
                let place = (*table, key.clone());
                let passed =
                    position.snapshot.as_ref().is_none_or(|snapshot| *key <= snapshot.after);
                let shadow = reader.disk.shadow.get(&place);
                if passed
                    && shadow.is_none_or(|(newest, _)| *newest < row.stamp)
                    && !world.history.orphans.contains(&place)
                {
                    broken(format!(
                        "I9 n{n} stands at {position:?} in {} and lacks {key:?} {row:?}: {shadow:?}",
                        source.name
                    ));
                }
            }
        }
    }
}

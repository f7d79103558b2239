//! What a driver notes: written into what status shows, into the log, and into the events.
//! What is to be noted, and when, is the driver's to say.

use cortex_core::{
    model::{TableUid, Uid},
    replication::{Change, Facts, InvalidRow, UnverifiedRow, driver::Note},
};
use tracing::{info, warn};

use super::{
    Exchange, Finished,
    problems::{self, Direction},
};
use crate::store::{Event, UpkeepCommand};

impl Exchange<'_> {
    pub(super) fn note(&mut self, note: Note) {
        match note {
            Note::Replica { table, node, change } if node == *self.node => {
                self.note_of_peer(table, change);
            }
            Note::Replica { table, node, change } => {
                let facts = Facts::of(&self.here, table, &node);
                let _of_others =
                    self.here.view.change(|peers| peers.note(table, &node, change, &facts));
            }
            Note::Quarantined(row) => self.log_quarantined(row),
            Note::Invalid { table, row } => self.log_invalid(table, &row),
            Note::AheadSince(since) => self.shared.held_off.set(self.node, since),
            Note::NotAhead => {
                info!(node = %self.node, "rows from {} are not ahead of this clock any more", self.node);
            }
            Note::TakenAhead { ahead_s } => {
                info!(
                    node = %self.node, ahead_s,
                    "rows from {} are {ahead_s} s ahead of this clock and are taken with their timestamps", self.node
                );
            }
        }
    }

    /// Notes how it goes with a table, and logs what an operator may act on.
    fn note_of_peer(&self, table: TableUid, change: Change) {
        let is_of_rows = change.is_of_rows();
        let facts = Facts::of(&self.here, table, self.node);
        let [taking, giving] =
            self.here.view.change(|peers| peers.note(table, self.node, change, &facts));
        if !is_of_rows {
            return;
        }
        for (direction, problem) in [(Direction::From, taking), (Direction::To, giving)] {
            let begins = self.shared.problems.note(
                (table, self.node.clone(), direction),
                problem.as_ref().filter(|problem| problem.is_for_the_operator()),
                self.shared.now(),
            );
            if begins && let Some(why) = problem {
                problems::log_begin(&self.here.store, table, self.node, direction, &why);
            }
        }
    }

    fn log_quarantined(&mut self, row: UnverifiedRow) {
        let UnverifiedRow { key, writer, why, .. } = row;
        let key = String::from_utf8_lossy(&key).into_owned();
        let writer = writer.as_ref().map_or("an unknown writer", |writer| writer.as_str());
        let text = format!(
            "the row {key} of the directory, by {writer}, passed on by {}, is not believed: {why}",
            self.node
        );
        warn!(node = %self.node, key, writer, %why, "{text}");
        self.write_event("row_unverified", None, text);
    }

    fn log_invalid(&mut self, table: TableUid, row: &InvalidRow) {
        let catalog = self.here.store.catalog();
        let Some(entry) = catalog.by_uid(table) else { return };
        let (name, owner) =
            (catalog.show(&entry.table.name), catalog.uid_here(&entry.table.name.owner));
        let key = String::from_utf8_lossy(&row.key).escape_debug().to_string();
        let text = format!(
            "a row of {name} that {} passes on was left out: \"{key}\": {}",
            self.node, row.why
        );
        warn!(node = %self.node, table = name, key, why = %row.why, "{text}");
        self.write_event("row_invalid", owner, text);
    }

    fn write_event(&mut self, kind: &'static str, uid: Option<Uid>, text: String) {
        let store = self.here.store.clone();
        self.jobs.spawn(async move {
            let event = Event { uid, kind, text };
            if let Err(failure) = store.execute(UpkeepCommand::Note(event)).await {
                warn!(%failure, "an event was not written down: {failure}");
            }
            Ok(Finished::Noted)
        });
    }
}

//! The log of events: what an administrator may ask about afterwards, kept with the data.
//! What the operator should see at once goes to the journal as well; that is the daemon's.

use cortex_core::model::Uid;
use rusqlite::{Connection, params};

use super::error::StoreError;

/// Events kept. The oldest give way: some megabytes at the most.
const KEPT: u32 = 10_000;

/// Events kept of one uid, so that none can push out all those of others.
const KEPT_OF_ONE: u32 = 2_000;

/// Something worth remembering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whom it concerns; none for the daemon itself.
    pub uid: Option<Uid>,
    /// One word for the kind, `table_created`.
    pub kind: &'static str,
    /// What happened, for people.
    pub text: String,
}

/// An event as it was written down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// Rises with every event.
    pub id: i64,
    /// When, in Unix milliseconds by the wall clock.
    pub at_ms: u64,
    /// Whom it concerns; none for the daemon itself.
    pub uid: Option<Uid>,
    /// One word for the kind.
    pub kind: String,
    /// What happened, for people.
    pub text: String,
}

/// Which events are wanted.
#[derive(Clone, Copy, Debug)]
pub struct EventFilter {
    /// Only those that concern this uid; none for all.
    pub uid: Option<Uid>,
    /// Only those with a greater id.
    pub after: i64,
    /// The newest so many.
    pub limit: u32,
}

pub(super) fn record(conn: &Connection, event: &Event, at_ms: u64) -> Result<(), StoreError> {
    conn.prepare_cached("INSERT INTO events (at_ms, uid, kind, text) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            i64::try_from(at_ms).unwrap_or(i64::MAX),
            event.uid.map(|uid| uid.0),
            event.kind,
            event.text
        ])?;
    conn.prepare_cached(
        "DELETE FROM events WHERE id =
         (SELECT id FROM events WHERE uid = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
    )?
    .execute(params![event.uid.map(|uid| uid.0), KEPT_OF_ONE])?;
    conn.prepare_cached(
        "DELETE FROM events WHERE id = (SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET ?1)",
    )?
    .execute([KEPT])?;
    Ok(())
}

/// Reads events, the oldest of the wanted ones first.
pub(super) fn read(conn: &Connection, wanted: EventFilter) -> Result<Vec<EventRecord>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT id, at_ms, uid, kind, text FROM events
         WHERE id > ?1 AND (?2 IS NULL OR uid = ?2) ORDER BY id DESC LIMIT ?3",
    )?;
    let rows = statement.query_map(
        params![wanted.after, wanted.uid.map(|uid| uid.0), wanted.limit],
        |row| {
            Ok(EventRecord {
                id: row.get(0)?,
                at_ms: row.get::<_, i64>(1)?.unsigned_abs(),
                uid: row.get::<_, Option<u32>>(2)?.map(Uid),
                kind: row.get(3)?,
                text: row.get(4)?,
            })
        },
    )?;
    let mut events = rows.collect::<Result<Vec<_>, _>>()?;
    events.reverse();
    Ok(events)
}

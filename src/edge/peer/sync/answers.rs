//! What a request for rows comes to, with the frame of its chunk, and whether what has come was signed: work for
//! threads that may block.
//! Who may have which rows is the store's to say, by the rules of `cortex_core::sync`.

use std::sync::Arc;

use cortex_core::{
    model::{NodeName, Refusal},
    sync::{Answer, Chunk, Part, Want, Why},
};

use super::{super::blocking, pack, troubles::TOO_LARGE};
use crate::store::{
    ChunkBounds, Fault, SYSTEM_TABLE, SealedRow, Served, Store, Unserved, VerifiedRow, verify,
};

/// Entries of a feed that a reader has written itself, and need not be told of at once.
const LONGEST_ECHO: u64 = 4096;

/// What a request comes to, and the frame of its chunk. A chunk that is too large for a frame is read again,
/// with fewer rows; one row always fits.
pub(super) fn answer_to(
    store: &Store,
    node: &NodeName,
    want: &Want,
    told_whole: Option<u64>,
) -> Result<(Answer, Option<Vec<u8>>), Fault> {
    let mut bounds = ChunkBounds::default();
    loop {
        match store.serve(node, want, bounds)? {
            Served::Nothing => {
                let drain = store.copy(want.table).and_then(|copy| copy.drain);
                return Ok((Answer::Nothing(drain), None));
            }
            Served::Refused(why) => {
                let why = match why {
                    Unserved::NoCopy => Why::NoCopy,
                    Unserved::NotInScope => Why::NotInScope,
                    Unserved::UnknownLife => Why::UnknownLife,
                    Unserved::Busy => Why::Busy,
                };
                return Ok((Answer::Refused(why), None));
            }
            Served::Chunk(chunk) if is_echo(&chunk, want, told_whole) => {
                return Ok((Answer::Nothing(None), None));
            }
            Served::Chunk(chunk) => match pack::frame_of(&chunk) {
                Some(frame) => return Ok((Answer::Chunk(chunk), Some(frame))),
                None if chunk.rows.len() > 1 => bounds.rows = chunk.rows.len() / 2,
                None => return Ok((Answer::Refused(Why::Other(TOO_LARGE)), None)),
            },
        }
    }
}

/// True for a chunk that would only move the reader's place in the feed: what is new here has come from there.
/// It would cost the reader a commit for each of its own writes. Not for ever: the feed would have to be read
/// from further and further back.
fn is_echo(chunk: &Chunk, want: &Want, told_whole: Option<u64>) -> bool {
    let Part::Log { to, last: true } = chunk.part else { return false };
    let from = chunk.from.cursor.map_or(0, |cursor| cursor.lsn);
    told_whole.is_some_and(|upto| from >= upto)
        && chunk.rows.is_empty()
        && chunk.drain.is_none()
        && to.saturating_sub(from) < LONGEST_ECHO
        && want.vector.dominates(&chunk.vector)
}

/// The rows of the system table with their signatures checked; for any other table there is nothing to check.
pub(super) async fn checked(
    chunk: &Chunk,
    store: &Store,
    notary: Arc<crate::pki::Credentials>,
) -> Result<Result<Vec<VerifiedRow>, Refusal>, Fault> {
    if chunk.table != SYSTEM_TABLE || chunk.rows.is_empty() {
        return Ok(Ok(Vec::new()));
    }
    let rows = chunk.rows.iter().map(|row| SealedRow {
        key: row.key.clone(),
        value: row.value.clone().unwrap_or_default(),
        stamp: row.stamp,
        seq: row.seq,
    });
    let rows: Vec<SealedRow> = rows.collect();
    let store = store.clone();
    blocking(move || Ok(verify(notary.as_ref(), store.catalog().directory(), rows))).await
}

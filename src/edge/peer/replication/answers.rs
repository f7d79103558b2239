//! What a request for rows comes to, with the frame of its batch, and whether what has come was signed: work for
//! threads that may block.
//! Who may have which rows is the store's to say, by the rules of `cortex_core::replication`.

use std::sync::Arc;

use cortex_core::{
    directory::SealedRow,
    model::NodeName,
    replication::{
        Answer, Batch, PullRequest, TOO_LARGE, Why,
        driver::{Answered, ReaderKnows},
    },
};

use super::pack;
use crate::store::{
    BatchBounds, BatchRead, Checked, SYSTEM_TABLE, Store, StoreError, blocking, check,
};

/// Bytes of rows that are sent at once, without a thread that may block: they fit into one frame, and nothing
/// of that is worth compressing.
const AT_ONCE: usize = 8 << 10;

/// An answer, and the frame of its batch.
pub(super) type Framed = (Answered, Option<Vec<u8>>);

/// What a request comes to where it can be answered from memory; none where the file must be read.
pub(super) fn answer_from_memory(
    store: &Store,
    node: &NodeName,
    request: &PullRequest,
    reader: ReaderKnows,
) -> Option<Framed> {
    let bounds = BatchBounds { bytes: AT_ONCE, passed: reader.passed, ..BatchBounds::default() };
    let read = store.read_recent_batch(node, request, bounds)?;
    framed(store, request, reader, read).ok()
}

/// What a request comes to. A batch that is too large for a frame is read again, with fewer rows; one row
/// always fits.
pub(super) fn answer_to(
    store: &Store,
    node: &NodeName,
    request: &PullRequest,
    reader: ReaderKnows,
) -> Result<Framed, StoreError> {
    let mut bounds = BatchBounds { passed: reader.passed, ..BatchBounds::default() };
    loop {
        match framed(store, request, reader, store.read_batch(node, request, bounds)?) {
            Ok(framed) => return Ok(framed),
            Err(rows) if rows > 1 => bounds.rows = rows / 2,
            Err(_one) => return Ok((Answered::refused(Why::Other(TOO_LARGE)), None)),
        }
    }
}

/// How many rows there are is the error where they are too large for one frame.
fn framed(
    store: &Store,
    request: &PullRequest,
    reader: ReaderKnows,
    read: BatchRead,
) -> Result<Framed, usize> {
    let answered = match read {
        BatchRead::Nothing => {
            Answered::nothing(store.replica(request.table).and_then(|replica| replica.drain))
        }
        BatchRead::Refused(why) => Answered::refused(why.into()),
        BatchRead::Batch(batch) => reader.answer(request, batch),
    };
    let frame = match &answered.answer {
        Answer::Batch(batch) => Some(pack::frame_of(batch).ok_or(batch.rows.len())?),
        Answer::Nothing(_) | Answer::Refused(_) => None,
    };
    Ok((answered, frame))
}

/// The rows of the system table with their signatures checked; for any other table there is nothing to check.
pub(super) async fn checked(
    batch: &Batch,
    store: &Store,
    signer: Arc<crate::pki::Credentials>,
) -> Result<Checked, StoreError> {
    if batch.table != SYSTEM_TABLE || batch.rows.is_empty() {
        return Ok(Checked::default());
    }
    let rows = batch.rows.iter().map(|row| SealedRow {
        key: row.key.clone(),
        value: row.value.clone().unwrap_or_default(),
        stamp: row.stamp,
        seq: row.seq,
    });
    let rows: Vec<SealedRow> = rows.collect();
    let store = store.clone();
    blocking(move || Ok(check(signer.as_ref(), store.catalog().directory(), rows))).await
}

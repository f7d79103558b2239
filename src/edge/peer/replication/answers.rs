//! What a request for rows comes to, with the frame of its batch, and whether what has come was signed: work for
//! threads that may block.
//! Who may have which rows is the store's to say, by the rules of `cortex_core::replication`.

use std::sync::Arc;

use cortex_core::{
    model::NodeName,
    replication::{Answer, Batch, Part, Position, PullRequest, Why},
};

use super::{super::blocking, pack, troubles::TOO_LARGE};
use crate::store::{
    BatchBounds, BatchRead, Checked, NoBatch, SYSTEM_TABLE, SealedRow, Store, StoreError, check,
};

/// Entries of a change log that a reader has written itself, and need not be told of at once.
const LONGEST_ECHO: u64 = 4096;

/// Bytes of rows that are told at once, without a thread that may block: they fit into one frame, and nothing
/// of that is worth compressing.
const AT_ONCE: usize = 8 << 10;

/// What a request comes to.
pub(super) struct Answered {
    pub(super) answer: Answer,
    /// The frame of its batch.
    pub(super) frame: Option<Vec<u8>>,
    /// Where nothing is told: the LSN up to which there was nothing for the reader.
    pub(super) passed: Option<u64>,
}

impl Answered {
    pub(super) fn just(answer: Answer) -> Self {
        Self { answer, frame: None, passed: None }
    }
}

/// A part of the change log that was looked at for a request and held nothing for it. Nor will it later, for a
/// request from the same place in the same replica epoch: what a reader has incorporated only grows.
#[derive(Debug)]
pub(super) struct Passed {
    epoch: u64,
    from: Position,
    pub(super) upto: u64,
}

impl Passed {
    pub(super) fn new(want: &PullRequest, upto: u64) -> Self {
        Self { epoch: want.epoch, from: want.position.clone(), upto }
    }

    pub(super) fn holds_for(&self, want: &PullRequest) -> bool {
        (self.epoch, &self.from) == (want.epoch, &want.position)
    }
}

/// What is known of the other replica, besides its request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heard {
    /// The place in the change log to which it is brought by the word that this replica is whole, once it was told.
    pub(super) told_whole: Option<u64>,
    /// The LSN up to which nothing was for it.
    pub(super) passed: u64,
}

/// What a request comes to where memory tells; none where the file must be read.
pub(super) fn answer_at_once(
    store: &Store,
    node: &NodeName,
    want: &PullRequest,
    heard: Heard,
) -> Option<Answered> {
    let bounds = BatchBounds { bytes: AT_ONCE, passed: heard.passed, ..BatchBounds::default() };
    answered(store, want, heard, store.read_recent_batch(node, want, bounds)?).ok()
}

/// What a request comes to. A batch that is too large for a frame is read again, with fewer rows; one row
/// always fits.
pub(super) fn answer_to(
    store: &Store,
    node: &NodeName,
    want: &PullRequest,
    heard: Heard,
) -> Result<Answered, StoreError> {
    let mut bounds = BatchBounds { passed: heard.passed, ..BatchBounds::default() };
    loop {
        match answered(store, want, heard, store.read_batch(node, want, bounds)?) {
            Ok(answered) => return Ok(answered),
            Err(rows) if rows > 1 => bounds.rows = rows / 2,
            Err(_one) => {
                return Ok(Answered::just(Answer::Refused(Why::Other(TOO_LARGE))));
            }
        }
    }
}

/// How many rows there are is the error where they are too large for one frame.
fn answered(
    store: &Store,
    want: &PullRequest,
    heard: Heard,
    served: BatchRead,
) -> Result<Answered, usize> {
    match served {
        BatchRead::Nothing => {
            let drain = store.copy(want.table).and_then(|copy| copy.drain);
            Ok(Answered::just(Answer::Nothing(drain)))
        }
        BatchRead::Refused(why) => {
            let why = match why {
                NoBatch::NoCopy => Why::NoCopy,
                NoBatch::NotInScope => Why::NotInScope,
                NoBatch::UnknownEpoch => Why::UnknownEpoch,
                NoBatch::Busy => Why::Busy,
                NoBatch::Damaged => Why::Damaged,
            };
            Ok(Answered::just(Answer::Refused(why)))
        }
        BatchRead::Batch(batch) => {
            if let Some(passed) = echo(&batch, want, heard.told_whole) {
                return Ok(Answered {
                    passed: Some(passed),
                    ..Answered::just(Answer::Nothing(None))
                });
            }
            let frame = pack::frame_of(&batch).ok_or(batch.rows.len())?;
            Ok(Answered { frame: Some(frame), ..Answered::just(Answer::Batch(batch)) })
        }
    }
}

/// Where a batch leads to that would only move the reader's place in the change log: what is new here has come from
/// there. It would cost the reader a commit for each of its own writes. Not for ever: the change log would have to be
/// read from further and further back.
fn echo(batch: &Batch, want: &PullRequest, told_whole: Option<u64>) -> Option<u64> {
    let Part::Delta { to, last: true } = batch.part else { return None };
    let from = batch.from.cursor.map_or(0, |cursor| cursor.lsn);
    let is_echo = told_whole.is_some_and(|upto| from >= upto)
        && batch.rows.is_empty()
        && batch.drain.is_none()
        && to.saturating_sub(from) < LONGEST_ECHO
        && want.vector.dominates(&batch.vector);
    is_echo.then_some(to)
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

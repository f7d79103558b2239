//! What is told from memory is what the file says.

use cortex_core::{
    model::NodeName,
    replication::{Part, PullRequest},
};
use cortexd::store::{BatchBounds, BatchRead, Database};

use crate::world::broken;

/// The batch that memory has made is the one that is read from the file. It may be as of an earlier commit,
/// where none since has changed a replica.
pub(crate) fn told_as_by_the_file(
    db: &Database,
    to: &NodeName,
    want: &PullRequest,
    passed: u64,
    told: &BatchRead,
) {
    let mut read = db
        .read_batch(to, want, BatchBounds { passed, ..BatchBounds::default() })
        .expect("an answer");
    if let (BatchRead::Batch(told), BatchRead::Batch(read)) = (told, &mut read)
        && let (Part::Delta { to: until, .. }, Part::Delta { to, .. }) =
            (&told.part, &mut read.part)
        && *until <= *to
        && told.hlc <= read.hlc
    {
        (*to, read.hlc) = (*until, told.hlc);
    }
    if *told != read {
        broken(format!("told from memory {told:?}, from the file {read:?}"));
    }
}

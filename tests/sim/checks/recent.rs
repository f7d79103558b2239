//! What is told from memory is what the file says.

use cortex_core::{
    model::NodeName,
    sync::{Part, Want},
};
use cortexd::store::{ChunkBounds, Database, Served};

use crate::world::broken;

/// The chunk that memory has made is the one that is read from the file. It may be as of an earlier commit,
/// where none since has changed a copy.
pub(crate) fn told_as_by_the_file(db: &Database, to: &NodeName, want: &Want, told: &Served) {
    let mut read = db.serve(to, want, ChunkBounds::default()).expect("an answer");
    if let (Served::Chunk(told), Served::Chunk(read)) = (told, &mut read)
        && let (Part::Log { to: until, .. }, Part::Log { to, .. }) = (&told.part, &mut read.part)
        && *until <= *to
        && told.hlc <= read.hlc
    {
        (*to, read.hlc) = (*until, told.hlc);
    }
    if *told != read {
        broken(format!("told from memory {told:?}, from the file {read:?}"));
    }
}

//! The thread that moves committed pages from the log into the database, off the commit path.
//! It never blocks a commit; the writer ends what it has nearly finished (`writer::tend_log`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use rusqlite::{Connection, MAIN_DB, wal::CheckpointMode};
use tracing::{debug, warn};

use super::{
    error::{StoreError, is_busy},
    published::Published,
};

/// Pages left in the log that the writer may take over: some two milliseconds of work.
const NEARLY: i32 = 512;

/// Passes in a row. Each is over what was written during the one before, so they shrink.
const PASSES: usize = 4;

/// The least time between runs, so that a log which a long read holds back is not tried at every
/// commit.
const PAUSE: Duration = Duration::from_millis(50);

/// The writer's end.
#[derive(Debug)]
pub(super) struct Handle {
    wake: mpsc::SyncSender<()>,
    nearly_done: Arc<AtomicBool>,
}

impl Handle {
    /// Asks for a run. One that is under way or asked for already is enough.
    pub(super) fn wake(&self) {
        let _full_or_gone = self.wake.try_send(());
    }

    /// True where so little is left that the writer may do it between two commits.
    pub(super) fn is_nearly_done(&self) -> bool {
        self.nearly_done.load(SeqCst)
    }

    /// Forgets the last run's outcome.
    pub(super) fn reset(&self) {
        self.nearly_done.store(false, SeqCst);
    }
}

/// Starts the thread. It ends when the handle is dropped.
pub(super) fn start(
    conn: Connection,
    published: Arc<Published>,
) -> std::io::Result<(Handle, JoinHandle<()>)> {
    let (wake, asked) = mpsc::sync_channel(1);
    let nearly_done = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&nearly_done);
    let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(move || {
        while asked.recv().is_ok() {
            let moved = run(&conn);
            // The writer looks before it acknowledges, and empties the log when it ends.
            published.report_outcome(&moved);
            match moved {
                Ok(nearly) => flag.store(nearly, SeqCst),
                Err(fault) if fault.is_fatal() => return,
                Err(fault) => warn!(%fault, "a checkpoint failed, it will be tried again: {fault}"),
            }
            std::thread::sleep(PAUSE);
        }
    })?;
    Ok((Handle { wake, nearly_done }, thread))
}

/// Moves what can be moved without waiting for anybody. True where little is left. While another
/// checkpoint is under way there is nothing to move: that one does it.
pub(super) fn run(conn: &Connection) -> Result<bool, StoreError> {
    for _ in 0..PASSES {
        let (in_log, moved) = match conn.wal_checkpoint_v2(Some(MAIN_DB), CheckpointMode::PASSIVE) {
            Ok(pages) => pages,
            Err(error) if is_busy(&error) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        debug!(in_log, moved, "checkpoint pass");
        if in_log - moved < NEARLY {
            return Ok(true);
        }
    }
    Ok(false)
}

//! What the writer does on a full disk: which jobs it takes, and where it gets room for them.
//! The file that keeps room back is `reserve`'s.
//!
//! Room comes from two places, in this order. The log has it, if all of it can be moved into the database
//! without making that file longer than the disk allows: then it starts again from its beginning, and every job
//! goes on. What frees room may besides use up the reserve.

use std::sync::atomic::Ordering::Relaxed;

use tracing::warn;

use super::{
    command::Job,
    error::StoreError,
    reserve::{self, Reserve},
    writer::Writer,
};

impl Writer {
    /// Refuses what would take the room that is kept back for what frees some. Only a fault after which the store
    /// must not go on is an error; all are refused then.
    pub(super) fn admit_to_disk(&mut self, jobs: Vec<Job>) -> Result<Vec<Job>, StoreError> {
        let is_kept = self.reserve.as_mut().is_none_or(Reserve::keep);
        match self.log_outgrows_disk() {
            Ok(false) if is_kept => return Ok(jobs),
            Ok(_) => {}
            Err(fault) => {
                self.refuse(jobs, &fault);
                return Err(fault);
            }
        }
        let (admitted, refused) = jobs.into_iter().partition(|job| job.command.may_use_reserve());
        self.refuse(
            refused,
            &StoreError::Full("what is left is kept for deleting and dropping".into()),
        );
        Ok(admitted)
    }

    /// Carries out again what found the disk full, once there is room; refuses what there is none for.
    /// Only a fault after which the store must not go on is an error; all are refused then.
    pub(super) fn retry_on_full_disk(
        &mut self,
        jobs: Vec<Job>,
        fault: &StoreError,
    ) -> Result<(), StoreError> {
        // A commit in a log that has just started again has left no pages in it: this ends.
        match self.restart_log() {
            Ok(true) => return self.commit_admitted(jobs),
            Ok(false) => {}
            Err(fault) => {
                self.refuse(jobs, &fault);
                return Err(fault);
            }
        }
        let (freeing, others): (Vec<_>, Vec<_>) =
            jobs.into_iter().partition(|job| job.command.may_use_reserve());
        self.refuse(others, fault);
        if freeing.is_empty() {
            return Ok(());
        }
        if self.reserve.as_mut().is_some_and(Reserve::release) {
            warn!("the disk is full: the room that is kept back goes to what frees some");
            return self.commit_admitted(freeing);
        }
        self.refuse(freeing, fault);
        Ok(())
    }

    /// True where the log has started again, and so has room.
    fn restart_log(&mut self) -> Result<bool, StoreError> {
        let pages = self.published.log_pages.load(Relaxed);
        if pages == 0 || !self.log_has_its_place(0) {
            return Ok(false);
        }
        self.recycle_log_patiently()?;
        Ok(self.published.log_pages.load(Relaxed) == 0)
    }

    /// True where another transaction might leave a log that cannot be moved into the database without the reserve:
    /// the checkpoint would take the room that deletions need, and none would be left for them.
    fn log_outgrows_disk(&mut self) -> Result<bool, StoreError> {
        let Some(margin) = self.reserve.as_ref().and_then(|reserve| {
            let log = self.published.log_pages.load(Relaxed).saturating_mul(reserve::PAGE);
            reserve.is_scarce(log).then(|| reserve.margin())
        }) else {
            return Ok(false);
        };
        if self.log_has_its_place(margin) {
            return Ok(false);
        }
        self.restart_log()?;
        Ok(!self.log_has_its_place(margin))
    }

    /// True where there is room for moving the whole log into the database. A checkpoint that
    /// fails half way has made the database larger and the log no shorter: it would eat up what
    /// somebody frees. So many bytes must be left besides where it grows.
    fn log_has_its_place(&self, besides: u64) -> bool {
        let room = || {
            let path = self.engine.conn.path()?;
            let size = |pragma| {
                self.engine.conn.pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))
            };
            let needed = (size("page_count").ok()? * size("page_size").ok()?).unsigned_abs();
            let disk = nix::sys::statvfs::statvfs(path).ok()?;
            let free = disk.blocks_available() * disk.fragment_size();
            let length = std::fs::metadata(path).ok()?.len();
            // What changes rows in their place lengthens nothing.
            Some(needed <= length || needed + besides <= length + free)
        };
        room().unwrap_or(false)
    }
}

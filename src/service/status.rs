//! Methods about the daemon itself: ping, status.

use bytes::Bytes;
use cortex_core::api::{self, StatusReport};

use super::{Service, read};
use crate::store::CommandError;

impl Service {
    /// `ping []`.
    #[expect(clippy::unused_self, reason = "every method has the same shape")]
    pub(super) fn ping(&self, params: &Bytes) -> Result<String, CommandError> {
        let api::Ping {} = read(params)?;
        Ok("pong".to_owned())
    }

    /// `status []`: figures that everybody may know, of no user in particular.
    pub(super) fn status(&self, params: &Bytes) -> Result<StatusReport, CommandError> {
        let api::Status {} = read(params)?;
        Ok(self.status_report())
    }

    /// What `status` answers.
    #[must_use]
    pub fn status_report(&self) -> StatusReport {
        let figures = self.store.figures();
        let bounds = self.bounds.load();
        StatusReport {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            status: "running".to_owned(),
            node: self.node.to_string(),
            tables: figures.tables,
            records: figures.records,
            bytes: figures.bytes,
            disk_bytes: figures.disk_bytes,
            connections: self.open_connections() as u64,
            uptime_seconds: self.started.elapsed().as_secs(),
            commits: figures.commits,
            commands: figures.commands,
            last_commit_us: figures.last_commit_us,
            conflicts: self
                .store
                .replicas()
                .iter()
                .map(|replica| replica.conflicts.open.count)
                .sum(),
            message_bytes: bounds.message_bytes as u64,
            nesting: bounds.nesting as u64,
            mesh_down: self.why_mesh_is_down().map(Into::into),
            scrub: Some(self.scrub().status(self.store.damaged_counts().values().sum())),
        }
    }
}

//! Methods about the daemon itself: ping, status.

use cortex_core::wire::encode;

use super::{Answer, Service, params::Params};
use crate::store::Failure;

impl Service {
    /// `ping []`.
    #[expect(clippy::unused_self, reason = "every method has the same shape")]
    pub(super) fn ping(&self, params: Params<'_>, out: &mut Vec<u8>) -> Result<Answer, Failure> {
        params.count(0)?;
        encode::str(out, "pong");
        Ok(Answer::Ready)
    }

    /// `status []`: figures that everybody may know, of no user in particular.
    pub(super) fn status(&self, params: Params<'_>, out: &mut Vec<u8>) -> Result<Answer, Failure> {
        params.count(0)?;
        let figures = self.store.figures();
        let conflicts = self.store.copies().iter().map(|copy| copy.conflicts.open.count).sum();
        let bounds = self.bounds.load();
        let numbers = [
            ("tables", figures.tables),
            ("records", figures.records),
            ("bytes", figures.bytes),
            ("disk_bytes", figures.disk_bytes),
            ("connections", self.open_connections() as u64),
            ("uptime_seconds", self.started.elapsed().as_secs()),
            ("commits", figures.commits),
            ("commands", figures.commands),
            ("last_commit_us", figures.last_commit_us),
            ("conflicts", conflicts),
            ("message_bytes", bounds.message_bytes as u64),
            ("nesting", bounds.nesting as u64),
        ];
        let mesh_down = self.why_mesh_is_down();
        encode::map(out, 4 + numbers.len() + usize::from(mesh_down.is_some()));
        for (name, text) in
            [("version", env!("CARGO_PKG_VERSION")), ("status", "running"), ("node", &self.node)]
        {
            encode::str(out, name);
            encode::str(out, text);
        }
        for (name, number) in numbers {
            encode::str(out, name);
            encode::uint(out, number);
        }
        if let Some(why) = mesh_down {
            encode::str(out, "mesh_down");
            encode::str(out, &why);
        }
        encode::str(out, "scrub");
        self.scrub().tree(self.store.damaged_counts().values().sum()).write(out);
        Ok(Answer::Ready)
    }
}

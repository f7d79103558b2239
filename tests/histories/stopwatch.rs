//! The one clock of a history.

use std::time::Instant;

use cortexd::sys::clock;

use crate::history::Micros;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(clock::monotonic())
    }

    pub(crate) fn now(self) -> Micros {
        u64::try_from(self.0.elapsed().as_micros()).expect("less than 500,000 years")
    }
}

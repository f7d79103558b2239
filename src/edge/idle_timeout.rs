//! How long a connection waits for bytes: a deadline that moves with every read, on one timer.
//! What happens when it is over is `conn`'s.
//!
//! Arming a timer for every read costs a tenth of a small request. So the timer is left where it
//! is while the deadline moves away from it, and is armed again only when it fires too early.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::time::{Sleep, sleep_until};

use crate::sys::clock;

/// A deadline.
#[derive(Debug)]
pub(super) struct IdleTimeout {
    deadline: Instant,
    /// Fires at the deadline or before it.
    timer: Pin<Box<Sleep>>,
}

impl IdleTimeout {
    pub(super) fn new(lasts: Duration) -> Self {
        let deadline = clock::monotonic() + lasts;
        Self { deadline, timer: Box::pin(sleep_until(deadline.into())) }
    }

    /// Counts anew from now.
    pub(super) fn renew(&mut self, lasts: Duration) {
        self.deadline = clock::monotonic() + lasts;
        if self.timer.deadline() > self.deadline.into() {
            self.timer.as_mut().reset(self.deadline.into());
        }
    }

    /// Ready once the deadline is reached.
    pub(super) fn poll_over(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.timer.as_mut().poll(context).is_ready() {
            if self.timer.deadline() >= self.deadline.into() {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.deadline.into());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::time::{Instant as TokioInstant, timeout};

    use super::*;

    #[tokio::test]
    async fn a_renewed_deadline_is_kept_whether_it_moves_away_or_near() {
        let begun = TokioInstant::from(clock::monotonic());
        let mut idle_timeout = IdleTimeout::new(Duration::from_millis(20));
        idle_timeout.renew(Duration::from_millis(80));
        poll_fn(|context| idle_timeout.poll_over(context)).await;
        assert!(begun.elapsed() >= Duration::from_millis(80), "the first deadline was taken");

        let mut idle_timeout = IdleTimeout::new(Duration::from_secs(3600));
        idle_timeout.renew(Duration::from_millis(10));
        let over = poll_fn(|context| idle_timeout.poll_over(context));
        assert!(
            timeout(Duration::from_secs(30), over).await.is_ok(),
            "the first deadline was taken"
        );
    }
}

//! The thread of the message bus. The bus is optional: nothing waits for it, and nothing ends with it.
//! What is said on it is the edge's.
//!
//! A thread of its own, since describing thousands of objects takes a while, and a connection that is
//! accepted, or the watchdog, should not wait for it.

use std::{io, thread::JoinHandle};

use tokio::sync::watch;

use crate::edge::bus::Bus;

/// The running thread.
#[derive(Debug)]
pub(super) struct BusThread {
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl BusThread {
    pub(super) fn start(bus: Bus) -> io::Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new()
            .name("bus".into())
            .spawn(move || runtime.block_on(bus.keep(stopped)))?;
        Ok(Self { stop, thread })
    }

    /// Leaves the bus, and gives the calls under way a moment to end.
    pub(super) async fn stop(self) {
        self.stop.send_replace(true);
        let joined = tokio::task::spawn_blocking(|| self.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the thread of the message bus panicked");
        }
    }
}

//! Signals that end the benchmark, held back until servers can be ended with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, ensure};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Whether somebody has asked to stop.
#[derive(Debug)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Takes signals from now on. Handlers do it and not a mask, since child
    /// processes inherit masks and then could not be ended by the same signals.
    pub(crate) fn watch() -> Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .build()
            .context("start a runtime for signals")?;
        let signals = {
            let _entered = runtime.enter();
            Signals::take().context("watch for signals")?
        };
        let asked = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&asked);
        thread::spawn(move || signals.raise(&runtime, &flag));
        Ok(Self(asked))
    }

    /// Fails once somebody has asked to stop.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(!self.0.load(Ordering::Relaxed), "stopped by a signal");
        Ok(())
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn take() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for the first signal; later ones change nothing.
    fn raise(mut self, runtime: &Runtime, asked: &AtomicBool) {
        runtime.block_on(async {
            tokio::select! {
                _ = self.interrupt.recv() => {}
                _ = self.terminate.recv() => {}
                _ = self.hangup.recv() => {}
            }
        });
        asked.store(true, Ordering::Relaxed);
    }
}

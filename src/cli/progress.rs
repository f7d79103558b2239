//! How long a command has been at it and how far it is, shown to somebody who sits at a terminal.
//! The only place of the command line that looks at a clock; leaves counting to the commands.

use std::io::{self, IsTerminal};
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use super::output;

const KNOWN_LENGTH: &str = "{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
const UNKNOWN_LENGTH: &str = "{spinner} {bytes} {bytes_per_sec} {elapsed}";

#[derive(Debug)]
pub(crate) struct Progress {
    started_at: Instant,
    /// `None` where nobody watches.
    bar: Option<ProgressBar>,
}

impl Progress {
    /// Begins now, towards `total` bytes if it is known how many there are.
    pub(crate) fn begin(total: Option<u64>) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let (bar, template) = match total {
                Some(total) => (ProgressBar::new(total), KNOWN_LENGTH),
                None => (ProgressBar::new_spinner(), UNKNOWN_LENGTH),
            };
            // A template that does not parse costs the looks, not the command.
            bar.with_style(
                ProgressStyle::with_template(template)
                    .unwrap_or_else(|_| ProgressStyle::default_bar()),
            )
        });
        Self { started_at: crate::sys::clock::monotonic(), bar }
    }

    /// Begins now, and shows nothing: what is printed would run into it.
    pub(crate) fn unseen() -> Self {
        Self { started_at: crate::sys::clock::monotonic(), bar: None }
    }

    pub(crate) fn at(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
        }
    }

    /// Prints a line without tearing the bar.
    pub(crate) fn note(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| output::note(line)),
            None => output::note(line),
        }
    }

    /// Takes the bar away and returns the seconds since the beginning, to the millisecond.
    pub(crate) fn end(&self) -> f64 {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        (self.started_at.elapsed().as_secs_f64() * 1000.0).round() / 1000.0
    }
}

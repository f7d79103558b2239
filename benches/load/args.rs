//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;

use super::server::Peer;
use super::work::{SCENARIOS, Scenario};

/// Measure cortexd against Redis, interleaved, over Unix sockets.
#[derive(Debug, Parser)]
#[command(name = "redis_ratio")]
pub(crate) struct Args {
    /// Pairs of runs per scenario; figures to quote take at least five.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) pairs: u32,

    /// Length of each run.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub(crate) seconds: Duration,

    /// Rows loaded before the first run, and drawn from afterwards.
    #[arg(long, value_name = "ROWS", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub(crate) keys: u32,

    /// Where both servers keep their data: a real file system [default: in the target directory].
    #[arg(long, value_name = "DIR", default_value = env!("CARGO_TARGET_TMPDIR"), hide_default_value = true)]
    pub(crate) dir: PathBuf,

    /// Write every figure to this file too.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Run only the scenarios whose name contains this.
    #[arg(long, value_name = "SUBSTR", default_value = "", hide_default_value = true)]
    pub(crate) filter: String,

    /// Measure one server alone.
    #[arg(long, value_name = "SERVER")]
    pub(crate) only: Option<Peer>,

    /// `cargo bench` passes this to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    /// The servers to measure.
    pub(crate) fn peers(&self) -> Vec<Peer> {
        self.only.map_or(vec![Peer::Cortexd, Peer::Redis], |only| vec![only])
    }

    /// The scenarios to run, at least one.
    pub(crate) fn scenarios(&self) -> Result<Vec<Scenario>> {
        let chosen: Vec<_> =
            SCENARIOS.into_iter().filter(|scenario| scenario.name.contains(&self.filter)).collect();
        ensure!(
            !chosen.is_empty(),
            "no scenario has \"{}\" in its name; there are: {}",
            self.filter,
            SCENARIOS.map(|scenario| scenario.name).join(", ")
        );
        Ok(chosen)
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| "not a number".to_owned())?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("must be more than zero".to_owned()),
    }
}

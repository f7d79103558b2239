//! A run of load against one server, and the figures that runs add up to.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;
use nix::sys::resource::{UsageWho, getrusage};
use nix::unistd::syncfs;

use super::fleet::{Fleet, Tally, latencies};
use super::limits::Limits;
use super::msgpack::Msgpack;
use super::pin::OneCpu;
use super::resp::Resp;
use super::server::{Peer, Server};
use super::wire::Wire;
use super::work::{Scenario, Work};

/// Any number does; a fixed one draws the same rows every time.
const SEED: u64 = 0x5eed;

/// Fills caches and lets the servers' threads find their connections.
const WARM_UP: Duration = Duration::from_millis(200);

/// A load that both servers take fast.
const FILL_CLIENTS: usize = 16;
const FILL_PIPELINE: usize = 16;

/// What every run has in common.
#[derive(Debug)]
pub(crate) struct Setting<'a> {
    pub(crate) rows: u32,
    pub(crate) length: Duration,
    /// Where the servers keep their data.
    pub(crate) data: &'a Path,
}

/// One run's figures.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) ops_per_s: f64,
    /// What the server's threads used, work it put off included.
    pub(crate) server_cpu_us: f64,
    /// The part of the run that the load generator was on a CPU: near one, it and
    /// not the server sets the pace, and ratios are drawn towards one.
    pub(crate) client_share: f64,
    pub(crate) latencies_ns: Histogram<u64>,
}

impl Setting<'_> {
    /// Puts every row once.
    pub(crate) fn fill(&self, server: &Server) -> Result<()> {
        let mut work = Work::fill(self.rows, SEED);
        let fill = match server.peer {
            Peer::Cortexd => fill::<Msgpack>(server, &mut work),
            Peer::Redis => fill::<Resp>(server, &mut work),
        };
        server.explained(fill.and_then(|()| server.wait_until_idle()), || {
            format!("load {} rows into {}", self.rows, server.peer.name())
        })
    }

    /// Loads the server with `scenario`; both servers get the same operations in
    /// the runs of one `pair`.
    pub(crate) fn run(&self, server: &Server, scenario: &Scenario, pair: u32) -> Result<Run> {
        let mut work = Work::draw(self.rows, scenario.get_percent, SEED + u64::from(pair));
        let run = match server.peer {
            Peer::Cortexd => self.run_as::<Msgpack>(server, scenario, &mut work),
            Peer::Redis => self.run_as::<Resp>(server, scenario, &mut work),
        };
        server.explained(run, || format!("run \"{}\" on {}", scenario.name, server.peer.name()))
    }

    fn run_as<W: Wire>(
        &self,
        server: &Server,
        scenario: &Scenario,
        work: &mut Work,
    ) -> Result<Run> {
        let _pinned =
            scenario.is_on_one_cpu().then(|| OneCpu::hold(Some(server.pid()))).transpose()?;
        let mut fleet = Fleet::<W>::connect(&server.socket, scenario.clients, scenario.pipeline)?;
        self.write_back()?;
        check(&fleet.drive(work, Some(WARM_UP))?)?;
        let server_cpu = server.cpu()?;
        let client_cpu = thread_cpu()?;
        let tally = fleet.drive(work, Some(self.length))?;
        let client_cpu = thread_cpu()?.saturating_sub(client_cpu);
        check(&tally)?;
        server.wait_until_idle()?;
        let server_cpu = server.cpu()?.saturating_sub(server_cpu);
        Ok(Run::of(tally, server_cpu, client_cpu))
    }

    /// Gets dirty pages out of the way, so that no run pays for the one before it.
    fn write_back(&self) -> Result<()> {
        let dir = File::open(self.data).context("open the data directory")?;
        syncfs(dir).context("sync the data's file system")
    }
}

fn fill<W: Wire>(server: &Server, work: &mut Work) -> Result<()> {
    let mut fleet = Fleet::<W>::connect(&server.socket, FILL_CLIENTS, FILL_PIPELINE)?;
    check(&fleet.drive(work, None)?)
}

fn check(tally: &Tally) -> Result<()> {
    ensure!(
        tally.errors == 0,
        "{} of {} requests failed, the first with: {}",
        tally.errors,
        tally.ops,
        tally.first_error.as_deref().unwrap_or("nothing said")
    );
    Ok(())
}

/// The CPU time of the calling thread so far.
fn thread_cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).context("ask for this thread's CPU time")?;
    let parts = [usage.user_time(), usage.system_time()];
    let micros: i64 = parts.iter().map(|time| time.tv_sec() * 1_000_000 + time.tv_usec()).sum();
    Ok(Duration::from_micros(u64::try_from(micros).context("read this thread's CPU time")?))
}

impl Run {
    fn of(tally: Tally, server_cpu: Duration, client_cpu: Duration) -> Self {
        let ops = tally.ops as f64;
        let elapsed = tally.elapsed.as_secs_f64();
        Self {
            ops_per_s: ops / elapsed,
            server_cpu_us: server_cpu.as_secs_f64() * 1e6 / ops,
            client_share: client_cpu.as_secs_f64() / elapsed,
            latencies_ns: tally.latencies_ns,
        }
    }
}

/// The runs of one server in one scenario, in the order of the pairs.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) peer: Peer,
    pub(crate) runs: Vec<Run>,
}

impl Series {
    pub(crate) fn of(peer: Peer) -> Self {
        Self { peer, runs: Vec::new() }
    }

    /// The median over the runs of the figure that `pick` takes from each.
    pub(crate) fn median(&self, pick: impl Fn(&Run) -> f64) -> f64 {
        median(&self.runs.iter().map(pick).collect::<Vec<_>>())
    }

    /// The latency, in microseconds, that this part of all requests stayed under.
    pub(crate) fn latency_us(&self, quantile: f64) -> Result<f64> {
        let mut all = latencies()?;
        for run in &self.runs {
            all.add(&run.latencies_ns).context("add up the latencies of runs")?;
        }
        Ok(all.value_at_quantile(quantile) as f64 / 1e3)
    }
}

/// Everything that was measured in one scenario.
#[derive(Debug)]
pub(crate) struct Measured {
    pub(crate) scenario: Scenario,
    pub(crate) limits: Limits,
    pub(crate) series: Vec<Series>,
}

impl Measured {
    /// Throughput of cortexd over that of Redis, pair by pair; `None` when only one
    /// of them was measured.
    pub(crate) fn ratios(&self) -> Option<Spread> {
        let ours = self.series_of(Peer::Cortexd)?;
        let theirs = self.series_of(Peer::Redis)?;
        let pairs = ours.runs.iter().zip(&theirs.runs);
        let ratios: Vec<_> =
            pairs.map(|(ours, theirs)| ours.ops_per_s / theirs.ops_per_s).collect();
        Some(Spread::of(&ratios))
    }

    fn series_of(&self, peer: Peer) -> Option<&Series> {
        self.series.iter().find(|series| series.peer == peer)
    }

    /// The best that one request after the other could cost, where they come so.
    pub(crate) fn serial_limit_us(&self) -> Option<f64> {
        let is_put = self.scenario.get_percent == 0;
        self.scenario.is_serial().then(|| self.limits.serial_us(is_put))
    }
}

/// A median and what it lies between.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(figures: &[f64]) -> Self {
        Self {
            median: median(figures),
            min: figures.iter().copied().fold(f64::INFINITY, f64::min),
            max: figures.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }
}

/// The middle of `figures`, which are at least one.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[half] } else { f64::midpoint(sorted[half - 1], sorted[half]) }
}

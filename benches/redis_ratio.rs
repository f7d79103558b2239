//! How many times as fast as Redis `cortexd` is, on the same machine in the same minutes.
//!
//! One load generator drives both over Unix sockets. Both answer a write only when
//! it is on disk: Redis runs with `appendfsync always`. Their runs alternate, the
//! order within a pair too, so that what a noisy machine does to one it does to the
//! other; the ratio is the median of the pairs'. A server's CPU time includes what
//! it put off until after the load. Any error reply fails the benchmark.
//!
//! ```text
//! cargo bench --bench redis_ratio -- --filter put --pairs 7 --json figures.json
//! ```

#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

mod load;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use tempfile::TempDir;

use load::args::Args;
use load::figures::{Measured, Series, Setting};
use load::interrupt::Interrupt;
use load::limits::Limits;
use load::report;
use load::server::Server;
use load::work::Scenario;

fn main() -> ExitCode {
    if cfg!(debug_assertions) {
        println!("redis_ratio: nothing measured, this is a debug build; use `cargo bench`");
        return ExitCode::SUCCESS;
    }
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("redis_ratio: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let scenarios = args.scenarios()?;
    let interrupt = Interrupt::watch()?;
    // Dropped last to first: the servers end before their directories go.
    let data = data_dir(&args.dir)?;
    let sockets = socket_dir()?;
    let servers = start(args, sockets.path(), data.path())?;
    let setting = Setting { rows: args.keys, length: args.seconds, data: data.path() };
    for server in &servers {
        setting.fill(server)?;
    }
    println!("{}", report::header());
    let mut all = Vec::new();
    for scenario in scenarios {
        let measured = measure(&setting, &servers, scenario, args.pairs, &interrupt)?;
        println!("{}", report::lines(&measured)?);
        all.push(measured);
    }
    println!("\n{}", report::limits(&all));
    args.json.as_deref().map_or(Ok(()), |file| write_json(file, args, &all))
}

fn start(args: &Args, sockets: &Path, data: &Path) -> Result<Vec<Server>> {
    args.peers().into_iter().map(|peer| Server::start(peer, sockets, data)).collect()
}

/// Below a real file system: syncs cost nothing on tmpfs, and prove nothing.
fn data_dir(parent: &Path) -> Result<TempDir> {
    fs::create_dir_all(parent).with_context(|| format!("create {}", parent.display()))?;
    let kind = statfs(parent)
        .with_context(|| format!("look at the file system of {}", parent.display()))?
        .filesystem_type();
    ensure!(
        kind != TMPFS_MAGIC,
        "{} is on tmpfs, where nothing is durable: choose another with --dir",
        parent.display()
    );
    let parent = parent.canonicalize().context("resolve --dir")?;
    tempfile::Builder::new()
        .prefix("redis_ratio-")
        .tempdir_in(parent)
        .context("make a data directory")
}

/// Apart from the data, since a socket's path must fit into 107 bytes.
fn socket_dir() -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix("redis_ratio-")
        .tempdir()
        .context("make a directory for sockets")
}

fn measure(
    setting: &Setting<'_>,
    servers: &[Server],
    scenario: Scenario,
    pairs: u32,
    interrupt: &Interrupt,
) -> Result<Measured> {
    let limits = Limits::measure(setting.data)?;
    let mut series: Vec<_> = servers.iter().map(|server| Series::of(server.peer)).collect();
    for pair in 0..pairs {
        let mut order: Vec<_> = servers.iter().zip(&mut series).collect();
        if pair % 2 == 1 {
            order.reverse();
        }
        for (server, series) in order {
            interrupt.check()?;
            series.runs.push(setting.run(server, &scenario, pair)?);
        }
    }
    Ok(Measured { scenario, limits, series })
}

fn write_json(file: &Path, args: &Args, all: &[Measured]) -> Result<()> {
    let json = report::json(args, all)?;
    fs::write(file, format!("{json:#}\n")).with_context(|| format!("write {}", file.display()))
}

//! What replication costs: how long a write takes to be readable on another machine, how fast a replica fills,
//! what being in sync costs.
//!
//! Limits are measured in the same run: a round trip over the same TLS and a sync of the same disk for the
//! first, the same rows sent over the same TLS and put into another SQLite, without a daemon, for the
//! second. Any error fails the benchmark.
//!
//! ```text
//! cargo bench --bench sync_cost             # a million rows
//! ROWS=100000 cargo bench --bench sync_cost
//! ```

#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

#[path = "lab/mod.rs"]
mod lab;

use std::fs::{self, File};
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use lab::{Daemon, Mesh, now, quantile, round_trip, text};

/// Writes whose way to the other machine is timed, and those before that are not.
const WRITES: u32 = 2000;
const WARM_UP: u32 = 200;

/// Between two of them, so that each finds both machines idle.
const PAUSE: Duration = Duration::from_millis(2);

/// Round trips and syncs that are timed beside.
const COMPARED: usize = 2000;

/// How long a replica may take to fill.
const FILLING: Duration = Duration::from_secs(600);

/// How long both machines are watched doing nothing.
const IDLE: Duration = Duration::from_secs(10);

const LINK: &[u8] = b"cortex-sync/1";

/// Rows of the limit that are sent at once.
const LIMIT_BATCH: usize = 1024;

fn main() -> ExitCode {
    if cfg!(debug_assertions) {
        println!("sync_cost: nothing measured, this is a debug build; use `cargo bench`");
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sync_cost: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let rows = std::env::var("ROWS").map_or(Ok(1_000_000), |rows| rows.parse())?;
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let mesh = Mesh::make(dir.path(), &["a", "b"])?;
    {
        let (a, b) = (mesh.start("a")?, mesh.start("b")?);
        latency(dir.path(), &mesh, &a, &b)?;
    }
    let a = mesh.start("a")?;
    filling(dir.path(), &mesh, &a, rows)
}

/// From a write on one machine to a read of it on the other.
fn latency(dir: &Path, mesh: &Mesh, a: &Daemon, b: &Daemon) -> Result<()> {
    a.ask(&["create", "small", "id", "--scope", "all"])?;
    a.ask(&["put", "small", "{\"id\":\"k\",\"n\":0}"])?;
    a.ask(&["sync", "wait", "small", "--all", "--timeout", "30"])?;
    let owner = nix::unistd::geteuid();
    let (mut writer, mut reader) = (a.connect()?, b.connect()?);
    let here = Table(format!("{owner}:small"));
    let there = Table(format!("{owner}@a:small"));
    let mut times = Vec::new();
    let mut committed = Vec::new();
    for n in 1..=WARM_UP + WRITES {
        thread::sleep(PAUSE);
        let started = now();
        call(&mut writer, &here.put(n)?)?;
        let acknowledged = started.elapsed();
        let wanted = record(n)?;
        while !call(&mut reader, &there.get()?)?.ends_with(&wanted) {
            ensure!(started.elapsed() < Duration::from_secs(10), "write {n} does not arrive");
        }
        if n > WARM_UP {
            times.push(started.elapsed());
            committed.push(acknowledged);
        }
    }
    let trip = |pause| {
        let home = mesh.node("a")?;
        let port = home.serve(LINK, |mut stream| {
            let mut message = [0; 200];
            loop {
                stream.read_exact(&mut message)?;
                stream.write_all(&message)?;
                stream.flush()?;
            }
        })?;
        let stream = home.reached_by(mesh.node("b")?, port, LINK)?;
        round_trip(stream, &[7; 200], &[7; 200], COMPARED, pause)
    };
    // A machine that does nothing takes longer over each than one that does nothing else.
    let (trip, idle_trip) = (trip(Duration::ZERO)?, trip(PAUSE)?);
    let (sync, idle_sync) = (syncs(dir, Duration::ZERO)?, syncs(dir, PAUSE)?);
    let (limit, idle_limit) = (trip + sync, idle_trip + idle_sync);
    let (p50, p99) = (quantile(&mut times, 0.5), quantile(&mut times, 0.99));
    println!("a write on one machine to a read of it on the other, {WRITES} writes, both idle");
    println!("  written to readable      p50 {}, p99 {}", us(p50), us(p99));
    println!("  written to acknowledged  p50 {}", us(quantile(&mut committed, 0.5)));
    println!("  round trip of TLS        p50 {}, {} where both idle", us(trip), us(idle_trip));
    println!("  sync of 4 KiB            p50 {}, {} where idle", us(sync), us(idle_sync));
    println!(
        "  readable / (trip + sync) {:.2}, {:.2} where idle",
        quotient(p50, limit),
        quotient(p50, idle_limit)
    );
    Ok(())
}

/// How long it takes to overwrite and sync a page of a file that is there, with a pause before each.
fn syncs(dir: &Path, pause: Duration) -> Result<Duration> {
    let file = File::create(dir.join("page"))?;
    file.write_all_at(&[1; 4096], 0)?;
    file.sync_all()?;
    let mut times = Vec::new();
    for n in 0..COMPARED {
        thread::sleep(pause);
        let started = now();
        file.write_all_at(&[u8::try_from(n % 256)?; 4096], 0)?;
        file.sync_data()?;
        times.push(started.elapsed());
    }
    Ok(quantile(&mut times, 0.5))
}

/// A new machine gets a replica of a large table.
fn filling(dir: &Path, mesh: &Mesh, a: &Daemon, rows: u32) -> Result<()> {
    a.ask(&["create", "large", "id", "--scope", "a"])?;
    let lines = dir.join("rows.ndjson");
    let mut out = BufWriter::new(File::create(&lines)?);
    for n in 0..rows {
        writeln!(out, "{{\"id\":\"{}\",\"n\":{n},\"text\":\"{}\"}}", key(n), text_of(n))?;
    }
    out.into_inner()?.sync_all()?;
    a.ask(&["import", "large", &text(&lines)])?;
    fs::remove_file(lines)?;

    let b = mesh.start("b")?;
    let before = loopback_bytes()?;
    a.ask(&["scope", "large", "a,b"])?;
    let started = now();
    a.ask(&["sync", "wait", "large", "--all", "--timeout", &FILLING.as_secs().to_string()])?;
    let took = started.elapsed();
    let sent = loopback_bytes()? - before;
    let raw = limit(dir, mesh, rows)?;
    let per_s = |time: Duration| f64::from(rows) / time.as_secs_f64();
    println!("a replica of {rows} rows of some 200 bytes fills");
    println!(
        "  from the decision to verified {:.2} s, {:.0} rows/s",
        took.as_secs_f64(),
        per_s(took)
    );
    println!("  bytes on the wire per row     {:.0}", sent as f64 / f64::from(rows));
    println!(
        "  without daemons               {:.2} s, {:.0} rows/s",
        raw.as_secs_f64(),
        per_s(raw)
    );
    println!("  filled / without daemons      {:.2}", quotient(took, raw));
    for (name, daemon) in [("source", a), ("replica", &b)] {
        println!("  resident, {name:<19} {} MiB", resident_kib(daemon.pid())? / 1024);
    }
    idle(a, &b)
}

/// What it costs to be in sync, and to say so.
fn idle(a: &Daemon, b: &Daemon) -> Result<()> {
    let before = cpu(a)? + cpu(b)?;
    thread::sleep(IDLE);
    let used = cpu(a)? + cpu(b)? - before;
    let started = now();
    let status = a.ask(&["sync", "status", "large"])?;
    let took = started.elapsed();
    let status = String::from_utf8(status)?;
    ensure!(status.contains("in_sync"), "not in sync: {status}");
    println!("two machines in sync, doing nothing");
    println!("  CPU of both              {:.2} % of one core", quotient(used, IDLE) * 100.0);
    println!("  cortex sync status       {} with its process", us(took));
    Ok(())
}

/// The same rows over the same TLS into another SQLite, in the order of their keys, without anything else.
fn limit(dir: &Path, mesh: &Mesh, rows: u32) -> Result<Duration> {
    let home = mesh.node("a")?;
    let port = home.serve(LINK, move |mut stream| {
        let mut batch = Vec::new();
        let mut n = 0;
        while n < rows {
            batch.clear();
            let end = (n + u32::try_from(LIMIT_BATCH)?).min(rows);
            for row in n..end {
                let (key, value) = (key(row), value_of(row));
                batch.extend_from_slice(&u32::try_from(key.len())?.to_be_bytes());
                batch.extend_from_slice(key.as_bytes());
                batch.extend_from_slice(&u32::try_from(value.len())?.to_be_bytes());
                batch.extend_from_slice(&value);
            }
            stream.write_all(&(end - n).to_be_bytes())?;
            stream.write_all(&u32::try_from(batch.len())?.to_be_bytes())?;
            stream.write_all(&batch)?;
            n = end;
        }
        stream.flush()?;
        stream.read_exact(&mut [0])?;
        Ok(())
    })?;
    let path = dir.join("limit.db");
    let db = rusqlite::Connection::open(&path)?;
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
         CREATE TABLE records (id INTEGER PRIMARY KEY, table_id INTEGER NOT NULL, key BLOB NOT NULL,
            value BLOB, hlc INTEGER, actor INTEGER, seq INTEGER, lsn INTEGER);
         CREATE UNIQUE INDEX records_by_key ON records (table_id, key);",
    )?;
    let mut stream = home.reached_by(mesh.node("b")?, port, LINK)?;
    let started = now();
    let mut left = rows;
    while left > 0 {
        let (count, length) = (number(&mut stream)?, number(&mut stream)?);
        let mut batch = vec![0; usize::try_from(length)?];
        stream.read_exact(&mut batch)?;
        db.execute_batch("BEGIN IMMEDIATE")?;
        {
            let mut insert = db.prepare_cached(
                "INSERT INTO records (table_id, key, value, hlc, actor, seq, lsn)
                 VALUES (1, ?1, ?2, 1, 1, ?3, ?3)",
            )?;
            let mut rest = &batch[..];
            for n in 0..count {
                let key = part(&mut rest)?;
                insert.execute((key, part(&mut rest)?, n))?;
            }
        }
        db.execute_batch("COMMIT")?;
        left -= count;
    }
    stream.write_all(&[1])?;
    Ok(started.elapsed())
}

fn number(stream: &mut impl Read) -> Result<u32> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(u32::from_be_bytes(bytes))
}

fn part<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8]> {
    let length = usize::try_from(number(rest)?)?;
    let (part, after) = rest.split_at_checked(length).context("a batch that ends early")?;
    *rest = after;
    Ok(part)
}

fn key(n: u32) -> String {
    format!("row-{n:012}")
}

/// Text that compresses as text does.
fn text_of(n: u32) -> String {
    let alphabet = ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel"];
    let mut state = u64::from(n).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut text = String::new();
    while text.len() < 150 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.push_str(alphabet[usize::try_from(state >> 61).unwrap_or(0)]);
        text.push_str(&format!(" {:03} ", state >> 40 & 0x1ff));
    }
    text
}

/// A record of that row as the daemon keeps it, nearly.
fn value_of(n: u32) -> Vec<u8> {
    format!("...id{}.n{n}.text{}", key(n), text_of(n)).into_bytes()
}

/// A table as requests name it.
struct Table(String);

impl Table {
    fn put(&self, n: u32) -> Result<Vec<u8>> {
        let mut request = vec![0x94, 0, 1];
        rmp::encode::write_str(&mut request, "put")?;
        request.push(0x92);
        rmp::encode::write_str(&mut request, &self.0)?;
        request.extend_from_slice(&record(n)?);
        Ok(request)
    }

    fn get(&self) -> Result<Vec<u8>> {
        let mut request = vec![0x94, 0, 1];
        rmp::encode::write_str(&mut request, "get")?;
        request.push(0x92);
        rmp::encode::write_str(&mut request, &self.0)?;
        rmp::encode::write_str(&mut request, "k")?;
        Ok(request)
    }
}

fn record(n: u32) -> Result<Vec<u8>> {
    let mut record = vec![0x82];
    rmp::encode::write_str(&mut record, "id")?;
    rmp::encode::write_str(&mut record, "k")?;
    rmp::encode::write_str(&mut record, "n")?;
    rmp::encode::write_uint(&mut record, n.into())?;
    Ok(record)
}

/// Sends a request and takes its answer, which is short.
fn call(stream: &mut (impl Read + Write), request: &[u8]) -> Result<Vec<u8>> {
    stream.write_all(request)?;
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer)?;
    answer.truncate(length);
    ensure!(answer.get(3) == Some(&0xc0), "refused: {}", String::from_utf8_lossy(&answer));
    Ok(answer)
}

fn loopback_bytes() -> Result<u64> {
    let devices = fs::read_to_string("/proc/net/dev")?;
    let line = devices.lines().find(|line| line.trim_start().starts_with("lo:"));
    let received = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(received.context("a loopback device")?.parse()?)
}

fn resident_kib(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.context("a size")?.parse()?)
}

/// The processor time that a daemon has used.
fn cpu(daemon: &Daemon) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", daemon.pid()))?;
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |field: usize| -> Result<u64> { Ok(fields.get(field).context("a time")?.parse()?) };
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}

fn us(time: Duration) -> String {
    format!("{:.0} us", time.as_secs_f64() * 1e6)
}

fn quotient(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

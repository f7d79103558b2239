//! What a request of another machine costs beside one of this machine, and what a handshake costs.
//!
//! The limit is measured in the same run: the same TLS with the same certificates over the same
//! loopback, with nothing behind it but a thread that answers what a daemon would. The runs alternate,
//! so that what a noisy machine does to one it does to the others; each figure is the median of the
//! rounds. Any error fails the benchmark.
//!
//! ```text
//! cargo bench --bench remote_cost
//! ```

#![expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]

#[path = "lab/mod.rs"]
mod lab;

use std::io::{Read, Write};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};

use lab::{Daemon, Mesh, Node, now, round_trip};

/// Rounds; each measures everything once.
const ROUNDS: usize = 5;

/// Requests of one round over one connection, and connections of one round.
const REQUESTS: usize = 3000;
const CONNECTIONS: usize = 100;

const ALPN: &[u8] = b"cortex-rpc/1";

/// `[0, 1, "get", ["1000:t", 1]]` with the uid of whoever runs this, and the daemon's answer.
struct Talk {
    request: Vec<u8>,
    answer: Vec<u8>,
}

fn main() -> ExitCode {
    if cfg!(debug_assertions) {
        println!("remote_cost: nothing measured, this is a debug build; use `cargo bench`");
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("remote_cost: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mesh = Mesh::make(dir.path(), &["home", "office"])?;
    let (home, office) = (mesh.node("home")?, mesh.node("office")?);
    let daemon = mesh.start("home")?;
    let talk = prepare(&daemon)?;
    let bare = bare_server(home, &talk)?;
    let one_by_one = |stream: Box<dyn Stream>| {
        round_trip(stream, &talk.request, &talk.answer, REQUESTS, Duration::ZERO)
    };
    let connect = |port| home.reached_by(office, port, ALPN);

    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        rounds.push(Round {
            local: one_by_one(Box::new(daemon.connect()?))?,
            remote: one_by_one(Box::new(connect(home.port)?))?,
            bare: one_by_one(Box::new(connect(bare)?))?,
            handshake: handshakes(|| connect(home.port), &talk)?,
            bare_handshake: handshakes(|| connect(bare), &talk)?,
        });
    }
    report(&rounds);
    Ok(())
}

/// A connection of either kind.
trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// The medians of one round.
struct Round {
    local: Duration,
    remote: Duration,
    bare: Duration,
    handshake: Duration,
    bare_handshake: Duration,
}

fn report(rounds: &[Round]) {
    let median_of = |of: fn(&Round) -> Duration| median(rounds.iter().map(of).collect());
    let ratio = |of: fn(&Round) -> f64| {
        let mut ratios: Vec<f64> = rounds.iter().map(of).collect();
        ratios.sort_by(f64::total_cmp);
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        format!("{:.2} ({least:.2}-{most:.2})", ratios[ratios.len() / 2])
    };
    let us = |time: Duration| format!("{:.1} us", time.as_secs_f64() * 1e6);
    println!("a get of 100 B, one after another, median of {ROUNDS} rounds of {REQUESTS}");
    println!("  of this machine, Unix socket        {}", us(median_of(|r| r.local)));
    println!("  of another machine, TLS on loopback {}", us(median_of(|r| r.remote)));
    println!("  TLS with nothing behind it          {}", us(median_of(|r| r.bare)));
    println!("  other machine / this machine        {}", ratio(|r| quotient(r.remote, r.local)));
    println!("  other machine / TLS alone           {}", ratio(|r| quotient(r.remote, r.bare)));
    println!("a connection with its handshake and one request, {ROUNDS} rounds of {CONNECTIONS}");
    let each = median_of(|r| r.handshake);
    println!(
        "  to the daemon                       {} ({:.0} per s)",
        us(each),
        1.0 / each.as_secs_f64()
    );
    println!("  to TLS with nothing behind it       {}", us(median_of(|r| r.bare_handshake)));
    println!(
        "  daemon / TLS alone                  {}",
        ratio(|r| quotient(r.handshake, r.bare_handshake))
    );
}

fn quotient(a: Duration, b: Duration) -> f64 {
    a.as_secs_f64() / b.as_secs_f64()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn handshakes<S: Read + Write>(connect: impl Fn() -> Result<S>, talk: &Talk) -> Result<Duration> {
    let mut times = Vec::with_capacity(CONNECTIONS);
    let mut answer = vec![0; talk.answer.len()];
    for _ in 0..CONNECTIONS {
        let started = now();
        let mut stream = connect()?;
        stream.write_all(&talk.request)?;
        stream.flush()?;
        stream.read_exact(&mut answer)?;
        times.push(started.elapsed());
    }
    Ok(median(times))
}

/// Makes a record that both may read, and learns how the daemon answers for it.
fn prepare(daemon: &Daemon) -> Result<Talk> {
    daemon.ask(&["create", "t", "id", "--scope", "all"])?;
    daemon.ask(&["put", "t", &format!("{{\"id\":1,\"text\":\"{}\"}}", "x".repeat(90))])?;
    daemon.ask(&["acl", "grant", "*", "t", "read"])?;
    let table = format!("{}:t", nix::unistd::geteuid());
    let mut request = vec![0x94, 0, 1, 0xa3, b'g', b'e', b't', 0x92];
    rmp::encode::write_str(&mut request, &table)?;
    request.push(1);
    let mut stream = daemon.connect()?;
    stream.write_all(&request)?;
    let mut answer = vec![0; 4096];
    let length = stream.read(&mut answer)?;
    answer.truncate(length);
    ensure!(length > 100 && answer[3] == 0xc0, "no record: {answer:x?}");
    Ok(Talk { request, answer })
}

/// Answers every request with what the daemon has answered, over the same TLS.
fn bare_server(home: &Node, talk: &Talk) -> Result<u16> {
    let (length, answer) = (talk.request.len(), talk.answer.clone());
    home.serve(ALPN, move |mut stream| {
        let mut request = vec![0; length];
        loop {
            stream.read_exact(&mut request)?;
            stream.write_all(&answer)?;
            stream.flush()?;
        }
    })
}

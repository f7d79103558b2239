//! What the machine itself allows: its disk's syncs and its sockets' round trips.
//!
//! These drift from minute to minute like everything else, so they are taken
//! again before every scenario.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::figures::median;
use super::pin::OneCpu;

const BLOCK: [u8; 4096] = [0x5a; 4096];
/// As much as a request or its reply carries.
const MESSAGE_BYTES: usize = 100;

/// A disk sync takes about 0.2 ms, so these take less than 0.1 s.
const SYNCS: usize = 200;
/// A round trip takes about 10 µs, so these take less than 0.1 s.
const ROUND_TRIPS: usize = 4000;
/// The first ones run into cold caches and a thread that is just starting.
const WARM_UP: usize = 100;

/// Medians, in microseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) append_us: f64,
    pub(crate) overwrite_us: f64,
    pub(crate) round_trip_us: f64,
}

impl Limits {
    /// Takes the limits now, the disk's in `dir`.
    pub(crate) fn measure(dir: &Path) -> Result<Self> {
        let path = dir.join("limits");
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .with_context(|| format!("create {}", path.display()))?;
        let append_us = append(&file).context("time appends")?;
        let overwrite_us = overwrite(&file).context("time overwrites")?;
        std::fs::remove_file(&path).context("remove the file of the disk's limits")?;
        Ok(Self {
            append_us,
            overwrite_us,
            round_trip_us: round_trip().context("time round trips")?,
        })
    }

    /// What one request after the other could cost at best: a round trip, and for
    /// a durable write the cheaper way of making it so.
    pub(crate) fn serial_us(&self, is_put: bool) -> f64 {
        let sync = if is_put { self.append_us.min(self.overwrite_us) } else { 0.0 };
        self.round_trip_us + sync
    }
}

fn append(mut file: &File) -> std::io::Result<f64> {
    timed(SYNCS, |_| {
        file.write_all(&BLOCK)?;
        file.sync_data()
    })
}

/// Writes over what [`append`] wrote, so that no metadata changes.
fn overwrite(file: &File) -> std::io::Result<f64> {
    timed(SYNCS, |i| {
        file.write_all_at(&BLOCK, i as u64 * BLOCK.len() as u64)?;
        file.sync_data()
    })
}

/// On one CPU, like the scenario that is held against it.
fn round_trip() -> Result<f64> {
    let _pinned = OneCpu::hold(None)?;
    let (mut near, mut far) = UnixStream::pair()?;
    let echo = thread::spawn(move || {
        let mut message = [0; MESSAGE_BYTES];
        // The end of the stream is how the near side says that it is done.
        while far.read_exact(&mut message).is_ok() && far.write_all(&message).is_ok() {}
    });
    let mut message = [0; MESSAGE_BYTES];
    let mut ask = |_| {
        near.write_all(&message)?;
        near.read_exact(&mut message)
    };
    timed(WARM_UP, &mut ask)?;
    let round_trip_us = timed(ROUND_TRIPS, &mut ask);
    drop(near);
    echo.join().map_err(|_| anyhow!("the echo thread panicked"))?;
    Ok(round_trip_us?)
}

/// The median of `count` calls, in microseconds.
fn timed(count: usize, mut call: impl FnMut(usize) -> std::io::Result<()>) -> std::io::Result<f64> {
    let mut micros = Vec::with_capacity(count);
    for i in 0..count {
        let start = Instant::now();
        call(i)?;
        micros.push(as_micros(start.elapsed()));
    }
    Ok(median(&micros))
}

fn as_micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

//! The one place where time and randomness enter the daemon.
//! Everybody else takes them as arguments or calls here; clippy.toml bans the sources elsewhere.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch by the wall clock; 0 for a clock set before it.
#[must_use]
pub fn wall_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX)
}

/// The monotonic clock, for durations.
#[must_use]
pub fn monotonic() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    Instant::now()
}

/// 128 random bits from the operating system (getrandom(2)).
///
/// # Panics
/// If the kernel cannot supply randomness, which it always can once booted.
#[must_use]
pub fn random_id() -> [u8; 16] {
    let mut id = [0; 16];
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    getrandom::fill(&mut id).expect("the kernel supplies randomness");
    id
}

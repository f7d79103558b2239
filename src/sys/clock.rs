//! The clocks: the one place where time enters the daemon.
//! Everybody else takes it as an argument or calls here; clippy.toml bans the sources elsewhere.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// In builds for tests: a file that holds by how many milliseconds the wall clock is wrong.
#[cfg(debug_assertions)]
const TEST_CLOCK: &str = "CORTEX_TEST_CLOCK";

/// How wrong a test wants the wall clock to be.
#[cfg(debug_assertions)]
fn wrong_by_ms() -> i64 {
    static FILE: std::sync::LazyLock<Option<std::ffi::OsString>> =
        std::sync::LazyLock::new(|| std::env::var_os(TEST_CLOCK));
    let text = FILE.as_ref().and_then(|file| std::fs::read_to_string(file).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// Milliseconds since the Unix epoch by the wall clock; 0 for a clock set before it.
#[must_use]
pub fn wall_ms() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let ms = u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX);
    #[cfg(debug_assertions)]
    let ms = ms.saturating_add_signed(wrong_by_ms());
    ms
}

/// The monotonic clock, for durations.
#[must_use]
pub fn monotonic() -> Instant {
    #[expect(clippy::disallowed_methods, reason = "this is the one place")]
    Instant::now()
}

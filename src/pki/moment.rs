//! Points in time as people read them: `2026-11-21 13:30:00 UTC`.
//! Leaves telling the time to `ambient`.

use time::OffsetDateTime;

/// A point in time, from the seconds since 1970.
pub(super) fn datetime(unix_s: u64) -> OffsetDateTime {
    // What lies beyond the year 9999 is as good as never.
    let seconds = i64::try_from(unix_s).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .unwrap_or_else(|_| time::PrimitiveDateTime::MAX.assume_utc())
}

/// The same as text.
pub(super) fn shown(unix_s: u64) -> String {
    let at = datetime(unix_s);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second) = (at.hour(), at.minute(), at.second());
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_shown_in_utc() {
        assert_eq!(shown(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(shown(1_790_000_000), "2026-09-21 14:13:20 UTC");
        assert!(shown(u64::MAX).starts_with("9999-12-31"));
    }
}

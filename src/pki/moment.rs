//! Points in time as text, in the one form `2026-11-21T13:30:00Z`.
//! Leaves reading the clock to `sys`.

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

/// A point in time, from the seconds since 1970.
pub(super) fn datetime(unix_s: u64) -> OffsetDateTime {
    // What lies beyond the year 9999 is as good as never.
    let seconds = i64::try_from(unix_s).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds)
        .unwrap_or_else(|_| PrimitiveDateTime::MAX.assume_utc())
}

/// The seconds since 1970 as text.
#[must_use]
pub fn shown(unix_s: u64) -> String {
    let at = datetime(unix_s);
    let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
    let (hour, minute, second) = (at.hour(), at.minute(), at.second());
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Reads what [`shown`] has written; none for anything else.
pub(super) fn read(text: &str) -> Option<u64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u16>().ok();
    let byte = |from: usize, to: usize| u8::try_from(number(from, to)?).ok();
    let month = Month::try_from(byte(5, 7)?).ok()?;
    let date = Date::from_calendar_date(i32::from(number(0, 4)?), month, byte(8, 10)?).ok()?;
    let time = Time::from_hms(byte(11, 13)?, byte(14, 16)?, byte(17, 19)?).ok()?;
    let at =
        u64::try_from(PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp()).ok()?;
    (shown(at) == text).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_shown_in_utc_and_read_back() {
        assert_eq!(shown(0), "1970-01-01T00:00:00Z");
        assert_eq!(shown(1_790_000_000), "2026-09-21T14:13:20Z");
        assert!(shown(u64::MAX).starts_with("9999-12-31"));
        for at in [0, 951_782_400, 1_790_000_000, 253_402_300_799] {
            assert_eq!(read(&shown(at)), Some(at));
        }
        for bad in [
            "",
            "2026-09-21",
            "2026-09-21 14:13:20Z",
            "2026-02-30T00:00:00Z",
            "é026-09-21T14:13:20Z",
        ] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}

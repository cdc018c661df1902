//! A timestamp: a second of the calendar, in UTC.

use std::fmt;

/// Whole seconds since 1970-01-01T00:00:00Z, without leap seconds. It is displayed as RFC 3339 has it, which ends with the year 9999.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(u64);

/// 9999-12-31T23:59:59Z
const LAST: u64 = 253_402_300_799;

const SECONDS_A_DAY: u64 = 86_400;

/// Days from 0000-03-01 to 1970-01-01. Years that begin in March have their leap day last.
const DAYS_BEFORE_1970: u64 = 719_468;

const DAYS_IN_400_YEARS: u64 = 146_097;

impl Timestamp {
    /// So many seconds after 1970 began; the last second of the year 9999 if there are more.
    #[must_use]
    pub fn from_unix(seconds: u64) -> Self {
        Self(seconds.min(LAST))
    }

    /// Seconds since 1970 began.
    #[must_use]
    pub const fn as_unix(self) -> u64 {
        self.0
    }

    /// Year, month and day, the latter two from 1 (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`).
    const fn date(self) -> (u64, u64, u64) {
        let days = self.0 / SECONDS_A_DAY + DAYS_BEFORE_1970;
        let (era, day) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
        let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (next, month) = if month < 10 { (0, month + 3) } else { (1, month - 9) };
        (era * 400 + year + next, month, day)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.date();
        let second = self.0 % SECONDS_A_DAY;
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(target_arch = "wasm32")]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn is_displayed_as_rfc_3339_has_it() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_234_567_890, "2009-02-13T23:31:30Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_294_967_296, "2106-02-07T06:28:16Z"),
            (LAST, "9999-12-31T23:59:59Z"),
            (u64::MAX, "9999-12-31T23:59:59Z"),
        ] {
            assert_eq!(Timestamp::from_unix(seconds).to_string(), text);
        }
    }

    #[test]
    fn every_day_has_its_date() {
        let is_leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let mut day = 0;
        for year in 1970..=9999 {
            let february = if is_leap(year) { 29 } else { 28 };
            for (month, days) in (1..).zip([31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]) {
                for date in 1..=days {
                    let last_second = Timestamp::from_unix(day * SECONDS_A_DAY + 86_399);
                    assert_eq!(last_second.date(), (year, month, date));
                    day += 1;
                }
            }
        }
        assert_eq!(day * SECONDS_A_DAY, LAST + 1);
    }
}

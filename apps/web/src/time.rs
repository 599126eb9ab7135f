//! Agreed time as servers and clients read it.

/// `2026-11-21T22:08:00.123Z` (RFC 3339).
pub(crate) fn rfc3339(ms: u64) -> String {
    let at = Civil::of(ms / 1_000);
    let Civil { year, month, day, hour, minute, second, .. } = at;
    let ms = ms % 1_000;
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

/// `Sat, 21 Nov 2026 22:08:00 GMT`, as `Date` has it.
pub(crate) fn http_date(ms: u64) -> String {
    let at = Civil::of(ms / 1_000);
    let Civil { year, day, hour, minute, second, .. } = at;
    let (weekday, month) = (WEEKDAYS[at.weekday], MONTHS[at.month - 1]);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// A moment by the calendar.
struct Civil {
    year: u64,
    /// From 1.
    month: usize,
    day: u64,
    /// 0 is Monday.
    weekday: usize,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Civil {
    /// Of seconds since 1970. Years are counted from March, so that a leap day is a year's last.
    fn of(seconds: u64) -> Self {
        let days = seconds / 86_400;
        // From 0000-03-01; 400 years are always as many days.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let small = |number: u64| usize::try_from(number).unwrap_or_default();
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month: small(month),
            day: day_of_year - (153 * from_march + 2) / 5 + 1,
            // 1970 began on a Thursday.
            weekday: small((days + 3) % 7),
            hour: seconds / 3_600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }
}

const WEEKDAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_the_calendar_has_them() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        // The example of RFC 9110.
        assert_eq!(http_date(784_111_777_000), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(rfc3339(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(rfc3339(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(http_date(4_107_542_400_000), "Mon, 01 Mar 2100 00:00:00 GMT");
    }
}

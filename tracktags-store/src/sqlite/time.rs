//! Times, which rows hold as text → values. SQL users write rows too, so a reader takes every form that the
//! CHECKs let through.

use tracktags_core::time::{MICROS_PER_SECOND, Timestamp};

/// A time as the database reads it: `2026-01-31`, `2026-01-31 23:00`, `2026-01-31T23:00:00.5+01:00`, … UTC unless it says
/// otherwise; days beyond a month's end run on into the next, as there. `None` for anything else.
pub(crate) fn read_time(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.trim_end().split_at_checked(10)?;
    let mut parts = date.split('-').map(number);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || parts.next().is_some() {
        return None;
    }
    let days = days_to(year, month) + day - 1;
    let micros = read_clock(rest.trim_start_matches([' ', 'T', 't']))?;
    Some(Timestamp::from_micros(days.checked_mul(86_400 * MICROS_PER_SECOND)?.checked_add(micros)?))
}

/// `23:00:00.5+01:00` in microseconds of the day in UTC; nothing is midnight.
fn read_clock(text: &str) -> Option<i64> {
    if text.is_empty() {
        return Some(0);
    }
    let at = text.find(['Z', 'z', '+', '-']).unwrap_or(text.len());
    let (clock, zone) = text.split_at_checked(at)?;
    let mut parts = clock.trim_end().splitn(3, ':');
    let (hours, minutes) = (number(parts.next()?)?, number(parts.next()?)?);
    let (seconds, fraction) = match parts.next() {
        Some(seconds) => seconds.split_once('.').unwrap_or((seconds, "")),
        None => ("0", ""),
    };
    let seconds = number(seconds)?;
    let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let micros = number(&digits)?;
    let offset = match zone.as_bytes().first() {
        None => 0,
        Some(b'Z' | b'z') => 0,
        Some(sign) => {
            let (hours, minutes) = zone.get(1..)?.split_once(':')?;
            let seconds = number(hours)? * 3_600 + number(minutes)? * 60;
            if *sign == b'-' { -seconds } else { seconds }
        }
    };
    if hours > 24 || minutes > 59 || seconds > 59 {
        return None;
    }
    Some((hours * 3_600 + minutes * 60 + seconds - offset) * MICROS_PER_SECOND + micros)
}

fn number(digits: &str) -> Option<i64> {
    let plain = (1..=6).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// Days from 1970-01-01 to the first of the month (proleptic Gregorian; the year begins in March so that the leap
/// day ends it).
const fn days_to(year: i64, month: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time_text;

    #[test]
    fn times_are_read_as_sqlite_reads_them() {
        let cases = [
            ("2026-01-31T23:00:00.000Z", "2026-01-31T23:00:00Z"),
            ("2026-01-31 23:00:00", "2026-01-31T23:00:00Z"),
            ("2026-01-31 23:00", "2026-01-31T23:00:00Z"),
            ("2026-01-31", "2026-01-31T00:00:00Z"),
            ("2026-02-31", "2026-03-03T00:00:00Z"),
            ("2026-01-31T23:00:00.123456789+01:30", "2026-01-31T21:30:00.123456Z"),
            ("2026-01-31 23:00:00 -01:00 ", "2026-02-01T00:00:00Z"),
            ("2024-02-29 24:00:00", "2024-03-01T00:00:00Z"),
            ("0001-01-01", "0001-01-01T00:00:00Z"),
        ];
        for (text, expected) in cases {
            assert_eq!(read_time(text), expected.parse().ok(), "{text}");
        }
        for text in [
            "",
            "now",
            "2026-13-01",
            "2026-01-31x",
            "12:00",
            "2026-01-31T25:00",
            "2026-01-31T23:00+",
            "ü026-01-31",
        ] {
            assert_eq!(read_time(text), None, "{text}");
        }
    }

    #[test]
    fn times_survive_a_round_trip_and_sort_as_text() {
        let mut before = String::new();
        for micros in
            [-62_135_596_800_000_000, -1, 0, 1, 999_999, 1_769_900_400_000_000, 253_399_622_400_000_000]
        {
            let at = Timestamp::from_micros(micros);
            let text = time_text(at);
            assert_eq!(read_time(&text), Some(at), "{text}");
            assert!(before < text, "{before} < {text}");
            before = text;
        }
    }
}

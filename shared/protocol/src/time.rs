//! Wall-clock timestamps as they travel in messages and REST answers.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A moment in UTC with millisecond precision, written as RFC 3339 (`2025-11-10T10:30:00.123Z`).
///
/// Used for showing and recording only. Leases, time-outs and throttles use the monotonic clock, so a jump of the wall clock
/// changes no decision. What is compared between processes is the time that the stream gave a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Timestamp = Timestamp(0);

    /// The current time.
    pub fn now() -> Self {
        Self(Utc::now().timestamp_millis())
    }

    /// From milliseconds since 1970-01-01T00:00:00Z.
    pub fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub fn as_millis(self) -> i64 {
        self.0
    }

    /// Seconds from `earlier` to `self`; 0 when the clock went backwards between the two.
    pub fn seconds_since(self, earlier: Timestamp) -> f64 {
        (self.0.saturating_sub(earlier.0)).max(0) as f64 / 1000.0
    }

    /// This moment by another clock: one that shows `there` when the clock it was taken from shows `here`.
    #[must_use]
    pub fn moved(self, here: Timestamp, there: Timestamp) -> Self {
        Self(self.0.saturating_sub(here.0).saturating_add(there.0))
    }

    /// How long it is from `now` until this moment; zero when it has passed.
    pub fn after(self, now: Timestamp) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(now.0)).unwrap_or(0))
    }

    /// The moment `by` earlier.
    #[must_use]
    pub fn minus(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_sub(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)),
        )
    }

    /// This moment moved by `by`.
    #[must_use]
    pub fn plus(self, by: Duration) -> Self {
        Self(
            self.0
                .saturating_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX)),
        )
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut buffer = [0; LENGTH];
        if let Some(text) = write_common(self.0, &mut buffer) {
            return f.write_str(text);
        }
        match DateTime::<Utc>::from_timestamp_millis(self.0) {
            Some(time) => f.write_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true)),
            None => write!(f, "{} ms after 1970", self.0),
        }
    }
}

impl JsonSchema for Timestamp {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Timestamp".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut buffer = [0; LENGTH];
        match write_common(self.0, &mut buffer) {
            Some(text) => serializer.serialize_str(text),
            None => serializer.collect_str(self),
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl de::Visitor<'_> for Visit {
            type Value = Timestamp;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time as in RFC 3339, a string")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Timestamp, E> {
                if let Some(millis) = read_common(text.as_bytes()) {
                    return Ok(Timestamp(millis));
                }
                DateTime::parse_from_rfc3339(text)
                    .map(|time| Timestamp(time.timestamp_millis()))
                    .map_err(E::custom)
            }
        }
        deserializer.deserialize_str(Visit)
    }
}

// Every message holds two of these and every answer six, so the one form we write ourselves is written and read without a
// general date library; it does the rest, and the tests compare.

/// Length of `2025-11-10T10:30:00.123Z`.
const LENGTH: usize = 24;

const MILLIS_PER_DAY: i64 = 86_400_000;

/// Writes a moment of the years 0 to 9999.
fn write_common(millis: i64, buffer: &mut [u8; LENGTH]) -> Option<&str> {
    let (days, rest) = (
        millis.div_euclid(MILLIS_PER_DAY),
        millis.rem_euclid(MILLIS_PER_DAY),
    );
    let (year, month, day) = civil(days);
    if !(0..=9999).contains(&year) {
        return None;
    }
    *buffer = *b"0000-00-00T00:00:00.000Z";
    for (at, digits, value) in [
        (0, 4, year),
        (5, 2, month),
        (8, 2, day),
        (11, 2, rest / 3_600_000),
        (14, 2, rest / 60_000 % 60),
        (17, 2, rest / 1000 % 60),
        (20, 3, rest % 1000),
    ] {
        let mut value = value;
        for place in buffer[at..at + digits].iter_mut().rev() {
            *place = b'0' + (value % 10) as u8;
            value /= 10;
        }
    }
    std::str::from_utf8(buffer).ok()
}

/// Reads what [`write_common`] writes; `None` for anything else.
fn read_common(text: &[u8]) -> Option<i64> {
    let shape = b"0000-00-00T00:00:00.000Z";
    let fits = |(have, want): (&u8, &u8)| {
        if *want == b'0' {
            have.is_ascii_digit()
        } else {
            have == want
        }
    };
    if text.len() != LENGTH || !text.iter().zip(shape).all(fits) {
        return None;
    }
    let number = |at: usize, digits: usize| {
        text[at..at + digits]
            .iter()
            .fold(0_i64, |number, digit| number * 10 + i64::from(digit - b'0'))
    };
    let (year, month, day) = (number(0, 4), number(5, 2), number(8, 2));
    let (hour, minute, second) = (number(11, 2), number(14, 2), number(17, 2));
    if hour > 23 || minute > 59 || second > 59 || !(1..=12).contains(&month) {
        return None;
    }
    let days = days_before(year, month, day);
    // A day that the month does not have comes back as another one.
    (civil(days) == (year, month, day)).then(|| {
        days * MILLIS_PER_DAY + hour * 3_600_000 + minute * 60_000 + second * 1000 + number(20, 3)
    })
}

/// Year, month and day of the proleptic Gregorian calendar, `days` after 1970-01-01. Counted from 1 March of the year 0 in
/// eras of 400 years, which all have the same length.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil`].
fn days_before(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_with_milliseconds_in_utc() {
        let time = Timestamp::from_millis(1_762_770_600_123);
        assert_eq!(time.to_string(), "2025-11-10T10:30:00.123Z");
        let read: Timestamp = serde_json::from_str("\"2025-11-10T11:30:00.123+01:00\"").unwrap();
        assert_eq!(read, time);
    }

    proptest::proptest! {
        #[test]
        fn written_and_read_as_chrono_does(millis in -70_000_000_000_000_i64..270_000_000_000_000) {
            let time = Timestamp::from_millis(millis);
            let expected = DateTime::<Utc>::from_timestamp_millis(millis).unwrap().to_rfc3339_opts(SecondsFormat::Millis, true);
            proptest::prop_assert_eq!(time.to_string(), &*expected);
            let json = serde_json::to_string(&time).unwrap();
            proptest::prop_assert_eq!(&json, &format!("\"{expected}\""));
            if !expected.starts_with(['+', '-']) {
                proptest::prop_assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), time);
            }
        }

        #[test]
        fn impossible_times_are_refused_as_chrono_does(
            (year, month, day) in (0..10_000, 0..15, 0..35), (hour, minute, second) in (0..30, 0..70, 0..70),
        ) {
            let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.007Z");
            let expected = DateTime::parse_from_rfc3339(&text).ok().map(|time| time.timestamp_millis());
            let read = serde_json::from_str::<Timestamp>(&format!("\"{text}\"")).ok().map(Timestamp::as_millis);
            proptest::prop_assert_eq!(read, expected);
        }
    }

    #[test]
    fn a_moment_by_another_clock_is_as_far_from_now() {
        let at = Timestamp::from_millis;
        assert_eq!(at(1500).moved(at(1000), at(9000)), at(9500));
        assert_eq!(at(1500).after(at(1000)), Duration::from_millis(500));
        assert_eq!(at(1500).after(at(2000)), Duration::ZERO);
        assert_eq!(at(i64::MAX).moved(at(i64::MIN), at(1)), at(i64::MAX));
    }

    #[test]
    fn a_clock_that_went_backwards_gives_no_negative_duration() {
        assert_eq!(
            Timestamp::from_millis(0).seconds_since(Timestamp::from_millis(5000)),
            0.0
        );
    }
}

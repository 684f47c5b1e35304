//! Times as data files and requests write them.

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, TimeZone, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// What a schema can say of the texts that [`BarTime`] accepts.
const PATTERN: &str =
    r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2})?$";

/// A moment: `YYYY-MM-DD` or `YYYY-MM-DDTHH:MM:SS[.fff]` (or a space for the `T`), with an optional `Z` or `±hh:mm`.
///
/// Without an offset it is UTC; a date alone means 00:00:00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BarTime(DateTime<Utc>);

/// A text that is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time: write YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS, with an optional Z or ±hh:mm")]
pub struct InvalidTime(String);

impl BarTime {
    /// Reads `text`.
    ///
    /// # Errors
    /// [`InvalidTime`] when it has another form or names a day or hour that does not exist.
    pub fn parse(text: &str) -> Result<Self, InvalidTime> {
        parse(text)
            .map(Self)
            .ok_or_else(|| InvalidTime(text.chars().take(64).collect()))
    }

    /// Seconds from `earlier` to this moment.
    pub fn seconds_since(self, earlier: Self) -> f64 {
        let delta = self.0.signed_duration_since(earlier.0);
        delta.num_seconds() as f64 + f64::from(delta.subsec_nanos()) * 1e-9
    }
}

fn parse(text: &str) -> Option<DateTime<Utc>> {
    // Beyond this, byte positions are character positions.
    if !text.is_ascii() || text.len() < 10 {
        return None;
    }
    let (date, rest) = text.split_at(10);
    let date = parse_date(date)?;
    let (clock, offset) = split_offset(rest);
    let time = if clock.is_empty() {
        NaiveTime::MIN
    } else {
        parse_clock(clock)?
    };
    let local = NaiveDateTime::new(date, time);
    Some(
        parse_offset(offset)?
            .from_local_datetime(&local)
            .single()?
            .with_timezone(&Utc),
    )
}

fn parse_date(text: &str) -> Option<NaiveDate> {
    let bytes = text.as_bytes();
    if bytes[4] != b'-' || bytes[7] != b'-' {
        return None;
    }
    NaiveDate::from_ymd_opt(
        i32::try_from(digits(&text[..4])?).ok()?,
        digits(&text[5..7])?,
        digits(&text[8..])?,
    )
}

/// What follows the date, cut before the offset.
fn split_offset(rest: &str) -> (&str, &str) {
    let at = rest.find(['Z', '+', '-']).unwrap_or(rest.len());
    rest.split_at(at)
}

/// `THH:MM:SS` with an optional fraction of up to nine digits.
fn parse_clock(text: &str) -> Option<NaiveTime> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let bytes = whole.as_bytes();
    if bytes.len() != 9 || !matches!(bytes[0], b'T' | b' ') || bytes[3] != b':' || bytes[6] != b':'
    {
        return None;
    }
    let nanos = match fraction {
        None => 0,
        Some(fraction) if fraction.len() <= 9 => {
            digits(fraction)? * 10u32.pow(9 - u32::try_from(fraction.len()).ok()?)
        }
        Some(_) => return None,
    };
    NaiveTime::from_hms_nano_opt(
        digits(&whole[1..3])?,
        digits(&whole[4..6])?,
        digits(&whole[7..])?,
        nanos,
    )
}

fn parse_offset(text: &str) -> Option<FixedOffset> {
    if matches!(text, "" | "Z") {
        return FixedOffset::east_opt(0);
    }
    if text.len() != 6 || text.as_bytes()[3] != b':' {
        return None;
    }
    let (hours, minutes) = (digits(&text[1..3])?, digits(&text[4..])?);
    if hours > 23 || minutes > 59 {
        return None;
    }
    let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
    FixedOffset::east_opt(if text.starts_with('-') {
        -seconds
    } else {
        seconds
    })
}

/// A number of ASCII digits only: `str::parse` would let a sign pass.
fn digits(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

impl fmt::Display for BarTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true))
    }
}

impl TryFrom<String> for BarTime {
    type Error = InvalidTime;
    fn try_from(text: String) -> Result<Self, InvalidTime> {
        Self::parse(&text)
    }
}

impl From<BarTime> for String {
    fn from(time: BarTime) -> Self {
        time.to_string()
    }
}

impl JsonSchema for BarTime {
    fn schema_name() -> Cow<'static, str> {
        "BarTime".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": PATTERN,
            "description": "YYYY-MM-DD (00:00:00 of that day) or YYYY-MM-DDTHH:MM:SS[.fff], UTC unless it ends in ±hh:mm",
            "examples": ["2024-01-31", "2024-01-31T14:30:00Z"],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shown(text: &str) -> Option<String> {
        BarTime::parse(text).ok().map(|time| time.to_string())
    }

    #[test]
    fn the_forms_that_are_read() {
        for (text, expected) in [
            ("2024-02-29", "2024-02-29T00:00:00Z"),
            ("2024-02-29T13:14:15", "2024-02-29T13:14:15Z"),
            ("2024-02-29 13:14:15", "2024-02-29T13:14:15Z"),
            ("2024-02-29T13:14:15.5", "2024-02-29T13:14:15.500Z"),
            ("2024-02-29T13:14:15.123Z", "2024-02-29T13:14:15.123Z"),
            ("2024-02-29T00:30:00+01:00", "2024-02-28T23:30:00Z"),
            ("2024-02-29 00:30:00-05:30", "2024-02-29T06:00:00Z"),
            ("2024-02-29Z", "2024-02-29T00:00:00Z"),
        ] {
            assert_eq!(shown(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn the_forms_that_are_refused() {
        for text in [
            "",
            "2024",
            "2024-2-9",
            "2023-02-29",
            "2024-13-01",
            "29.02.2024",
            "2024-02-29T",
            "2024-02-29T13:14",
            "2024-02-29T25:00:00",
            "2024-02-29T13:14:60",
            "2024-02-29T13:14:15.",
            "2024-02-29T13:14:15.1234567890",
            "2024-02-29T13:14:15+0100",
            "2024-02-29T13:14:15+24:00",
            "2024-02-29T13:14:15Zx",
            "2024-02-29x13:14:15",
            "+024-02-29",
            "2024-02-29T+3:14:15",
            "２０２４-02-29",
            "2024-02-29T13:14:15é",
            "é2024-02-2",
        ] {
            assert_eq!(shown(text), None, "{text}");
        }
    }

    #[test]
    fn fractions_of_a_second_count() {
        let (a, b) = (
            BarTime::parse("2024-01-01T00:00:00.250").unwrap(),
            BarTime::parse("2024-01-02").unwrap(),
        );
        assert_eq!(b.seconds_since(a), 86_399.75);
        assert_eq!(a.seconds_since(b), -86_399.75);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9TZ :.+é-]{0,30}") {
            let _ = BarTime::parse(&text);
        }
    }
}

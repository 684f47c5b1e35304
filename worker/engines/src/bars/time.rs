//! The time of a bar, as data files and requests write it.

use std::borrow::Cow;
use std::fmt;

use chrono::{DateTime, Utc};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::datetime::parse_instant;

/// The form that [`BarTime`] accepts, as the pattern of its JSON schema.
const PATTERN: &str =
    r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2})?$";

/// A point in time: `YYYY-MM-DD` or `YYYY-MM-DDTHH:MM:SS[.fff]` (or a space instead of the `T`),
/// with an optional `Z` or `±hh:mm`.
///
/// Without an offset it is UTC. A date alone means 00:00:00.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BarTime(DateTime<Utc>);

/// The text is not a valid time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a date or time: write YYYY-MM-DD or YYYY-MM-DDTHH:MM:SS, with an optional Z or ±hh:mm"
)]
pub struct InvalidTime(String);

impl BarTime {
    /// Reads `text`.
    ///
    /// # Errors
    /// [`InvalidTime`] when the text has another form or names a day or time that does not exist.
    pub fn parse(text: &str) -> Result<Self, InvalidTime> {
        parse_instant(text.as_bytes())
            .map(|time| Self(time.and_utc()))
            .ok_or_else(|| InvalidTime(text.chars().take(64).collect()))
    }

    /// Seconds from `earlier` to this time.
    pub fn seconds_since(self, earlier: Self) -> f64 {
        let delta = self.0.signed_duration_since(earlier.0);
        delta.num_seconds() as f64 + f64::from(delta.subsec_nanos()) * 1e-9
    }
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
}

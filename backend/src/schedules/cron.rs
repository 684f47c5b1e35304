//! Cron lines, read in a time zone.
//!
//! The NATS server reads the same lines, to ring when a slot comes. So only what both read alike is
//! accepted. When the clocks change they differ, and this reading counts: a slot of a fixed time that
//! falls into the hour that is left out comes right after it, and in the hour that comes twice it comes
//! once.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};
use ktrdr_protocol::time::Timestamp;

/// The fields of a line with seconds, as people call them.
const FIELDS: [&str; 6] = [
    "second",
    "minute",
    "hour",
    "day of the month",
    "month",
    "day of the week",
];

/// A cron line in a time zone.
#[derive(Debug, Clone)]
pub struct Cron {
    line: String,
    cron: croner::Cron,
    zone: Tz,
}

/// Why a cron line or a time zone is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// It has not 5 or 6 fields.
    #[error(
        "must have 5 fields (minute, hour, day of the month, month, day of the week) or 6 (the second comes first), and has {0}"
    )]
    Fields(usize),
    /// One field cannot be read.
    #[error(
        "the {field} {text:?} cannot be read: use numbers, names (JAN, MON), *, lists (1,2), ranges (1-5) and steps (*/5, 10-40/5); Sunday is 0"
    )]
    Field {
        /// Its name.
        field: &'static str,
        /// What stands there.
        text: String,
    },
    /// Both days are restricted in a way that programs read differently.
    #[error(
        "programs read a * in one of the two days differently when the other one is restricted; write the numbers"
    )]
    Days,
    /// No time ever matches.
    #[error("no time matches it")]
    Never,
    /// The library refuses it.
    #[error(
        "no cron line: {0}. Seconds and minutes go from 0 to 59, hours to 23, days of the month from 1 to 31, months to 12, days of the week from 0 to 6"
    )]
    Refused(String),
}

/// The name is no time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no IANA time zone, such as Europe/Berlin or UTC")]
pub struct UnknownZone(String);

/// Reads the name of a time zone.
///
/// # Errors
/// [`UnknownZone`].
pub fn zone(name: &str) -> Result<Tz, UnknownZone> {
    name.parse().map_err(|_| UnknownZone(name.to_owned()))
}

impl Cron {
    /// Reads a cron line of 5 or 6 fields.
    ///
    /// # Errors
    /// [`CronError`].
    pub fn read(text: &str, zone: Tz) -> Result<Self, CronError> {
        let mut fields: Vec<&str> = text.split_ascii_whitespace().collect();
        match fields.len() {
            6 => {}
            5 => fields.insert(0, "0"),
            other => return Err(CronError::Fields(other)),
        }
        for (field, text) in FIELDS.into_iter().zip(&fields) {
            if !is_common(text, field) {
                let text = (*text).to_owned();
                return Err(CronError::Field { field, text });
            }
        }
        let (day, weekday) = (fields[3], fields[5]);
        if day != "*" && weekday != "*" && (day.contains('*') || weekday.contains('*')) {
            return Err(CronError::Days);
        }

        let line = fields.join(" ").to_ascii_uppercase();
        let parser = CronParser::builder()
            .seconds(Seconds::Required)
            .year(Year::Disallowed)
            .build();
        let cron = parser.parse(&line);
        let cron = cron.map_err(|error| {
            // The text ends with a full stop, and goes on here.
            CronError::Refused(error.to_string().trim_end_matches('.').to_owned())
        })?;
        let this = Self { line, cron, zone };
        match this.after(Timestamp::now()) {
            Some(_) => Ok(this),
            None => Err(CronError::Never),
        }
    }

    /// The line with six fields, as the NATS server takes it.
    pub fn line(&self) -> &str {
        &self.line
    }

    /// The first slot after this moment.
    pub fn after(&self, moment: Timestamp) -> Option<Timestamp> {
        let moment = self.local(moment)?;
        let found = self.cron.find_next_occurrence(&moment, false).ok()?;
        Some(Timestamp::from_millis(found.timestamp_millis()))
    }

    /// The last slot at this moment or before it.
    pub fn until(&self, moment: Timestamp) -> Option<Timestamp> {
        let moment = self.local(moment)?;
        let found = self.cron.find_previous_occurrence(&moment, true).ok()?;
        Some(Timestamp::from_millis(found.timestamp_millis()))
    }

    /// The next slots after this moment, so many.
    pub fn next(&self, moment: Timestamp, count: usize) -> Vec<Timestamp> {
        let after = |slot: &Timestamp| self.after(*slot);
        std::iter::successors(self.after(moment), after)
            .take(count)
            .collect()
    }

    fn local(&self, moment: Timestamp) -> Option<DateTime<Tz>> {
        let moment = DateTime::<Utc>::from_timestamp_millis(moment.as_millis())?;
        Some(moment.with_timezone(&self.zone))
    }
}

/// Whether both the library and the NATS server read the field, and alike: a list of `*`, values and
/// ranges, of which `*` and ranges may have a step.
fn is_common(text: &str, field: &str) -> bool {
    let is_value = |text: &str| match field {
        "month" if text.len() == 3 => {
            is_one_of(text, "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC")
        }
        "day of the week" if text.len() == 3 => is_one_of(text, "SUN MON TUE WED THU FRI SAT"),
        "day of the week" => text.parse::<u8>().is_ok_and(|day| day <= 6),
        _ => is_number(text),
    };
    text.split(',').all(|part| {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let is_step =
            step.is_none_or(|step| is_number(step) && !step.trim_start_matches('0').is_empty());
        let is_range = match range.split_once('-') {
            Some((from, to)) => is_value(from) && is_value(to),
            None => range == "*" || (step.is_none() && is_value(range)),
        };
        is_step && is_range
    })
}

fn is_number(text: &str) -> bool {
    (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_one_of(text: &str, names: &str) -> bool {
    names.split(' ').any(|name| name.eq_ignore_ascii_case(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        serde_json::from_value(text.into()).unwrap()
    }

    fn berlin(line: &str) -> Cron {
        Cron::read(line, zone("Europe/Berlin").unwrap()).unwrap()
    }

    #[test]
    fn five_fields_and_six_are_read_in_their_time_zone() {
        let cron = berlin("30 9 * * mon-fri");

        assert_eq!(cron.line(), "0 30 9 * * MON-FRI");
        let friday = time("2026-11-27T08:30:00Z");
        assert_eq!(
            cron.next(friday, 2),
            [time("2026-11-30T08:30:00Z"), time("2026-12-01T08:30:00Z")]
        );
        assert_eq!(cron.until(friday), Some(friday));
        assert_eq!(
            berlin("*/20 * * * * *").after(friday),
            Some(time("2026-11-27T08:30:20Z"))
        );
    }

    #[test]
    fn a_fixed_time_comes_once_when_the_clocks_change() {
        let cron = berlin("30 2 * * *");

        let spring = cron.next(time("2026-03-28T12:00:00Z"), 2);
        assert_eq!(
            spring,
            [time("2026-03-29T01:00:00Z"), time("2026-03-30T00:30:00Z")]
        );
        let autumn = cron.next(time("2026-10-24T12:00:00Z"), 2);
        assert_eq!(
            autumn,
            [time("2026-10-25T00:30:00Z"), time("2026-10-26T01:30:00Z")]
        );
    }

    #[test]
    fn what_programs_read_differently_is_refused() {
        for line in [
            "",
            "* * * *",
            "* * * * * * *",
            "@hourly",
            "0 9 * * 7",
            "0 9 L * *",
            "0 9 ? * *",
            "0 9 * * MON#2",
            "5/10 * * * *",
            "*/0 * * * *",
            "60 * * * *",
            "0 9 * * SAT-MON",
            "0 9 */1 * MON",
            "0 9 31 2 *",
            "0 9 * Feb-Foo *",
            "0 9 15W * *",
            ", * * * *",
        ] {
            assert!(Cron::read(line, Tz::UTC).is_err(), "{line:?}");
        }
        for name in ["", "Mars/Olympus", "+01:00", "Local", "utc+1"] {
            assert!(zone(name).is_err(), "{name}");
        }
    }
}

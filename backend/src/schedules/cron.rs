//! Cron lines, read in a time zone.
//!
//! The NATS server reads the same lines, to ring when a slot comes. So only what both read alike is
//! accepted. When the clocks change they differ, and this reading counts: a slot of a fixed time that
//! falls into the hour that is left out comes right after it, and in the hour that comes twice it comes
//! once ([`readings`]). Seconds, minute and hour are fixed times when they are numbers, lists and ranges.
//! A line that has `*` or a step there goes on with the clock.

use std::ops::RangeInclusive;

use chrono::{DateTime, Timelike, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};
use ktrdr_protocol::time::Timestamp;

use super::readings;

/// The fields of a line with seconds, as people call them, with the least and the greatest number.
const FIELDS: [(&str, u8, u8); 6] = [
    ("second", 0, 59),
    ("minute", 0, 59),
    ("hour", 0, 23),
    ("day of the month", 1, 31),
    ("month", 1, 12),
    ("day of the week", 0, 6),
];

/// A cron line in a time zone.
#[derive(Debug, Clone)]
pub struct Cron {
    line: String,
    cron: croner::Cron,
    zone: Tz,
    /// Whether its times are fixed ones. Then each reading of the clock is one slot.
    is_fixed: bool,
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
        "the {field} {text:?} cannot be read: use numbers from {least} to {greatest}, names (JAN, MON), *, lists (1,2), ranges (1-5) and steps (*/5, 10-40/5); Sunday is 0"
    )]
    Field {
        /// Its name.
        field: &'static str,
        /// Its least number.
        least: u8,
        /// Its greatest number.
        greatest: u8,
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
    #[error("no cron line: {0}")]
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
        for ((field, least, greatest), text) in FIELDS.into_iter().zip(&fields) {
            if !is_common(text, field, least..=greatest) {
                return Err(CronError::Field {
                    field,
                    least,
                    greatest,
                    text: (*text).to_owned(),
                });
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
        let is_fixed = !fields[..3].iter().any(|text| text.contains(['*', '/']));
        let this = Self {
            line,
            cron,
            zone,
            is_fixed,
        };
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
        let moment = utc(moment)?;
        if !self.is_fixed {
            let found = self
                .cron
                .find_next_occurrence(&moment.with_timezone(&self.zone), false);
            return Some(timestamp(found.ok()?.to_utc()));
        }
        let shown = moment.with_timezone(&self.zone).naive_local();
        let mut reading = shown.with_nanosecond(0)?.and_utc();
        loop {
            reading = self.cron.find_next_occurrence(&reading, false).ok()?;
            let slot = readings::first_showing(self.zone, reading.naive_utc());
            // In the second one of two hours, those of the first one are over.
            if slot > moment {
                return Some(timestamp(slot));
            }
        }
    }

    /// The last slot at this moment or before it.
    pub fn until(&self, moment: Timestamp) -> Option<Timestamp> {
        let moment = utc(moment)?;
        if !self.is_fixed {
            let found = self
                .cron
                .find_previous_occurrence(&moment.with_timezone(&self.zone), true);
            return Some(timestamp(found.ok()?.to_utc()));
        }
        let latest = readings::latest_reading(self.zone, moment);
        let latest = latest.with_nanosecond(0)?.and_utc();
        let mut reading = self.cron.find_previous_occurrence(&latest, true).ok()?;
        loop {
            let slot = readings::first_showing(self.zone, reading.naive_utc());
            if slot <= moment {
                return Some(timestamp(slot));
            }
            reading = self.cron.find_previous_occurrence(&reading, false).ok()?;
        }
    }

    /// The next slots after this moment, so many.
    pub fn next(&self, moment: Timestamp, count: usize) -> Vec<Timestamp> {
        let after = |slot: &Timestamp| self.after(*slot);
        std::iter::successors(self.after(moment), after)
            .take(count)
            .collect()
    }
}

fn utc(moment: Timestamp) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_millis(moment.as_millis())
}

fn timestamp(moment: DateTime<Utc>) -> Timestamp {
    Timestamp::from_millis(moment.timestamp_millis())
}

/// Whether both the library and the NATS server read the field, and alike: a list of `*`, values and
/// ranges, of which `*` and ranges may have a step.
fn is_common(text: &str, field: &str, numbers: RangeInclusive<u8>) -> bool {
    let is_value = |text: &str| match field {
        "month" if text.len() == 3 => {
            is_one_of(text, "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC")
        }
        "day of the week" if text.len() == 3 => is_one_of(text, "SUN MON TUE WED THU FRI SAT"),
        _ => is_number(text) && text.parse().is_ok_and(|number| numbers.contains(&number)),
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

    /// The slots of a day in the time zone of Berlin, as times of UTC.
    fn slots_of_day(line: &str, from: &str) -> Vec<String> {
        let from = time(from);
        let slots = berlin(line).next(from, 100).into_iter();
        slots
            .take_while(|slot| slot.seconds_since(from) < 86_400.0)
            .map(|slot| slot.to_string()[11..16].to_owned())
            .collect()
    }

    #[test]
    fn lists_and_ranges_are_fixed_times_when_the_clocks_change() {
        let spring = |line| slots_of_day(line, "2027-03-27T23:00:00Z");
        assert_eq!(spring("30 2,14 28 3 *"), ["01:00", "12:30"]);
        assert_eq!(spring("10,50 2 28 3 *"), ["01:00"]);
        assert_eq!(spring("30 2-4 28 3 *"), ["01:00", "01:30", "02:30"]);
        assert_eq!(spring("0 2,3 28 3 *"), ["01:00"]);
        assert_eq!(spring("30 2 28 3 *"), ["01:00"]);

        let autumn = |line| slots_of_day(line, "2027-10-30T22:00:00Z");
        assert_eq!(autumn("30 2,14 31 10 *"), ["00:30", "13:30"]);
        assert_eq!(autumn("30 2-4 31 10 *"), ["00:30", "02:30", "03:30"]);
        assert_eq!(autumn("10,50 2 31 10 *"), ["00:10", "00:50"]);
        assert_eq!(autumn("30 2 31 10 *"), ["00:30"]);
    }

    #[test]
    fn stars_and_steps_go_on_with_the_clock() {
        let spring = |line| slots_of_day(line, "2027-03-27T23:00:00Z");
        assert_eq!(spring("*/30 2 28 3 *"), [""; 0]);
        assert_eq!(spring("30 2-4/2 28 3 *"), ["02:30"]);

        let autumn = |line| slots_of_day(line, "2027-10-30T22:00:00Z");
        assert_eq!(
            autumn("*/30 2 31 10 *"),
            ["00:00", "00:30", "01:00", "01:30"]
        );
        assert_eq!(autumn("30 2-4/2 31 10 *"), ["00:30", "01:30", "03:30"]);
        assert_eq!(spring("30 * * * *").len(), 24);
        assert_eq!(autumn("30 * * * *").len(), 24);
    }

    #[test]
    fn the_first_slot_after_a_moment_and_the_last_one_until_it_agree() {
        let zones = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"];
        let lines = [
            "30 2,14 * * *",
            "10,50 1-3 * * *",
            "0,30 0,30 1,2 * * *",
            "30 0 * * *",
            "*/20 * * * *",
        ];
        let changes = [
            "2027-03-13T20:00:00Z",
            "2027-03-27T20:00:00Z",
            "2027-04-03T08:00:00Z",
            "2027-10-02T08:00:00Z",
            "2027-10-30T20:00:00Z",
            "2027-11-06T20:00:00Z",
        ];
        for (name, line) in zones.iter().flat_map(|name| lines.map(|line| (name, line))) {
            let cron = Cron::read(line, zone(name).unwrap()).unwrap();
            for begin in changes.map(time) {
                // Each minute of a day and a half, and moments beside whole seconds.
                for step in 0..2_160 {
                    let moment =
                        Timestamp::from_millis(begin.as_millis() + step * 60_000 + step % 3);
                    let (last, next) = (cron.until(moment).unwrap(), cron.after(moment).unwrap());

                    assert!(last <= moment && moment < next, "{name} {line} {moment}");
                    assert_eq!(cron.after(last), Some(next), "{name} {line} {moment}");
                    let before_next = Timestamp::from_millis(next.as_millis() - 1);
                    assert_eq!(
                        cron.until(before_next),
                        Some(last),
                        "{name} {line} {moment}"
                    );
                    assert_eq!(cron.until(next), Some(next), "{name} {line} {moment}");
                }
            }
        }
    }

    #[test]
    fn a_refusal_names_the_field_and_its_numbers() {
        let refusal = |line| Cron::read(line, Tz::UTC).unwrap_err().to_string();

        let text = refusal("60 * * * *");
        assert!(
            text.starts_with("the minute \"60\" cannot be read: use numbers from 0 to 59"),
            "{text}"
        );
        let text = refusal("0 9 * 13 *");
        assert!(
            text.starts_with("the month \"13\" cannot be read: use numbers from 1 to 12"),
            "{text}"
        );
        assert!(refusal("@daily").ends_with("and has 1"));
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

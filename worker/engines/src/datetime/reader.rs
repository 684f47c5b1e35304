//! Reads the times of one column and writes them in the engines' own form.
//!
//! The problem: the clock of a place shows some times twice a year, when it is set back, and a cell
//! does not say which of the two it means. Rows in order of time do say it: the second is the one
//! that is later than the row before. So the reader remembers the last time of the column. The
//! other choices are the request's: always the first, always the second, or neither.

use std::io::Write;

use chrono::{Datelike, NaiveDateTime, Timelike};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::format::{InvalidTimeFormat, TimeFormat};
use super::zone::Zone;
use super::{has_four_digit_year, parse_cell, parse_local};

/// The length of a date in the engines' own form.
const DATE_LENGTH: usize = 10;

/// Which of two times a local time means that the clock shows twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ambiguous {
    /// The first, unless the time of the row before is not earlier. Right for rows in order of time.
    #[default]
    Order,
    /// The first.
    Earlier,
    /// The second.
    Later,
    /// Neither: the cell is invalid.
    Invalid,
}

/// How the times of a column are written.
#[derive(Debug)]
pub(crate) struct TimeReader {
    formats: Vec<TimeFormat>,
    zone: Option<Zone>,
    ambiguous: Ambiguous,
}

/// What a reader has seen of its column.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct TimesRead {
    last: Option<NaiveDateTime>,
    /// Times that the clock shows twice.
    pub(crate) ambiguous: u64,
    /// Times whose fraction of a second was not written.
    pub(crate) cut: u64,
}

/// What became of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TimeCell {
    /// It keeps its text.
    Kept,
    /// It has a new text.
    Rewritten,
    /// It is no time.
    Invalid,
}

impl TimeReader {
    /// Reads times in one of `formats`, or in the engines' own form when there is none. Times
    /// without an offset are those of the clocks in `zone`, or UTC.
    pub(crate) fn new(
        formats: &[String],
        zone: Option<&str>,
        ambiguous: Ambiguous,
    ) -> Result<Self, InvalidTimeFormat> {
        let zone = match zone {
            Some(name) => Some(
                Zone::named(name).ok_or_else(|| InvalidTimeFormat::UnknownZone(name.to_owned()))?,
            ),
            None => None,
        };

        Ok(Self {
            formats: formats
                .iter()
                .map(|format| TimeFormat::new(format))
                .collect::<Result<_, _>>()?,
            zone,
            ambiguous,
        })
    }

    /// Whether the request gives formats.
    pub(crate) fn has_formats(&self) -> bool {
        !self.formats.is_empty()
    }

    /// Whether `cell` is a time in one of the formats, or in the engines' own form when there is
    /// none.
    pub(crate) fn matches(&self, cell: &[u8]) -> bool {
        match self.formats[..] {
            [] => parse_cell(cell).is_some(),
            ref formats => formats.iter().any(|format| format.matches(cell)),
        }
    }

    /// Reads `cell`. The new text, in UTC and without an offset, replaces `text`.
    pub(crate) fn read(&self, cell: &[u8], seen: &mut TimesRead, text: &mut Vec<u8>) -> TimeCell {
        for format in &self.formats {
            if let Some(time) = format.read(cell)
                && let Some(utc) = self.to_utc(time.local, time.zone, format.has_hour, seen)
            {
                if format.has_hour {
                    seen.cut += u64::from(!format.is_epoch && utc.nanosecond() > 0);
                    write_time(text, utc, format.is_epoch);
                } else {
                    write_date(text, utc);
                }
                return TimeCell::Rewritten;
            }
        }

        if self.formats.is_empty() && self.zone.is_some() {
            return self.read_own_form(cell, seen, text);
        }

        // A cell may have the written form already.
        match parse_cell(cell) {
            Some(_) => TimeCell::Kept,
            None => TimeCell::Invalid,
        }
    }

    /// Reads a local time in the engines' own form. A date has no zone.
    fn read_own_form(&self, cell: &[u8], seen: &mut TimesRead, text: &mut Vec<u8>) -> TimeCell {
        let Some((local, offset)) = parse_cell(cell).and_then(|_| parse_local(cell)) else {
            return TimeCell::Invalid;
        };
        if cell.len() == DATE_LENGTH {
            return TimeCell::Kept;
        }

        let zone = offset.map(|offset| Zone::Offset(offset.local_minus_utc()));
        match self.to_utc(local, zone, true, seen) {
            Some(utc) => {
                write_time(text, utc, true);
                TimeCell::Rewritten
            }
            None => TimeCell::Invalid,
        }
    }

    /// The time in UTC. None when it does not exist, or may not be ambiguous.
    fn to_utc(
        &self,
        local: NaiveDateTime,
        zone: Option<Zone>,
        has_hour: bool,
        seen: &mut TimesRead,
    ) -> Option<NaiveDateTime> {
        let utc = match zone.or(self.zone.filter(|_| has_hour)) {
            None => local,
            Some(zone) => match zone.candidates(local)[..] {
                [one] => one,
                [earlier, later] => {
                    let utc = match self.ambiguous {
                        Ambiguous::Order if seen.last.is_some_and(|last| earlier <= last) => later,
                        Ambiguous::Order | Ambiguous::Earlier => earlier,
                        Ambiguous::Later => later,
                        Ambiguous::Invalid => return None,
                    };
                    seen.ambiguous += 1;
                    utc
                }
                _ => return None,
            },
        };

        if !has_four_digit_year(utc) {
            return None;
        }
        seen.last = Some(utc);
        Some(utc)
    }
}

fn write_date(text: &mut Vec<u8>, time: NaiveDateTime) {
    text.clear();
    let (year, month, day) = (time.year(), time.month(), time.day());
    // Writing to a vector does not fail.
    let _ = write!(text, "{year:04}-{month:02}-{day:02}");
}

/// Writes date and clock. `with_fraction` also writes a fraction of a second, when there is one.
fn write_time(text: &mut Vec<u8>, time: NaiveDateTime, with_fraction: bool) {
    write_date(text, time);
    let (hour, minute, second) = (time.hour(), time.minute(), time.second());
    let _ = write!(text, "T{hour:02}:{minute:02}:{second:02}");

    let nanosecond = time.nanosecond();
    if with_fraction && nanosecond > 0 {
        let _ = match nanosecond {
            n if n % 1_000_000 == 0 => write!(text, ".{:03}", n / 1_000_000),
            n if n % 1000 == 0 => write!(text, ".{:06}", n / 1000),
            n => write!(text, ".{n:09}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reader(formats: &[&str], zone: Option<&str>, ambiguous: Ambiguous) -> TimeReader {
        let formats: Vec<String> = formats.iter().map(ToString::to_string).collect();
        TimeReader::new(&formats, zone, ambiguous).unwrap()
    }

    /// The text of each cell after reading. None for an invalid cell.
    fn read(reader: &TimeReader, cells: &[&str]) -> Vec<Option<String>> {
        let mut seen = TimesRead::default();
        let mut text = b"old".to_vec();
        let mut one = |cell: &&str| match reader.read(cell.as_bytes(), &mut seen, &mut text) {
            TimeCell::Kept => Some((*cell).to_owned()),
            TimeCell::Rewritten => Some(String::from_utf8(text.clone()).unwrap()),
            TimeCell::Invalid => None,
        };
        cells.iter().map(&mut one).collect()
    }

    #[track_caller]
    fn rewritten(format: &str, cell: &str) -> Option<String> {
        read(&reader(&[format], None, Ambiguous::Order), &[cell]).remove(0)
    }

    #[test]
    fn formats_are_rewritten() {
        for (format, cell, text) in [
            (
                "%d.%m.%Y %H:%M:%S%.3f",
                "31.12.2017 23:00:00.000",
                Some("2017-12-31T23:00:00"),
            ),
            ("%m/%d/%y", "1/8/90", Some("1990-01-08")),
            ("%Y%m%d %H", "20200102 07", Some("2020-01-02T07:00:00")),
            (
                "%Y%m%d %T",
                "20200102 07:08:09",
                Some("2020-01-02T07:08:09"),
            ),
            (
                "%Y-%m-%d %H:%M %z",
                "2020-01-01 01:30 +0200",
                Some("2019-12-31T23:30:00"),
            ),
            ("%d.%m.%Y", "31.02.2017", None),
            ("%d.%m.%Y", "31.12.2017 ", None),
            ("%d.%m.%Y %H:%M:%S", "31.12.2017 10:00:60", None),
        ] {
            assert_eq!(rewritten(format, cell).as_deref(), text, "{format} {cell}");
        }
    }

    #[test]
    fn clocks_of_twelve_hours_keep_their_time() {
        for (cell, text) in [
            ("06/06/2015 06:49:00 PM", Some("2015-06-06T18:49:00")),
            ("06/06/2015 12:49:00 PM", Some("2015-06-06T12:49:00")),
            ("06/06/2015 12:49:00 AM", Some("2015-06-06T00:49:00")),
            ("06/06/2015 13:49:00 AM", None),
        ] {
            let format = "%d/%m/%Y %I:%M:%S %p";
            assert_eq!(rewritten(format, cell).as_deref(), text, "{cell}");
        }
        assert_eq!(
            rewritten("%d/%m/%Y %r", "06/06/2015 06:49:00 PM").as_deref(),
            Some("2015-06-06T18:49:00")
        );
        assert_eq!(
            rewritten("%+", "2015-06-06T23:30:00-05:00").as_deref(),
            Some("2015-06-07T04:30:00")
        );
    }

    #[test]
    fn counts_since_1970() {
        for (format, cell, text) in [
            ("%s", "1616976024", Some("2021-03-29T00:00:24")),
            ("%s", "-1", Some("1969-12-31T23:59:59")),
            ("%s%.3f", "1616976024.250", Some("2021-03-29T00:00:24.250")),
            ("%Q", "1616976024000", Some("2021-03-29T00:00:24")),
            ("%Q", "1616976024250", Some("2021-03-29T00:00:24.250")),
            ("%s%3f", "1616976024250", Some("2021-03-29T00:00:24.250")),
            (
                "%s%6f",
                "1616976024000250",
                Some("2021-03-29T00:00:24.000250"),
            ),
            (
                "%s%9f",
                "1616976024000000250",
                Some("2021-03-29T00:00:24.000000250"),
            ),
            ("%Q", "-1", Some("1969-12-31T23:59:59.999")),
            ("%Q", "1e9", None),
            ("%Q", "99999999999999999999", None),
        ] {
            assert_eq!(rewritten(format, cell).as_deref(), text, "{format} {cell}");
        }
    }

    #[test]
    fn names_of_zones_are_applied() {
        let format = "%d %b %Y %H:%M %Z";
        for (cell, text) in [
            ("06 Jun 2015 18:49 CEST", Some("2015-06-06T16:49:00")),
            ("06 Jun 2015 18:49 UTC", Some("2015-06-06T18:49:00")),
            ("06 Jun 2015 18:49 EDT", Some("2015-06-06T22:49:00")),
            (
                "06 Jun 2015 18:49 Europe/Berlin",
                Some("2015-06-06T16:49:00"),
            ),
            ("06 Jun 2015 18:49 banana", None),
            ("06 Jun 2015 18:49 ", None),
        ] {
            assert_eq!(rewritten(format, cell).as_deref(), text, "{cell}");
        }
        assert_eq!(
            rewritten("%Z %Y-%m-%d %H:%M", "CET 2015-01-01 00:30").as_deref(),
            Some("2014-12-31T23:30:00")
        );
    }

    #[test]
    fn formats_that_cannot_be_read_are_refused() {
        use InvalidTimeFormat::{Incomplete, NoHour, Unknown};
        let error = |format: &str| TimeFormat::new(format).unwrap_err();

        for format in ["%E", "%Y-%m-%d %Q", "%"] {
            assert_eq!(error(format), Unknown(format.into()));
        }
        for format in ["%d/%m/%Y %I:%M", "%H:%M:%S", "%Y-%m", "%Y %H:%M:%S", "day"] {
            assert_eq!(error(format), Incomplete(format.into()));
        }
        for format in ["%Y-%m-%d %M", "%Y-%m-%d %p", "%Y-%m-%d %S"] {
            assert_eq!(error(format), NoHour(format.into()));
        }
        assert!(TimeReader::new(&[], Some("Berlin"), Ambiguous::Order).is_err());
    }

    #[test]
    fn several_formats_and_the_written_form() {
        let formats = reader(&["%d.%m.%Y", "%m/%d/%Y %H:%M"], None, Ambiguous::Order);

        assert_eq!(
            read(
                &formats,
                &["29.01.1945", "1/2/2020 10:30", "1945-03-02", "x"]
            ),
            [
                Some("1945-01-29".into()),
                Some("2020-01-02T10:30:00".into()),
                Some("1945-03-02".into()),
                None
            ]
        );
    }

    #[test]
    fn local_times() {
        let cells = [
            "2018-10-28 00:00:00",
            "2018-10-28 01:00:00",
            "2018-10-28 02:00:00",
            "2018-10-28 02:00:00",
            "2018-10-28 03:00:00",
        ];
        let hours = |times: Vec<Option<String>>| -> Vec<String> {
            let hour = |time: Option<String>| time.map_or("-".into(), |time| time[8..13].into());
            times.into_iter().map(hour).collect()
        };
        let read_with = |ambiguous| {
            let reader = reader(&[], Some("Europe/Berlin"), ambiguous);
            hours(read(&reader, &cells))
        };

        assert_eq!(
            read_with(Ambiguous::Order),
            ["27T22", "27T23", "28T00", "28T01", "28T02"]
        );
        assert_eq!(
            read_with(Ambiguous::Earlier),
            ["27T22", "27T23", "28T00", "28T00", "28T02"]
        );
        assert_eq!(
            read_with(Ambiguous::Later),
            ["27T22", "27T23", "28T01", "28T01", "28T02"]
        );
        assert_eq!(
            read_with(Ambiguous::Invalid),
            ["27T22", "27T23", "-", "-", "28T02"]
        );
    }

    #[test]
    fn local_times_that_are_none() {
        let reader = reader(&[], Some("Europe/Berlin"), Ambiguous::Order);

        assert_eq!(
            read(
                &reader,
                &[
                    "2018-03-25 02:30:00",
                    "2018-03-25T03:30:00.500",
                    "2018-03-25T03:30:00Z",
                    "2018-03-25",
                    "x",
                ]
            ),
            [
                None,
                Some("2018-03-25T01:30:00.500".into()),
                Some("2018-03-25T03:30:00".into()),
                Some("2018-03-25".into()),
                None
            ]
        );
    }
}

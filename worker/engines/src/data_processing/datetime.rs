//! Times in cells (`docs/engines/data_processing.md`, "Cells").

use std::io::Write;

use chrono::format::{Item, Numeric, Parsed, StrftimeItems};
use chrono::{Datelike, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

use super::error::DataError;

/// The instant a cell names, in UTC: `YYYY-MM-DD`, or `YYYY-MM-DDTHH:MM:SS[.fff]` (or a space for the `T`) with an optional `Z` or
/// `±hh:mm`. Up to nine digits of a second are taken.
pub(super) fn time(cell: &[u8]) -> Option<NaiveDateTime> {
    let (date, rest) = cell.split_at_checked(10)?;
    let date = NaiveDate::from_ymd_opt(
        i32::try_from(fixed(date.get(..4)?)?).ok()?,
        after(b'-', date.get(4..7)?)?,
        after(b'-', date.get(7..10)?)?,
    )?;
    if rest.is_empty() {
        return date.and_hms_opt(0, 0, 0);
    }
    let (clock, rest) = rest.split_at_checked(9)?;
    if !matches!(clock[0], b'T' | b' ') {
        return None;
    }
    let (hour, minute, second) = (
        fixed(&clock[1..3])?,
        after(b':', &clock[3..6])?,
        after(b':', &clock[6..9])?,
    );
    let (nanosecond, rest) = fraction(rest)?;
    let time = NaiveTime::from_hms_nano_opt(hour, minute, second, nanosecond)?;
    date.and_time(time).checked_sub_offset(offset(rest)?)
}

/// `text` as digits and nothing else.
fn fixed(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0, |value, byte| {
        byte.is_ascii_digit()
            .then(|| value * 10 + u32::from(byte - b'0'))
    })
}

fn after(separator: u8, text: &[u8]) -> Option<u32> {
    text.strip_prefix(&[separator]).and_then(fixed)
}

/// The nanoseconds of `.fff`, and what follows; 0 when there is no point.
fn fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let Some(text) = text.strip_prefix(b".") else {
        return Some((0, text));
    };
    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if !(1..=9).contains(&count) {
        return None;
    }
    let (digits, rest) = text.split_at(count);
    Some((fixed(digits)? * 10_u32.pow(9 - count as u32), rest))
}

fn offset(text: &[u8]) -> Option<FixedOffset> {
    match text {
        b"" | b"Z" => FixedOffset::east_opt(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (fixed(&[*h1, *h2])?, fixed(&[*m1, *m2])?);
            let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
            (hours < 24 && minutes < 60).then_some(())?;
            FixedOffset::east_opt(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

/// A strftime-like format, taken apart once.
pub(super) struct TimeFormat {
    items: Vec<Item<'static>>,
    has_hour: bool,
}

impl TimeFormat {
    /// Takes `format` apart.
    pub(super) fn new(format: &str) -> Result<Self, DataError> {
        let items = StrftimeItems::new(format).parse_to_owned().map_err(|_| {
            DataError::Request(format!("datetime format {format:?} is no strftime format"))
        })?;
        let has_hour = items
            .iter()
            .any(|item| matches!(item, Item::Numeric(Numeric::Hour, _)));
        Ok(Self { items, has_hour })
    }

    /// Rewrites `cell` into `text` as `%Y-%m-%dT%H:%M:%S`, or `%Y-%m-%d` when the format has no hour of the day. False when the cell
    /// does not follow the format. An offset in the cell is applied, for the text written has none and therefore means UTC.
    pub(super) fn rewrite(&self, cell: &[u8], text: &mut Vec<u8>) -> bool {
        text.clear();
        let Some(time) = self
            .parse(cell)
            .filter(|time| (0..=9999).contains(&time.year()))
        else {
            return false;
        };
        let written = if self.has_hour {
            let (hour, minute, second) = (time.hour(), time.minute(), time.second());
            write!(
                text,
                "{:04}-{:02}-{:02}T{hour:02}:{minute:02}:{second:02}",
                time.year(),
                time.month(),
                time.day()
            )
        } else {
            write!(
                text,
                "{:04}-{:02}-{:02}",
                time.year(),
                time.month(),
                time.day()
            )
        };
        written.is_ok()
    }

    fn parse(&self, cell: &[u8]) -> Option<NaiveDateTime> {
        let mut parsed = Parsed::new();
        chrono::format::parse(
            &mut parsed,
            std::str::from_utf8(cell).ok()?,
            self.items.iter(),
        )
        .ok()?;
        if !self.has_hour {
            return parsed.to_naive_date().ok()?.and_hms_opt(0, 0, 0);
        }
        if parsed.minute().is_none() {
            parsed.set_minute(0).ok()?;
        }
        let offset = parsed.offset().unwrap_or(0);
        let local = parsed.to_naive_datetime_with_offset(offset).ok()?;
        // A leap second has no place in the text written.
        (local.nanosecond() < 1_000_000_000).then_some(())?;
        local.checked_sub_offset(FixedOffset::east_opt(offset)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read() {
        for (cell, seconds) in [
            ("1970-01-01", 0),
            ("1970-01-02T00:00:01", 86_401),
            ("1970-01-02 00:00:01.5", 86_401),
            ("1970-01-02T00:00:01.123456789Z", 86_401),
            ("1970-01-01T02:00:00+02:00", 0),
            ("1969-12-31T18:30:00-05:30", 0),
            ("2020-02-29", 1_582_934_400),
        ] {
            assert_eq!(
                time(cell.as_bytes()).unwrap().and_utc().timestamp(),
                seconds,
                "{cell}"
            );
        }
        assert!(time(b"2020-01-01T00:00:00.001") > time(b"2020-01-01"));
    }

    #[test]
    fn what_is_no_time_is_not_read() {
        for cell in [
            "",
            "2020",
            "2020-1-1",
            "2021-02-29",
            "2020-01-01T",
            "2020-01-01T24:00:00",
            "2020-01-01T00:00",
            "2020-01-01t00:00:00",
            "2020-01-01Z",
            "2020-01-01T00:00:00.",
            "2020-01-01T00:00:00z",
            "2020-01-01T00:00:00+0200",
            "2020-01-01T00:00:00+24:00",
            "2020-01-01T00:00:60",
            "+020-01-01",
            "2020-01-01 ",
            "2020/01/01",
            "2020-01-01T00:00:00.1234567890",
        ] {
            assert_eq!(time(cell.as_bytes()), None, "{cell}");
        }
    }

    #[track_caller]
    fn rewritten(format: &str, cell: &str) -> Option<String> {
        let mut text = b"old".to_vec();
        let done = TimeFormat::new(format)
            .unwrap()
            .rewrite(cell.as_bytes(), &mut text);
        done.then(|| String::from_utf8(text).unwrap())
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
            ("%Y %H:%M:%S", "2017 10:00:00", None),
            ("%d.%m.%Y %H:%M:%S", "31.12.2017 10:00:60", None),
        ] {
            assert_eq!(rewritten(format, cell).as_deref(), text, "{format} {cell}");
        }
        assert!(TimeFormat::new("%Q").is_err());
    }
}

//! Dates and times in data files and in requests. All engines read them here.
//!
//! Two forms exist. [`parse_instant`] reads the engines' own form, a strict subset of ISO 8601
//! (`docs/engines/data_processing.md`, "Cells"). [`TimeReader`] reads the forms that a request
//! describes with strftime formats, and the local times of a zone. Both leave the calendar to the
//! chrono crate (the lengths of months, leap years, offsets, the directives of a format) and the
//! zones to chrono-tz, which holds the IANA database and so needs none on the machine.
//!
//! The own form is taken apart by hand for two reasons. First, the parsers of chrono and jiff
//! accept more than the rules allow: one-digit months, signed years, a lower-case `t`, second 60.
//! Second, cleaning parses a time in every row: this code takes about 20 ns for
//! `2024-01-31T14:30:00`, jiff 45 ns, chrono 95 ns, and chrono with a format 240 ns. The tests
//! compare the results with chrono's RFC 3339 parser.
//!
//! jiff was considered for formats and rejected, because the same request would accept other cells
//! or read other times: jiff's strptime reads `69` as 1969 for `%y` (chrono: 2069), turns second 60
//! into 59, takes any number of digits for `%.3f`, and parses neither `%c` nor `%x`.

mod format;
mod reader;
mod zone;

pub use reader::Ambiguous;

pub(crate) use reader::{TimeCell, TimeReader, TimesRead};

use chrono::{Datelike, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime};

/// Reads a time and returns it in UTC.
///
/// The form is `YYYY-MM-DD`, optionally followed by `THH:MM:SS` or ` HH:MM:SS` with a fraction of
/// one to nine digits, and by `Z` or `±hh:mm`. Without a clock time it is midnight, without an
/// offset it is UTC. Returns `None` for any other form and for a date or time that does not exist.
pub(crate) fn parse_instant(text: &[u8]) -> Option<NaiveDateTime> {
    let (local, offset) = parse_local(text)?;
    match offset {
        Some(offset) => local.checked_sub_offset(offset),
        None => Some(local),
    }
}

/// Like [`parse_instant`], but returns the date and clock as written, and the offset if there is
/// one.
fn parse_local(text: &[u8]) -> Option<(NaiveDateTime, Option<FixedOffset>)> {
    let (date, rest) = text.split_at_checked(10)?;
    let date = parse_date(date)?;

    let (time, offset) = match rest {
        [b'T' | b' ', ..] => parse_clock(rest)?,
        offset => (NaiveTime::MIN, offset),
    };

    let offset = match offset {
        b"" => None,
        offset => Some(parse_offset(offset)?),
    };

    Some((date.and_time(time), offset))
}

/// Whether the year can be written with four digits, as the own form has it.
fn has_four_digit_year(time: NaiveDateTime) -> bool {
    (0..=9999).contains(&time.year())
}

/// Like [`parse_instant`], but refuses an offset that follows a date without a clock time.
///
/// Cells of a table never had that form; bars and requests always did.
pub(crate) fn parse_cell(cell: &[u8]) -> Option<NaiveDateTime> {
    match cell.get(10) {
        None | Some(b'T' | b' ') => parse_instant(cell),
        Some(_) => None,
    }
}

/// `YYYY-MM-DD`, exactly ten bytes.
fn parse_date(text: &[u8]) -> Option<NaiveDate> {
    NaiveDate::from_ymd_opt(
        i32::try_from(parse_digits(text.get(..4)?)?).ok()?,
        parse_digits_after(b'-', text.get(4..7)?)?,
        parse_digits_after(b'-', text.get(7..10)?)?,
    )
}

/// The time in `THH:MM:SS[.fff]`, and the text behind it.
fn parse_clock(text: &[u8]) -> Option<(NaiveTime, &[u8])> {
    let (clock, rest) = text.split_at_checked(9)?;
    let (hour, minute, second) = (
        parse_digits(&clock[1..3])?,
        parse_digits_after(b':', &clock[3..6])?,
        parse_digits_after(b':', &clock[6..9])?,
    );
    let (nanosecond, rest) = parse_fraction(rest)?;

    let time = NaiveTime::from_hms_nano_opt(hour, minute, second, nanosecond)?;

    Some((time, rest))
}

/// The nanoseconds of `.fff` (0 when there is no point), and the text behind it.
fn parse_fraction(text: &[u8]) -> Option<(u32, &[u8])> {
    let Some(text) = text.strip_prefix(b".") else {
        return Some((0, text));
    };

    let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();

    if !(1..=9).contains(&count) {
        return None;
    }

    let (digits, rest) = text.split_at(count);

    Some((parse_digits(digits)? * 10_u32.pow(9 - count as u32), rest))
}

/// `Z` or `±hh:mm`.
fn parse_offset(text: &[u8]) -> Option<FixedOffset> {
    match text {
        b"Z" => FixedOffset::east_opt(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (parse_digits(&[*h1, *h2])?, parse_digits(&[*m1, *m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let seconds = i32::try_from(hours * 3600 + minutes * 60).ok()?;
            FixedOffset::east_opt(if *sign == b'-' { -seconds } else { seconds })
        }
        _ => None,
    }
}

/// A number written with ASCII digits only; `str::parse` would also accept a sign.
fn parse_digits(text: &[u8]) -> Option<u32> {
    text.iter().try_fold(0, |value, byte| {
        byte.is_ascii_digit()
            .then(|| value * 10 + u32::from(byte - b'0'))
    })
}

fn parse_digits_after(separator: u8, text: &[u8]) -> Option<u32> {
    text.strip_prefix(&[separator]).and_then(parse_digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use proptest::prelude::*;

    /// The same text, read by chrono, which wants an offset.
    fn by_chrono(text: &str) -> Option<NaiveDateTime> {
        let has_offset = text.len() > 19 && text[19..].contains(['Z', '+', '-']);
        let text = if has_offset {
            text.to_owned()
        } else {
            format!("{text}Z")
        };
        DateTime::parse_from_rfc3339(&text)
            .ok()
            .map(|time| time.naive_utc())
    }

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
                parse_cell(cell.as_bytes()).unwrap().and_utc().timestamp(),
                seconds,
                "{cell}"
            );
            assert_eq!(parse_cell(cell.as_bytes()), parse_instant(cell.as_bytes()));
        }

        assert!(parse_cell(b"2020-01-01T00:00:00.001") > parse_cell(b"2020-01-01"));
    }

    #[test]
    fn other_texts_are_not_read() {
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
            assert_eq!(parse_cell(cell.as_bytes()), None, "{cell}");
        }
    }

    #[test]
    fn only_cells_refuse_an_offset_after_a_date() {
        assert_eq!(parse_instant(b"2020-01-01Z"), parse_instant(b"2020-01-01"));
        assert_eq!(
            parse_instant(b"2020-01-01+01:00"),
            parse_instant(b"2019-12-31T23:00:00")
        );
        assert_eq!(parse_cell(b"2020-01-01+01:00"), None);
        assert_eq!(parse_instant(b"2020-01-01Z12:34"), None);
    }

    proptest! {
        #[test]
        fn well_formed_times_mean_what_chrono_says(
            (year, month, day) in (0..=9999, 0..=13, 0..=32),
            (hour, minute, second) in (0..=24, 0..=60, 0..=59),
            separator in "[T ]",
            fraction in "(\\.[0-9]{1,9})?",
            offset in "(Z|[+-][0-2][0-9]:[0-6][0-9])?",
        ) {
            let text = format!(
                "{year:04}-{month:02}-{day:02}{separator}{hour:02}:{minute:02}:{second:02}{fraction}{offset}"
            );

            prop_assert_eq!(parse_instant(text.as_bytes()), by_chrono(&text), "{}", text);
        }

        #[test]
        fn nothing_is_read_that_chrono_refuses(text in "2024-0[1-3]-[0-3][0-9][0-9TZ :.+-]{9,20}") {
            if let Some(time) = parse_cell(text.as_bytes()) {
                prop_assert_eq!(Some(time), by_chrono(&text), "{}", text);
            }
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9TZ :.+é-]{0,30}") {
            let _ = parse_instant(text.as_bytes());
        }
    }
}

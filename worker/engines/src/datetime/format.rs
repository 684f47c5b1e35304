//! Times in a form that a request describes with a strftime format.

use std::io::Write;

use chrono::format::{Item, Numeric, Parsed, StrftimeItems};
use chrono::{Datelike, FixedOffset, NaiveDateTime, Timelike};

/// A format that chrono does not know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("datetime format {0:?} is not a strftime format: use directives such as %Y-%m-%d %H:%M:%S")]
pub(crate) struct InvalidTimeFormat(String);

/// A strftime format, parsed once and used for every cell of a column.
pub(crate) struct TimeFormat {
    items: Vec<Item<'static>>,
    has_hour: bool,
}

impl TimeFormat {
    /// Parses `format`.
    pub(crate) fn new(format: &str) -> Result<Self, InvalidTimeFormat> {
        let items = StrftimeItems::new(format)
            .parse_to_owned()
            .map_err(|_| InvalidTimeFormat(format.to_owned()))?;
        let has_hour = items
            .iter()
            .any(|item| matches!(item, Item::Numeric(Numeric::Hour, _)));

        Ok(Self { items, has_hour })
    }

    /// Writes the time in `cell` to `text` as `%Y-%m-%dT%H:%M:%S`, or as `%Y-%m-%d` when the format
    /// has no hour of the day. Returns false when the cell does not follow the format.
    ///
    /// An offset in the cell is applied: the written text has no offset and therefore means UTC.
    pub(crate) fn rewrite(&self, cell: &[u8], text: &mut Vec<u8>) -> bool {
        text.clear();

        let Some(time) = self
            .parse(cell)
            .filter(|time| (0..=9999).contains(&time.year()))
        else {
            return false;
        };

        let (year, month, day) = (time.year(), time.month(), time.day());
        let written = if self.has_hour {
            let (hour, minute, second) = (time.hour(), time.minute(), time.second());
            write!(
                text,
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
            )
        } else {
            write!(text, "{year:04}-{month:02}-{day:02}")
        };

        written.is_ok()
    }

    fn parse(&self, cell: &[u8]) -> Option<NaiveDateTime> {
        let mut parsed = Parsed::new();
        let cell = std::str::from_utf8(cell).ok()?;

        chrono::format::parse(&mut parsed, cell, self.items.iter()).ok()?;

        if !self.has_hour {
            return parsed.to_naive_date().ok()?.and_hms_opt(0, 0, 0);
        }

        if parsed.minute().is_none() {
            parsed.set_minute(0).ok()?;
        }

        let offset = parsed.offset().unwrap_or(0);
        let local = parsed.to_naive_datetime_with_offset(offset).ok()?;

        // The text written cannot express a leap second.
        if local.nanosecond() >= 1_000_000_000 {
            return None;
        }

        local.checked_sub_offset(FixedOffset::east_opt(offset)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

//! Times in a form that a request describes with a strftime format.

use std::fmt::Write as _;
use std::str::FromStr;

use chrono::format::{Fixed, Item, Numeric, Parsed, StrftimeItems, parse_and_remainder};
use chrono::{DateTime, NaiveDateTime, NaiveTime, Timelike};

use super::zone::Zone;

/// Seconds from 1970-01-01 to 2006-01-02T15:04:05Z. A format is tried with this time.
const SAMPLE: i64 = 1_136_214_245;

/// A format that cannot be used. The request is refused before any row is read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidTimeFormat {
    /// chrono does not know a directive.
    #[error(
        "datetime format {0:?} is not a strftime format: use directives such as %Y-%m-%d %H:%M:%S, or %s or %Q (milliseconds) alone for numbers since 1970"
    )]
    Unknown(String),
    /// The hour is missing, but a smaller part of the clock is there.
    #[error(
        "datetime format {0:?} has a part of the clock but no hour: add %H, or %I with %p, or leave out that part"
    )]
    NoHour(String),
    /// Even a text that the format itself writes cannot be read.
    #[error(
        "datetime format {0:?} does not give a whole date: it needs a year, a month and a day, and %I needs %p"
    )]
    Incomplete(String),
    /// The zone is not in the time zone database.
    #[error(
        "zone {0:?} is not in the IANA time zone database: use a name such as Europe/Berlin or UTC"
    )]
    UnknownZone(String),
}

/// A strftime format, parsed once and used for every cell of a column.
#[derive(Debug)]
pub(crate) struct TimeFormat {
    form: Form,
    /// Whether the format has an hour of the day. Without one it reads dates.
    pub(super) has_hour: bool,
    /// Whether the format counts from 1970.
    pub(super) is_epoch: bool,
}

#[derive(Debug)]
enum Form {
    /// A whole number since 1970-01-01T00:00:00Z. The value is how many make a second.
    Epoch(i64),
    /// Directives of chrono, with the names of zones between them.
    Items(Vec<Part>),
}

#[derive(Debug)]
enum Part {
    Items(Vec<Item<'static>>),
    /// `%Z`. chrono skips the name of a zone without reading it.
    ZoneName,
}

/// A time as a cell writes it.
#[derive(Debug, PartialEq)]
pub(super) struct ReadTime {
    /// Date and clock of the cell.
    pub(super) local: NaiveDateTime,
    /// The zone that the cell names.
    pub(super) zone: Option<Zone>,
}

impl TimeFormat {
    /// Parses `format`, and tries it on a text that it writes itself.
    pub(crate) fn new(format: &str) -> Result<Self, InvalidTimeFormat> {
        let per_second = match format {
            "%s" => Some(1),
            "%Q" | "%s%3f" => Some(1000),
            "%s%6f" => Some(1_000_000),
            "%s%9f" => Some(1_000_000_000),
            _ => None,
        };
        if let Some(per_second) = per_second {
            return Ok(Self {
                form: Form::Epoch(per_second),
                has_hour: true,
                is_epoch: true,
            });
        }

        let items = StrftimeItems::new(format)
            .parse_to_owned()
            .map_err(|_| InvalidTimeFormat::Unknown(format.to_owned()))?;
        let has_hour = items.iter().any(is_hour);

        if !has_hour && items.iter().any(is_clock_part) {
            return Err(InvalidTimeFormat::NoHour(format.to_owned()));
        }

        let mut sample = String::new();
        let time = DateTime::from_timestamp(SAMPLE, 0).unwrap_or_default();
        let written = write!(sample, "{}", time.format_with_items(items.iter()));
        let format_of_items = Self {
            is_epoch: items.iter().any(is_timestamp),
            form: Form::Items(split_at_zones(items)),
            has_hour,
        };

        if written.is_err() || format_of_items.read(sample.as_bytes()).is_none() {
            return Err(InvalidTimeFormat::Incomplete(format.to_owned()));
        }

        Ok(format_of_items)
    }

    /// The time in `cell`, or none when the cell does not follow the format. Without an hour in the
    /// format it is the midnight of the date.
    pub(super) fn read(&self, cell: &[u8]) -> Option<ReadTime> {
        let cell = std::str::from_utf8(cell).ok()?;

        match &self.form {
            Form::Epoch(per_second) => read_epoch(cell, *per_second),
            Form::Items(parts) => self.read_parts(cell, parts),
        }
    }

    /// Whether `cell` follows the format.
    pub(crate) fn matches(&self, cell: &[u8]) -> bool {
        let utc = self.read(cell).and_then(|time| match time.zone {
            Some(zone) => zone.candidates(time.local).first().copied(),
            None => Some(time.local),
        });
        utc.is_some_and(super::has_four_digit_year)
    }

    fn read_parts(&self, cell: &str, parts: &[Part]) -> Option<ReadTime> {
        let (mut parsed, mut rest, mut zone) = (Parsed::new(), cell, None);

        for part in parts {
            match part {
                Part::Items(items) => {
                    rest = parse_and_remainder(&mut parsed, rest, items.iter()).ok()?;
                }
                Part::ZoneName => {
                    let is_name =
                        |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '+' | '-');
                    let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
                    zone = Some(Zone::from_cell(&rest[..end])?);
                    rest = &rest[end..];
                }
            }
        }

        if !rest.is_empty() {
            return None;
        }
        if !self.has_hour {
            let local = parsed.to_naive_date().ok()?.and_time(NaiveTime::MIN);
            return Some(ReadTime { local, zone: None });
        }
        if parsed.timestamp().is_none() && parsed.minute().is_none() {
            parsed.set_minute(0).ok()?;
        }

        let offset = parsed.offset();
        let local = parsed
            .to_naive_datetime_with_offset(offset.unwrap_or(0))
            .ok()?;

        // The text written cannot express a leap second.
        if local.nanosecond() >= 1_000_000_000 {
            return None;
        }

        // An offset in the cell is more exact than the name of a zone. A count since 1970 is UTC.
        let zone = match offset {
            Some(seconds) => Some(Zone::offset(seconds)?),
            None if self.is_epoch => Some(Zone::UTC),
            None => zone,
        };

        Some(ReadTime { local, zone })
    }
}

/// A whole number of which `per_second` make a second.
fn read_epoch(cell: &str, per_second: i64) -> Option<ReadTime> {
    let count = i64::from_str(cell).ok()?;
    let nanoseconds = count.rem_euclid(per_second) * (1_000_000_000 / per_second);
    let time = DateTime::from_timestamp(
        count.div_euclid(per_second),
        u32::try_from(nanoseconds).ok()?,
    )?;

    Some(ReadTime {
        local: time.naive_utc(),
        zone: Some(Zone::UTC),
    })
}

fn split_at_zones(items: Vec<Item<'static>>) -> Vec<Part> {
    let mut parts = Vec::new();
    for item in items {
        match (item, parts.last_mut()) {
            (Item::Fixed(Fixed::TimezoneName), _) => parts.push(Part::ZoneName),
            (item, Some(Part::Items(items))) => items.push(item),
            (item, _) => parts.push(Part::Items(vec![item])),
        }
    }
    parts
}

fn is_timestamp(item: &Item<'_>) -> bool {
    matches!(item, Item::Numeric(Numeric::Timestamp, _))
}

/// Whether the item gives the hour of the day.
fn is_hour(item: &Item<'_>) -> bool {
    let whole = matches!(item, Item::Fixed(Fixed::RFC2822 | Fixed::RFC3339));
    let hour = matches!(item, Item::Numeric(Numeric::Hour | Numeric::Hour12, _));
    whole || hour || is_timestamp(item)
}

/// Whether the item gives a part of the clock that says nothing without the hour.
fn is_clock_part(item: &Item<'_>) -> bool {
    use Numeric::{Minute, Nanosecond, Second};
    matches!(
        item,
        Item::Numeric(Minute | Second | Nanosecond, _)
            | Item::Fixed(Fixed::LowerAmPm | Fixed::UpperAmPm)
    )
}

//! Time zones: by the names of the IANA database, by abbreviations, and by offset.

use std::str::FromStr;

use chrono::{FixedOffset, NaiveDateTime, Offset, TimeZone};
use chrono_tz::Tz;

/// Abbreviations with one meaning, and their offsets from UTC in hours: those of RFC 5322, and those
/// of Europe and Japan. `IST`, `BST` and others have several meanings and are not read.
const ABBREVIATIONS: [(&str, i32); 20] = [
    ("UTC", 0),
    ("UT", 0),
    ("GMT", 0),
    ("Z", 0),
    ("WET", 0),
    ("WEST", 1),
    ("CET", 1),
    ("CEST", 2),
    ("EET", 2),
    ("EEST", 3),
    ("MSK", 3),
    ("JST", 9),
    ("EST", -5),
    ("EDT", -4),
    ("CST", -6),
    ("CDT", -5),
    ("MST", -7),
    ("MDT", -6),
    ("PST", -8),
    ("PDT", -7),
];

/// A rule for the offset from UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zone {
    /// The same offset at all times, in seconds east of UTC.
    Offset(i32),
    /// The rules of a place.
    Named(Tz),
}

impl Zone {
    pub(crate) const UTC: Self = Self::Offset(0);

    /// The zone that the IANA database calls `name`, such as `Europe/Berlin`.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Tz::from_str(name).ok().map(Self::Named)
    }

    /// The zone that a cell calls `name`: an abbreviation with one meaning, or a place such as
    /// `Europe/Berlin`.
    pub(super) fn from_cell(name: &str) -> Option<Self> {
        if name.contains('/') {
            return Self::named(name);
        }
        let (_, hours) = ABBREVIATIONS.iter().find(|(known, _)| *known == name)?;
        Some(Self::Offset(hours * 3600))
    }

    /// A fixed offset of less than a day.
    pub(super) fn offset(seconds: i32) -> Option<Self> {
        FixedOffset::east_opt(seconds).map(|_| Self::Offset(seconds))
    }

    /// The times in UTC at which the clocks of the zone show `local`, in order: none where the clock
    /// is set forward over it, two where it is set back over it.
    pub(super) fn candidates(self, local: NaiveDateTime) -> Vec<NaiveDateTime> {
        let utc = |offset: FixedOffset| local.checked_sub_offset(offset);

        match self {
            Self::Offset(seconds) => FixedOffset::east_opt(seconds)
                .and_then(utc)
                .into_iter()
                .collect(),
            Self::Named(zone) => {
                let offsets = zone.offset_from_local_datetime(&local).map(|o| o.fix());
                let (first, second) = (offsets.earliest(), offsets.latest());
                let second = second.filter(|second| Some(*second) != first);
                let mut times: Vec<_> = first.into_iter().chain(second).filter_map(utc).collect();
                times.sort_unstable();
                times
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(zone: Zone, local: &str) -> Vec<String> {
        let local = NaiveDateTime::parse_from_str(local, "%Y-%m-%d %H:%M").unwrap();
        let times = zone.candidates(local);
        times.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn clocks_are_set_forward_and_back() {
        let berlin = Zone::named("Europe/Berlin").unwrap();

        assert_eq!(
            candidates(berlin, "2018-07-01 12:00"),
            ["2018-07-01 10:00:00"]
        );
        assert_eq!(
            candidates(berlin, "2018-12-01 12:00"),
            ["2018-12-01 11:00:00"]
        );
        assert_eq!(candidates(berlin, "2018-03-25 02:30"), [""; 0]);
        assert_eq!(
            candidates(berlin, "2018-10-28 02:30"),
            ["2018-10-28 00:30:00", "2018-10-28 01:30:00"]
        );
        assert_eq!(
            candidates(Zone::Offset(7200), "2018-10-28 02:30"),
            ["2018-10-28 00:30:00"]
        );
    }

    #[test]
    fn names_have_one_meaning() {
        assert_eq!(Zone::from_cell("CEST"), Some(Zone::Offset(7200)));
        assert_eq!(
            Zone::from_cell("Europe/Berlin"),
            Zone::named("Europe/Berlin")
        );
        for name in ["banana", "IST", "cest", "", "Europe/Bonn", "+0200"] {
            assert_eq!(Zone::from_cell(name), None, "{name}");
        }
        assert_eq!(Zone::named("Berlin"), None);
    }
}

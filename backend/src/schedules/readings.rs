//! What a clock on the wall shows, and when it shows that.
//!
//! When the clocks change, a clock leaves out an hour or shows it twice. A fixed time must come once all
//! the same: what is left out comes right after the hour, and what comes twice counts the first time.
//! Both keep the order: a later reading never comes before an earlier one.

use chrono::{DateTime, MappedLocalTime, NaiveDateTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

/// A time zone is at most so far from UTC, and the clocks change only once within twice that.
const FAR: TimeDelta = TimeDelta::hours(15);

/// When a clock shows this first, or what comes right after it if it is left out.
pub fn first_showing(zone: Tz, reading: NaiveDateTime) -> DateTime<Utc> {
    match zone.from_local_datetime(&reading) {
        MappedLocalTime::Single(moment) => moment.to_utc(),
        MappedLocalTime::Ambiguous(one, other) => one.min(other).to_utc(),
        MappedLocalTime::None => after_gap(zone, reading),
    }
}

/// The latest reading that a clock has shown first at this moment or before: in the second one of two
/// hours, the end of the first one.
pub fn latest_reading(zone: Tz, moment: DateTime<Utc>) -> NaiveDateTime {
    let reading = moment.with_timezone(&zone).naive_local();
    match zone.from_local_datetime(&reading) {
        MappedLocalTime::Ambiguous(one, other) => reading + (other - one).abs(),
        _ => reading,
    }
}

/// The first moment at which a clock shows more than this reading, which is left out.
fn after_gap(zone: Tz, reading: NaiveDateTime) -> DateTime<Utc> {
    let shows_more = |moment: DateTime<Utc>| moment.with_timezone(&zone).naive_local() > reading;
    let (mut before, mut after) = (reading.and_utc() - FAR, reading.and_utc() + FAR);
    while after - before > TimeDelta::seconds(1) {
        let seconds = (after - before).num_seconds() / 2;
        let middle = before + TimeDelta::seconds(seconds);
        if shows_more(middle) {
            after = middle;
        } else {
            before = middle;
        }
    }
    after
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(text: &str) -> NaiveDateTime {
        text.parse().unwrap()
    }

    fn first(zone: Tz, text: &str) -> String {
        first_showing(zone, reading(text)).to_rfc3339()
    }

    #[test]
    fn what_is_left_out_comes_right_after_the_gap_however_long_that_is() {
        let berlin = chrono_tz::Europe::Berlin;
        assert_eq!(
            first(berlin, "2027-03-28T02:10:00"),
            "2027-03-28T01:00:00+00:00"
        );
        let lord_howe = chrono_tz::Australia::Lord_Howe;
        assert_eq!(
            first(lord_howe, "2027-10-03T02:10:00"),
            "2027-10-02T15:30:00+00:00"
        );
        // A day that this zone has never had.
        let apia = chrono_tz::Pacific::Apia;
        assert_eq!(
            first(apia, "2011-12-30T12:00:00"),
            "2011-12-30T10:00:00+00:00"
        );
    }

    #[test]
    fn what_comes_twice_counts_the_first_time() {
        let berlin = chrono_tz::Europe::Berlin;
        assert_eq!(
            first(berlin, "2027-10-31T02:30:00"),
            "2027-10-31T00:30:00+00:00"
        );
        let second = "2027-10-31T01:10:00Z".parse().unwrap();
        assert_eq!(
            latest_reading(berlin, second),
            reading("2027-10-31T03:10:00")
        );
    }
}

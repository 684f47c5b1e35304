//! Which slot of a schedule is to be decided next. Pure.

use std::time::Duration;

use ktrdr_protocol::schedule::{CatchUp, Overlap, Schedule, ScheduleRun};
use ktrdr_protocol::time::Timestamp;

use super::cron::Cron;

/// A slot that nobody could start for so long counts as missed.
pub const GRACE: Duration = Duration::from_secs(60);

/// Most slots that are counted at a time: years of them may have been missed.
pub const MOST_COUNTED: usize = 1_000;

/// The first slot until `now` that is still to be decided; `None` when there is none.
pub fn next_due(
    schedule: &Schedule,
    cron: &Cron,
    run: &ScheduleRun,
    now: Timestamp,
) -> Option<Timestamp> {
    if schedule.paused {
        return None;
    }
    let decided = decided(schedule, run);
    let first = cron.after(decided).filter(|slot| *slot <= now)?;
    // There, a slot waits for the operation before it, however long that takes.
    if schedule.overlap == Overlap::Queue {
        return Some(first);
    }

    let grace_begins = now.minus(GRACE);
    if first >= grace_begins {
        return Some(first);
    }
    let missed = cron
        .until(grace_begins.minus(Duration::from_millis(1)))
        .filter(|slot| *slot > decided);
    match (schedule.catch_up, missed) {
        (CatchUp::Once, Some(missed)) => Some(missed),
        _ => cron
            .after(grace_begins.minus(Duration::from_millis(1)))
            .filter(|slot| *slot <= now),
    }
}

/// How many slots wait until `now` for the operation before them, at most `most`. Only with overlap
/// `queue` slots wait.
pub fn waiting(
    schedule: &Schedule,
    cron: &Cron,
    run: &ScheduleRun,
    now: Timestamp,
    most: usize,
) -> u64 {
    if schedule.paused || schedule.overlap != Overlap::Queue {
        return 0;
    }
    count(cron, decided(schedule, run), |slot| slot <= now, most)
}

/// How many slots are left out when this one is decided next, at most [`MOST_COUNTED`].
pub fn missed(schedule: &Schedule, cron: &Cron, run: &ScheduleRun, next: Timestamp) -> u64 {
    let decided = decided(schedule, run);
    count(cron, decided, |slot| slot < next, MOST_COUNTED)
}

/// Slots until here are decided, or do not count.
fn decided(schedule: &Schedule, run: &ScheduleRun) -> Timestamp {
    run.slot
        .map_or(schedule.since, |slot| slot.max(schedule.since))
}

fn count(cron: &Cron, after: Timestamp, counts: impl Fn(Timestamp) -> bool, most: usize) -> u64 {
    let slots = std::iter::successors(cron.after(after), |slot| cron.after(*slot));
    let counted = slots.take(most).take_while(|slot| counts(*slot)).count();
    counted as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn time(text: &str) -> Timestamp {
        serde_json::from_value(format!("2026-11-27T{text}Z").into()).unwrap()
    }

    /// A schedule for every full minute since 10:00.
    fn minutely(overlap: &str, catch_up: &str) -> (Schedule, Cron) {
        let schedule: Schedule = serde_json::from_value(json!({
            "domain": "dummy", "worker_type": "dummy", "body": {}, "cron": "* * * * *",
            "time_zone": "UTC", "overlap": overlap, "catch_up": catch_up,
            "since": time("10:00:00"), "created_at": time("10:00:00"),
            "updated_at": time("10:00:00"),
        }))
        .unwrap();
        let cron = Cron::read(&schedule.cron, chrono_tz::Tz::UTC).unwrap();
        (schedule, cron)
    }

    /// All slots that are decided until `now`, one after the other.
    fn all(schedule: &Schedule, cron: &Cron, now: &str) -> Vec<Timestamp> {
        let mut run = ScheduleRun::default();
        let mut found = Vec::new();
        while let Some(slot) = next_due(schedule, cron, &run, time(now)) {
            assert!(run.slot.is_none_or(|last| last < slot));
            run.slot = Some(slot);
            found.push(slot);
        }
        found
    }

    #[test]
    fn each_slot_of_the_last_minute_is_decided_once() {
        let (schedule, cron) = minutely("skip", "skip");

        assert_eq!(all(&schedule, &cron, "10:00:59"), []);
        assert_eq!(all(&schedule, &cron, "10:01:00"), [time("10:01:00")]);
        assert_eq!(
            all(&schedule, &cron, "10:02:00"),
            [time("10:01:00"), time("10:02:00")]
        );
    }

    #[test]
    fn missed_slots_are_left_out_or_caught_up_once_or_queued() {
        let (skip, cron) = minutely("skip", "skip");
        let (once, _) = minutely("replace", "once");
        let (queue, _) = minutely("queue", "skip");

        assert_eq!(all(&skip, &cron, "10:05:30"), [time("10:05:00")]);
        assert_eq!(
            all(&once, &cron, "10:05:30"),
            [time("10:04:00"), time("10:05:00")]
        );
        assert_eq!(all(&queue, &cron, "10:05:30").len(), 5);
    }

    #[test]
    fn a_paused_schedule_and_slots_before_its_time_are_not_due() {
        let (mut schedule, cron) = minutely("queue", "once");
        schedule.since = time("10:04:00");

        assert_eq!(all(&schedule, &cron, "10:05:30"), [time("10:05:00")]);
        schedule.paused = true;
        assert_eq!(all(&schedule, &cron, "10:05:30"), []);
    }

    #[test]
    fn an_outage_longer_than_a_minute_is_no_reason_to_start_a_slot_late() {
        let (mut skip, _) = minutely("skip", "skip");
        skip.cron = "0 * * * *".to_owned();
        let hourly = Cron::read(&skip.cron, chrono_tz::Tz::UTC).unwrap();
        skip.since = time("08:30:00");
        let mut once = skip.clone();
        once.catch_up = CatchUp::Once;

        assert_eq!(all(&skip, &hourly, "10:30:00"), []);
        assert_eq!(all(&once, &hourly, "12:30:00"), [time("12:00:00")]);
    }

    #[test]
    fn slots_that_wait_and_slots_that_were_missed_are_counted() {
        let (queue, cron) = minutely("queue", "skip");
        let (skip, _) = minutely("skip", "skip");
        let run = ScheduleRun {
            slot: Some(time("10:02:00")),
            ..ScheduleRun::default()
        };

        assert_eq!(waiting(&queue, &cron, &run, time("10:05:30"), 100), 3);
        assert_eq!(waiting(&queue, &cron, &run, time("10:05:30"), 2), 2);
        assert_eq!(waiting(&skip, &cron, &run, time("10:05:30"), 100), 0);
        assert_eq!(missed(&skip, &cron, &run, time("10:05:00")), 2);
        assert_eq!(missed(&skip, &cron, &run, time("10:03:00")), 0);
    }
}

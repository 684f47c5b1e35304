//! How much happened in each of the last minutes, by stream time, so every backend counts the same.

use std::collections::BTreeMap;

use ktrdr_protocol::rest::stats::{MinuteCounts, MinuteStats};
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;

/// Milliseconds.
const MINUTE: i64 = 60_000;

/// Minutes shown, the current one included.
const SHOWN: i64 = 60;

/// The last minutes of one worker type.
#[derive(Debug, Default)]
pub struct RecentMinutes(BTreeMap<i64, MinuteCounts>);

impl RecentMinutes {
    /// Counts an operation that took this status at `at`.
    pub fn count(&mut self, status: Status, at: Timestamp, now: Timestamp) {
        let current = now.as_millis().div_euclid(MINUTE);
        // The stream's clock may be ahead of this machine's.
        let minute = at.as_millis().div_euclid(MINUTE).min(current);
        if minute <= current - SHOWN {
            return;
        }
        let counts = self.0.entry(minute).or_default();
        match status {
            Status::Pending => counts.created += 1,
            Status::Running => {}
            Status::Completed => counts.completed += 1,
            Status::Failed => counts.failed += 1,
            Status::Cancelled => counts.cancelled += 1,
        }
        while let Some(oldest) = self.0.first_entry()
            && *oldest.key() <= current - SHOWN
        {
            oldest.remove();
        }
    }

    /// The last minutes of all these together, oldest first, without gaps.
    pub fn together<'a>(
        all: impl Iterator<Item = &'a Self> + Clone,
        now: Timestamp,
    ) -> Vec<MinuteStats> {
        let current = now.as_millis().div_euclid(MINUTE);
        (current - SHOWN + 1..=current)
            .map(|minute| MinuteStats {
                minute: Timestamp::from_millis(minute * MINUTE),
                counts: sum(all.clone().filter_map(|recent| recent.0.get(&minute))),
            })
            .collect()
    }
}

fn sum<'a>(all: impl Iterator<Item = &'a MinuteCounts>) -> MinuteCounts {
    all.fold(MinuteCounts::default(), |sum, counts| MinuteCounts {
        created: sum.created + counts.created,
        completed: sum.completed + counts.completed,
        failed: sum.failed + counts.failed,
        cancelled: sum.cancelled + counts.cancelled,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_worker_types_are_summed_and_each_can_be_shown_alone() {
        let (mut one, mut other) = (RecentMinutes::default(), RecentMinutes::default());
        let at = Timestamp::from_millis(100 * MINUTE);
        one.count(Status::Pending, at, at);
        one.count(Status::Failed, at, at);
        other.count(Status::Pending, at, at);

        let both = RecentMinutes::together([&one, &other].into_iter(), at);
        let alone = RecentMinutes::together([&other].into_iter(), at);

        assert_eq!((both[59].counts.created, both[59].counts.failed), (2, 1));
        assert_eq!((alone[59].counts.created, alone[59].counts.failed), (1, 0));
    }

    #[test]
    fn old_minutes_fall_out_and_early_ones_count_as_now() {
        fn shown(recent: &RecentMinutes, now: Timestamp) -> Vec<MinuteStats> {
            RecentMinutes::together([recent].into_iter(), now)
        }

        let mut recent = RecentMinutes::default();
        let at = |minute: i64| Timestamp::from_millis(minute * MINUTE + 1);
        recent.count(Status::Completed, at(100), at(100));
        recent.count(Status::Pending, at(107), at(100));
        recent.count(Status::Failed, at(40), at(100));
        let minutes = shown(&recent, at(100));
        assert_eq!(minutes.len(), 60);
        assert_eq!(
            minutes[59].counts,
            MinuteCounts {
                created: 1,
                completed: 1,
                ..MinuteCounts::default()
            }
        );
        assert_eq!(minutes[0].counts, MinuteCounts::default());
        recent.count(Status::Cancelled, at(160), at(160));
        assert_eq!(recent.0.len(), 1);
        assert_eq!(shown(&recent, at(160))[59].counts.cancelled, 1);
    }
}

//! How long the NATS server takes to answer, and whether the lease is long enough for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// How many of the newest answers count. One slow answer says little about the network.
const KEPT: usize = 10;

/// The newest answers of the server. Cheap to clone; clones share what they know.
#[derive(Debug, Clone, Default)]
pub struct RoundTrips(Arc<Mutex<VecDeque<Duration>>>);

impl RoundTrips {
    /// Notes that an answer took so long.
    pub fn note(&self, took: Duration) {
        let mut newest = self.0.lock();
        if newest.len() == KEPT {
            newest.pop_front();
        }
        newest.push_back(took);
    }

    /// The shortest of the newest round trips; `None` before the first answer.
    pub fn shortest(&self) -> Option<Duration> {
        self.0.lock().iter().min().copied()
    }

    /// The shortest lease with which a healthy worker keeps its operations: it extends the lease
    /// after a third of it, and needs up to three round trips until the server knows. `None` when
    /// `lease` is as long.
    pub fn needed_lease(&self, lease: Duration) -> Option<Duration> {
        let needed = self.shortest()? * 9 / 2;
        (lease < needed).then_some(needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_needs_three_round_trips_beside_its_third() {
        let trips = RoundTrips::default();
        assert_eq!(trips.needed_lease(Duration::ZERO), None);

        trips.note(Duration::from_secs(2));

        assert_eq!(
            trips.needed_lease(Duration::from_millis(8999)),
            Some(Duration::from_secs(9))
        );
        assert_eq!(trips.needed_lease(Duration::from_secs(9)), None);
    }

    #[test]
    fn one_slow_answer_does_not_count_and_old_ones_are_forgotten() {
        let trips = RoundTrips::default();
        trips.note(Duration::from_millis(1));
        trips.note(Duration::from_secs(5));
        assert_eq!(trips.shortest(), Some(Duration::from_millis(1)));

        for _ in 0..KEPT {
            trips.note(Duration::from_secs(2));
        }
        assert_eq!(trips.shortest(), Some(Duration::from_secs(2)));
    }
}

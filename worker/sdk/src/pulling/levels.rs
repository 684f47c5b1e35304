//! The order in which a worker with free slots asks its queues, when they have several priorities.
//!
//! The problem: a request of a higher priority must be taken first, also by a worker with one slot. With
//! pulls open at all queues, the server would give it whatever comes first.
//!
//! How it is solved: a worker whose slots were all taken asks the queues of one priority after the
//! other, with pulls that do not wait. Only when none of them has anything are pulls opened that wait, at
//! all of them together. They stay open as long as nothing comes, so an idle worker asks nothing more.
//! While all queues have the usual priority, nothing of this happens.
//!
//! One round in [`OTHER_WAY`] asks the other way round, and begins with another low priority each time. So
//! work of every priority goes on, however much there is of the others.
//!
//! Rejected: to hand back what is less urgent than something that arrives later. It would cost two
//! messages for each, and the queues would lose their order.

use std::collections::VecDeque;
use std::time::Duration;

use ktrdr_protocol::id::Queue;
use ktrdr_protocol::priority::Priority;
use tokio::time::Instant;

/// Every so many rounds, one asks the other way round.
const OTHER_WAY: u64 = 16;

/// How long one priority may take to answer. A pull that the server keeps although it was not to wait is
/// taken back then.
pub(crate) const ANSWER_PATIENCE: Duration = Duration::from_millis(250);

/// Counts the rounds of a worker.
#[derive(Debug, Default)]
pub(crate) struct Rounds(u64);

impl Rounds {
    /// The next round through these priorities, in the order of their numbers.
    pub(crate) fn next(&mut self, mut levels: Vec<Priority>) -> Round {
        self.0 += 1;
        if self.0.is_multiple_of(OTHER_WAY) && levels.len() > 1 {
            // All but the first one take turns.
            let turn = (self.0 / OTHER_WAY - 1) % (levels.len() as u64 - 1);
            levels.reverse();
            let first = levels.remove(turn as usize);
            levels.insert(0, first);
        }
        Round {
            left: levels.into(),
            asked: Vec::new(),
            asked_at: Instant::now(),
        }
    }
}

/// One round through the priorities.
#[derive(Debug)]
pub(crate) struct Round {
    /// The priorities that were not asked yet.
    left: VecDeque<Priority>,
    /// The queues that were asked last.
    asked: Vec<Queue>,
    asked_at: Instant,
}

impl Round {
    /// The next priority to ask; `None` when all were asked.
    pub(crate) fn next_level(&mut self) -> Option<Priority> {
        self.asked.clear();
        self.left.pop_front()
    }

    /// Notes that a queue was asked.
    pub(crate) fn note_asked(&mut self, queue: Queue) {
        self.asked.push(queue);
        self.asked_at = Instant::now();
    }

    /// The queues that were asked last.
    pub(crate) fn asked(&self) -> &[Queue] {
        &self.asked
    }

    /// When their answers are overdue; `None` when no queue was asked.
    pub(crate) fn patience_ends(&self) -> Option<Instant> {
        (!self.asked.is_empty()).then(|| self.asked_at + ANSWER_PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders(numbers: &[u8], rounds: usize) -> Vec<Vec<u8>> {
        let levels: Vec<_> = numbers.iter().filter_map(|n| Priority::new(*n)).collect();
        let mut counted = Rounds::default();
        let mut order = || {
            let mut round = counted.next(levels.clone());
            std::iter::from_fn(|| round.next_level())
                .map(Priority::number)
                .collect()
        };
        (0..rounds).map(|_| order()).collect()
    }

    #[test]
    fn the_first_priority_is_asked_first_in_fifteen_rounds_of_sixteen() {
        let orders = orders(&[1, 3, 5], 48);

        let first = orders.iter().filter(|order| **order == [1, 3, 5]).count();
        assert_eq!(first, 45);
        assert_eq!(orders[15], [5, 3, 1]);
        assert_eq!(orders[31], [3, 5, 1]);
        assert_eq!(orders[47], [5, 3, 1]);
    }

    #[test]
    fn every_priority_is_asked_first_now_and_then_and_all_in_every_round() {
        let orders = orders(&[1, 2, 3, 4, 5], 16 * 4);

        for level in 1..=5 {
            assert!(orders.iter().any(|order| order[0] == level), "{level}");
        }
        for mut order in orders {
            order.sort_unstable();
            assert_eq!(order, [1, 2, 3, 4, 5]);
        }
    }
}

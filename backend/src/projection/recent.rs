//! The newest changes, so that a client can continue an interrupted event stream.

use std::collections::{HashSet, VecDeque};

use ktrdr_protocol::id::OperationId;

/// Changes that are kept. The replay fills them, so a backend that has just started has them, too.
const KEPT: usize = 8192;

/// The last changes in stream order.
#[derive(Debug, Default)]
pub struct RecentChanges {
    changes: VecDeque<(u64, OperationId)>,
    /// Sequence of the newest change that is no longer kept.
    forgotten: u64,
}

impl RecentChanges {
    /// Adds the next change.
    pub fn push(&mut self, sequence: u64, id: OperationId) {
        if self.changes.len() == KEPT
            && let Some((sequence, _)) = self.changes.pop_front()
        {
            self.forgotten = sequence;
        }
        self.changes.push_back((sequence, id));
    }

    /// Sequence of the newest change; 0 before the first.
    pub fn last(&self) -> u64 {
        self.changes.back().map_or(0, |(sequence, _)| *sequence)
    }

    /// Every operation that changed after `sequence`, once, with the sequence of its newest change,
    /// in the order of these. `None` when there are more than `limit`, when some of them are no
    /// longer kept, or when `sequence` lies in the future: then it is of another stream, or of a
    /// backend that has read further.
    pub fn after(&self, sequence: u64, limit: usize) -> Option<Vec<(u64, OperationId)>> {
        if sequence < self.forgotten || sequence > self.last() {
            return None;
        }
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        for (at, id) in self
            .changes
            .iter()
            .rev()
            .take_while(|(at, _)| *at > sequence)
        {
            if seen.insert(id) {
                if found.len() == limit {
                    return None;
                }
                found.push((*at, id.clone()));
            }
        }
        found.reverse();
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> OperationId {
        OperationId::new(text).unwrap()
    }

    #[test]
    fn each_operation_once_in_the_order_of_its_newest_change() {
        let mut recent = RecentChanges::default();
        for (sequence, name) in [(3, "a"), (4, "b"), (7, "a"), (9, "c")] {
            recent.push(sequence, id(name));
        }
        assert_eq!(recent.after(9, 10), Some(vec![]));
        assert_eq!(
            recent.after(3, 10),
            Some(vec![(4, id("b")), (7, id("a")), (9, id("c"))])
        );
        assert_eq!(recent.after(0, 10).unwrap().len(), 3);
        assert_eq!(recent.after(0, 2), None);
        assert_eq!(recent.after(10, 10), None);
        assert_eq!(RecentChanges::default().after(0, 10), Some(vec![]));
    }

    #[test]
    fn what_is_no_longer_known_is_said_to_be() {
        let mut recent = RecentChanges::default();
        for sequence in 1..=(KEPT as u64 + 2) {
            recent.push(sequence, id("a"));
        }
        assert_eq!(recent.after(1, 10), None);
        assert_eq!(recent.after(2, 10).unwrap().len(), 1);
    }
}

//! The indexes: which operations have which type, status and queue, in the order of creation.
//!
//! Operations are numbered in the order of creation, so a set of operations is a compressed bitmap
//! of a few bits per operation. The newest page of a set is a walk from its end, and an offset is
//! one `select`, so a page costs O(log n + page length).

use std::borrow::Cow;

use ktrdr_protocol::state::Status;
use roaring::{MultiOps, RoaringBitmap};

/// The sets that an operation belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of its worker type.
    pub worker_type: u32,
    /// Number of its queue; the queues of all worker types are numbered together.
    pub queue: u32,
    /// The operation's status.
    pub status: Status,
}

#[derive(Debug, Default)]
struct Lists {
    all: RoaringBitmap,
    by_status: [RoaringBitmap; Status::ALL.len()],
}

impl Lists {
    fn of(&self, status: Option<Status>) -> &RoaringBitmap {
        match status {
            Some(status) => &self.by_status[status as usize],
            None => &self.all,
        }
    }
}

#[derive(Debug, Default)]
struct QueueSets {
    pending: RoaringBitmap,
    running: RoaringBitmap,
}

impl QueueSets {
    fn of(&mut self, status: Status) -> Option<&mut RoaringBitmap> {
        match status {
            Status::Pending => Some(&mut self.pending),
            Status::Running => Some(&mut self.running),
            _ => None,
        }
    }
}

/// All indexes over operation numbers.
#[derive(Debug, Default)]
pub struct Index {
    any: Lists,
    types: Vec<Lists>,
    queues: Vec<QueueSets>,
    /// Operations with a cancel intent that have not ended.
    cancelling: RoaringBitmap,
}

impl Index {
    /// Adds a new operation.
    pub fn insert(&mut self, number: u32, place: Place) {
        let (worker_type, queue) = (place.worker_type as usize, place.queue as usize);
        if self.types.len() <= worker_type {
            self.types.resize_with(worker_type + 1, Lists::default);
        }
        if self.queues.len() <= queue {
            self.queues.resize_with(queue + 1, QueueSets::default);
        }
        self.any.all.insert(number);
        self.types[worker_type].all.insert(number);
        self.enter(number, place);
    }

    /// Gives the operation at `place` another status.
    pub fn shift(&mut self, number: u32, place: Place, to: Status) {
        if place.status == to {
            return;
        }
        self.leave(number, place);
        self.enter(
            number,
            Place {
                status: to,
                ..place
            },
        );
        if to.is_terminal() {
            self.cancelling.remove(number);
        }
    }

    /// Removes an operation.
    pub fn remove(&mut self, number: u32, place: Place) {
        self.leave(number, place);
        self.any.all.remove(number);
        self.types[place.worker_type as usize].all.remove(number);
        self.cancelling.remove(number);
    }

    fn enter(&mut self, number: u32, place: Place) {
        let status = place.status as usize;
        self.any.by_status[status].insert(number);
        self.types[place.worker_type as usize].by_status[status].insert(number);
        if let Some(set) = self.queues[place.queue as usize].of(place.status) {
            set.insert(number);
        }
    }

    fn leave(&mut self, number: u32, place: Place) {
        let status = place.status as usize;
        self.any.by_status[status].remove(number);
        self.types[place.worker_type as usize].by_status[status].remove(number);
        if let Some(set) = self.queues[place.queue as usize].of(place.status) {
            set.remove(number);
        }
    }

    /// Notes that a cancel was requested.
    pub fn cancelling(&mut self, number: u32) {
        self.cancelling.insert(number);
    }

    /// The operations with a cancel intent that have not ended.
    pub fn all_cancelling(&self) -> impl Iterator<Item = u32> + '_ {
        self.cancelling.iter()
    }

    /// How many operations match, and the numbers of one page of them, newest first. `None` matches
    /// all types or statuses. Several types are joined into one set first, which costs an eighth of
    /// a byte for each operation of these types.
    pub fn page(
        &self,
        types: Option<&[u32]>,
        status: Option<Status>,
        offset: u64,
        limit: usize,
    ) -> (u64, Vec<u32>) {
        let set = self.matching(types, status);
        let total = set.len();
        let newest = total
            .checked_sub(1)
            .and_then(|last| last.checked_sub(offset))
            .and_then(|rank| set.select(u32::try_from(rank).ok()?));
        let page = match newest {
            Some(newest) => set.range(..=newest).rev().take(limit).collect(),
            None => Vec::new(),
        };
        (total, page)
    }

    /// All operations that match.
    pub fn matching(
        &self,
        types: Option<&[u32]>,
        status: Option<Status>,
    ) -> Cow<'_, RoaringBitmap> {
        let of_type = |number: &u32| Some(self.types.get(*number as usize)?.of(status));
        match types {
            None => Cow::Borrowed(self.any.of(status)),
            Some([number]) => of_type(number).map_or_else(Cow::default, Cow::Borrowed),
            Some(numbers) => Cow::Owned(numbers.iter().filter_map(of_type).union()),
        }
    }

    /// The position of a pending operation in its queue, from 1.
    pub fn queue_position(&self, queue: u32, number: u32) -> Option<u64> {
        let pending = &self.queues.get(queue as usize)?.pending;
        pending.contains(number).then(|| pending.rank(number))
    }

    /// How many operations of a queue are pending and running, and the oldest pending one.
    pub fn queue(&self, queue: u32) -> (u64, u64, Option<u32>) {
        match self.queues.get(queue as usize) {
            Some(sets) => (sets.pending.len(), sets.running.len(), sets.pending.min()),
            None => (0, 0, None),
        }
    }

    /// How many operations of a queue have not ended, and the oldest of them.
    pub fn open(&self, queue: u32) -> (u64, Option<u32>) {
        let Some(sets) = self.queues.get(queue as usize) else {
            return (0, None);
        };
        let oldest = [sets.pending.min(), sets.running.min()];
        (
            sets.pending.len() + sets.running.len(),
            oldest.into_iter().flatten().min(),
        )
    }

    /// The oldest operation of a worker type that has not ended.
    pub fn oldest_unfinished(&self, worker_type: u32) -> Option<u32> {
        let lists = self.types.get(worker_type as usize)?;
        let oldest = [Status::Pending, Status::Running].map(|status| lists.of(Some(status)).min());
        oldest.into_iter().flatten().min()
    }

    /// The running operations of a worker type.
    pub fn running(&self, worker_type: u32) -> impl Iterator<Item = u32> + '_ {
        let lists = self.types.get(worker_type as usize);
        lists
            .into_iter()
            .flat_map(|lists| lists.of(Some(Status::Running)))
    }

    /// All operations of a queue that have not ended, oldest first.
    pub fn open_in_queue(&self, queue: u32) -> impl Iterator<Item = u32> + use<> {
        let sets = self.queues.get(queue as usize);
        sets.map_or_else(RoaringBitmap::new, |sets| &sets.pending | &sets.running)
            .into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Action {
        Insert { worker_type: u32, queue: u32 },
        Shift { which: usize, to: usize },
        RemoveOldest,
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            4 => (0u32..3, 0u32..2).prop_map(|(worker_type, queue)| Action::Insert { worker_type, queue }),
            4 => (any::<usize>(), 0usize..5).prop_map(|(which, to)| Action::Shift { which, to }),
            1 => Just(Action::RemoveOldest),
        ]
    }

    proptest! {
        #[test]
        fn pages_and_positions_are_those_of_a_plain_list(
            actions in proptest::collection::vec(action(), 0..200),
            types in proptest::option::of(proptest::collection::btree_set(0u32..4, 0..4)),
            status in proptest::option::of(0usize..5),
            offset in 0u64..40,
            limit in 0usize..20,
        ) {
            let mut index = Index::default();
            let mut naive: Vec<(u32, Place)> = Vec::new();
            let mut next = 0;
            for action in actions {
                match action {
                    Action::Insert { worker_type, queue } => {
                        let place = Place { worker_type, queue: worker_type * 2 + queue, status: Status::Pending };
                        index.insert(next, place);
                        naive.push((next, place));
                        // Numbers far apart use several containers of the bitmaps.
                        next += 9_000;
                    }
                    Action::Shift { which, to } if !naive.is_empty() => {
                        let which = which % naive.len();
                        let (number, place) = naive[which];
                        index.shift(number, place, Status::ALL[to]);
                        naive[which].1.status = Status::ALL[to];
                    }
                    Action::RemoveOldest if !naive.is_empty() => {
                        let (number, place) = naive.remove(0);
                        index.remove(number, place);
                    }
                    _ => {}
                }
            }
            let status = status.map(|status| Status::ALL[status]);
            let types: Option<Vec<u32>> = types.map(|types| types.into_iter().collect());
            let matching: Vec<u32> = naive
                .iter()
                .rev()
                .filter(|(_, place)| types.as_ref().is_none_or(|types| types.contains(&place.worker_type)))
                .filter(|(_, place)| status.is_none_or(|s| s == place.status))
                .map(|(number, _)| *number)
                .collect();
            let (total, page) = index.page(types.as_deref(), status, offset, limit);
            prop_assert_eq!(total, matching.len() as u64);
            let expected: Vec<u32> = matching.into_iter().skip(offset as usize).take(limit).collect();
            prop_assert_eq!(page, expected);
            for (number, place) in &naive {
                let before = naive
                    .iter()
                    .filter(|(n, p)| p.queue == place.queue && p.status == Status::Pending && n <= number)
                    .count() as u64;
                let expected = (place.status == Status::Pending).then_some(before);
                prop_assert_eq!(index.queue_position(place.queue, *number), expected);
            }
        }
    }

    #[test]
    fn an_ended_operation_is_no_longer_being_cancelled() {
        let mut index = Index::default();
        let place = Place {
            worker_type: 0,
            queue: 0,
            status: Status::Running,
        };
        index.insert(7, place);
        index.cancelling(7);
        assert_eq!(index.all_cancelling().collect::<Vec<_>>(), [7]);
        index.shift(7, place, Status::Completed);
        assert_eq!(index.all_cancelling().count(), 0);
    }
}

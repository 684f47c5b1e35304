//! The indexes: which operations have which type, status and queue, in the order of creation.
//!
//! Operations are numbered in the order of creation, so a set of operations is a compressed bitmap
//! of a few bits per operation. The newest page of a set is a walk from its end, and an offset is
//! one `select`, so a page costs O(log n + page length).

use std::borrow::{Borrow, Cow};
use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Range;

use ktrdr_protocol::id::{ScheduleId, WorkerId};
use ktrdr_protocol::labels::{Label, Labels};
use ktrdr_protocol::rest::query::ListOrder;
use ktrdr_protocol::state::Status;
use roaring::{MultiOps, RoaringBitmap};

use super::labelled::Labelled;

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
    /// Operations by the worker that runs them, or ran them last.
    workers: HashMap<WorkerId, RoaringBitmap>,
    /// Operations by the schedule that started them.
    schedules: HashMap<ScheduleId, RoaringBitmap>,
    /// Operations that failed, by the code of the failure.
    codes: HashMap<Box<str>, RoaringBitmap>,
    /// Operations by their labels.
    labels: Labelled,
}

/// What a list shows, by numbers.
#[derive(Debug, Clone, Default)]
pub struct Selection<'a> {
    /// Numbers of worker types; `None` for all.
    pub types: Option<&'a [u32]>,
    /// Statuses; empty for all.
    pub statuses: &'a [Status],
    /// The worker.
    pub worker: Option<&'a str>,
    /// The schedule.
    pub schedule: Option<&'a str>,
    /// Codes of failures; empty for all.
    pub codes: &'a [String],
    /// Operations that ended in the time that is meant, and others that are gone; `None` for all.
    pub ended: Option<RoaringBitmap>,
    /// Labels, all of which an operation has.
    pub labels: &'a [Label],
    /// Numbers of operations; `None` for all.
    pub numbers: Option<Range<u32>>,
}

fn borrowed(set: Option<&RoaringBitmap>) -> Cow<'_, RoaringBitmap> {
    set.map_or_else(Cow::default, Cow::Borrowed)
}

/// A part of a set in this order: skips `offset` operations.
pub fn page_of(
    set: &RoaringBitmap,
    order: ListOrder,
    offset: u64,
) -> Box<dyn Iterator<Item = u32> + '_> {
    let rank = match order {
        ListOrder::Oldest => Some(offset),
        ListOrder::Newest => (set.len().checked_sub(1)).and_then(|last| last.checked_sub(offset)),
    };
    let first = rank.and_then(|rank| set.select(u32::try_from(rank).ok()?));
    match (first, order) {
        (None, _) => Box::new(std::iter::empty()),
        (Some(first), ListOrder::Newest) => Box::new(set.range(..=first).rev()),
        (Some(first), ListOrder::Oldest) => Box::new(set.range(first..)),
    }
}

/// Removes a number from one of several sets, and the set when nothing is left in it.
fn take_from<K, Q>(sets: &mut HashMap<K, RoaringBitmap>, key: &Q, number: u32)
where
    K: Borrow<Q> + Eq + Hash,
    Q: Eq + Hash + ?Sized,
{
    if let Some(set) = sets.get_mut(key) {
        set.remove(number);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}

impl Index {
    /// Adds a new operation.
    pub fn insert(&mut self, number: u32, place: Place) {
        self.make_room(place);
        self.any.all.insert(number);
        self.types[place.worker_type as usize].all.insert(number);
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

    /// Takes an operation from one place to another, in another queue of the same worker type.
    pub fn transfer(&mut self, number: u32, from: Place, to: Place) {
        if from != to {
            self.leave(number, from);
            self.make_room(to);
            self.enter(number, to);
        }
    }

    fn make_room(&mut self, place: Place) {
        let (worker_type, queue) = (place.worker_type as usize, place.queue as usize);
        if self.types.len() <= worker_type {
            self.types.resize_with(worker_type + 1, Lists::default);
        }
        if self.queues.len() <= queue {
            self.queues.resize_with(queue + 1, QueueSets::default);
        }
    }

    /// Notes that an operation belongs to another worker than before, or to none.
    pub fn attribute(&mut self, number: u32, before: Option<&WorkerId>, now: Option<&WorkerId>) {
        if before == now {
            return;
        }
        if let Some(before) = before {
            take_from(&mut self.workers, before, number);
        }
        if let Some(now) = now {
            match self.workers.get_mut(now) {
                Some(set) => set.insert(number),
                None => (self.workers.entry(now.clone()).or_default()).insert(number),
            };
        }
    }

    /// Notes that a schedule started an operation.
    pub fn scheduled(&mut self, number: u32, schedule: &ScheduleId) {
        match self.schedules.get_mut(schedule) {
            Some(set) => set.insert(number),
            None => (self.schedules.entry(schedule.clone()).or_default()).insert(number),
        };
    }

    /// Forgets that a schedule started an operation.
    pub fn forget_schedule(&mut self, number: u32, schedule: &ScheduleId) {
        take_from(&mut self.schedules, schedule, number);
    }

    /// Notes that an operation failed with this code.
    pub fn failed(&mut self, number: u32, code: &str) {
        match self.codes.get_mut(code) {
            Some(set) => set.insert(number),
            None => self.codes.entry(code.into()).or_default().insert(number),
        };
    }

    /// Forgets that an operation failed with this code.
    pub fn forget_failure(&mut self, number: u32, code: &str) {
        take_from(&mut self.codes, code, number);
    }

    /// Notes that an operation has these labels.
    pub fn label(&mut self, number: u32, labels: &Labels) {
        for (name, value) in labels.iter() {
            self.labels.insert(name, value, number);
        }
    }

    /// Forgets that an operation has these labels.
    pub fn forget_labels(&mut self, number: u32, labels: &Labels) {
        for (name, value) in labels.iter() {
            self.labels.remove(name, value, number);
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

    /// All operations that match. Several sets are joined or cut first, which costs an eighth of a
    /// byte for each operation.
    pub fn matching(&self, selection: Selection<'_>) -> Cow<'_, RoaringBitmap> {
        let Selection {
            types,
            statuses,
            worker,
            schedule,
            codes,
            ended,
            labels,
            numbers,
        } = selection;
        let has_other =
            worker.is_some() || schedule.is_some() || !codes.is_empty() || !labels.is_empty();
        let mut sets = Vec::new();
        if types.is_some() || !statuses.is_empty() || !has_other {
            sets.push(self.in_statuses(types, statuses));
        }
        if let Some(schedule) = schedule {
            sets.push(borrowed(self.schedules.get(schedule)));
        }
        if let Some(worker) = worker {
            sets.push(borrowed(self.workers.get(worker)));
        }
        if let [only] = codes {
            sets.push(borrowed(self.codes.get(only.as_str())));
        } else if !codes.is_empty() {
            let several = codes
                .iter()
                .filter_map(|code| self.codes.get(code.as_str()));
            sets.push(Cow::Owned(several.union()));
        }
        sets.extend(ended.map(Cow::Owned));
        let labels = labels.iter();
        sets.extend(labels.map(|label| self.labels.of(&label.name, &label.value)));

        let mut matching = match sets.pop() {
            Some(only) if sets.is_empty() => only,
            last => {
                let all = sets.iter().chain(&last).map(|set| &**set);
                Cow::Owned(all.intersection())
            }
        };
        if let Some(numbers) = numbers {
            let matching = matching.to_mut();
            matching.remove_range(..numbers.start);
            matching.remove_range(numbers.end..);
        }
        matching
    }

    fn in_statuses(&self, types: Option<&[u32]>, statuses: &[Status]) -> Cow<'_, RoaringBitmap> {
        let lists: Vec<&Lists> = match types {
            None => vec![&self.any],
            Some(numbers) => {
                let known = numbers.iter();
                known
                    .filter_map(|number| self.types.get(*number as usize))
                    .collect()
            }
        };
        let wanted: Vec<Option<Status>> = match statuses {
            [] => vec![None],
            statuses => statuses.iter().copied().map(Some).collect(),
        };
        let mut sets = lists
            .iter()
            .flat_map(|lists| wanted.iter().map(|status| lists.of(*status)));
        match (sets.next(), sets.next()) {
            (None, _) => Cow::default(),
            (Some(only), None) => Cow::Borrowed(only),
            (Some(first), Some(second)) => {
                Cow::Owned([first, second].into_iter().chain(sets).union())
            }
        }
    }

    /// How many operations there are of a worker type in a status; `None` for all.
    pub fn count(&self, worker_type: Option<u32>, status: Option<Status>) -> u64 {
        let lists = match worker_type {
            None => Some(&self.any),
            Some(number) => self.types.get(number as usize),
        };
        lists.map_or(0, |lists| lists.of(status).len())
    }

    /// The position of a pending operation in its queue, from 1.
    pub fn queue_position(&self, queue: u32, number: u32) -> Option<u64> {
        let pending = &self.queues.get(queue as usize)?.pending;
        pending.contains(number).then(|| pending.rank(number))
    }

    /// How many operations of a queue are pending.
    pub fn pending(&self, queue: u32) -> u64 {
        let sets = self.queues.get(queue as usize);
        sets.map_or(0, |sets| sets.pending.len())
    }

    /// How many of these operations are pending in a queue.
    pub fn pending_among(&self, queue: u32, some: &RoaringBitmap) -> u64 {
        let sets = self.queues.get(queue as usize);
        sets.map_or(0, |sets| sets.pending.intersection_len(some))
    }

    /// How many of these operations are of a worker type.
    pub fn of_type_among(&self, worker_type: u32, some: &RoaringBitmap) -> u64 {
        let lists = self.types.get(worker_type as usize);
        lists.map_or(0, |lists| lists.all.intersection_len(some))
    }

    /// How many operations of a queue are pending and running.
    pub fn queue(&self, queue: u32) -> (u64, u64) {
        match self.queues.get(queue as usize) {
            Some(sets) => (sets.pending.len(), sets.running.len()),
            None => (0, 0),
        }
    }

    /// The pending operations of a queue, oldest first.
    pub fn all_pending(&self, queue: u32) -> impl Iterator<Item = u32> + '_ {
        let sets = self.queues.get(queue as usize);
        sets.into_iter().flat_map(|sets| sets.pending.iter())
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
            statuses in proptest::collection::btree_set(0usize..5, 0..4),
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
            let statuses: Vec<Status> = statuses.into_iter().map(|status| Status::ALL[status]).collect();
            let types: Option<Vec<u32>> = types.map(|types| types.into_iter().collect());
            let matching: Vec<u32> = naive
                .iter()
                .rev()
                .filter(|(_, place)| types.as_ref().is_none_or(|types| types.contains(&place.worker_type)))
                .filter(|(_, place)| statuses.is_empty() || statuses.contains(&place.status))
                .map(|(number, _)| *number)
                .collect();
            let selection = Selection { types: types.as_deref(), statuses: &statuses, ..Selection::default() };
            let set = index.matching(selection);
            prop_assert_eq!(set.len(), matching.len() as u64);
            let page: Vec<u32> = page_of(&set, ListOrder::Newest, offset).take(limit).collect();
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

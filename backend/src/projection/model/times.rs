//! Operations that wait for a time, and the order in which waiting ones are started.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use ktrdr_protocol::event::{Event, EventKind};
use ktrdr_protocol::id::Queue;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::priority::Priority;
use ktrdr_protocol::queue_name::QueueName;
use ktrdr_protocol::requirements::Requirements;
use ktrdr_protocol::state::Rejected;
use ktrdr_protocol::time::Timestamp;

use super::{Model, Skip};
use crate::projection::record::{QueueInfo, Record, Times};

/// Where an operation stands among those that wait for a time: that time, and its number.
pub type Place = (Timestamp, u32);

/// An operation whose time has come, and where it stands.
pub type Passed = (Place, Arc<Record>);

/// The operations that wait for a time, by that time and their number.
#[derive(Debug, Default)]
pub(super) struct WaitingForTimes {
    due: BTreeSet<Place>,
    deadlines: BTreeSet<Place>,
    /// Whether a time was added since the last look.
    has_news: bool,
}

impl WaitingForTimes {
    /// Notes that an operation waits for other times than before.
    pub(super) fn change(&mut self, number: u32, before: Times, now: Times) {
        if before == now {
            return;
        }
        for (set, before, now) in [
            (&mut self.due, before.due, now.due),
            (&mut self.deadlines, before.deadline, now.deadline),
        ] {
            if let Some(before) = before {
                set.remove(&(before, number));
            }
            if let Some(now) = now {
                set.insert((now, number));
                self.has_news = true;
            }
        }
    }
}

/// The queues of one worker type and class by priority, as numbers: waiting operations of the first one
/// are started first.
#[derive(Debug)]
pub(super) struct Line {
    type_number: u32,
    class: Requirements,
    queues: [Option<u32>; Priority::COUNT],
}

impl Model {
    /// The next time for which an operation waits.
    pub fn next_time(&self) -> Option<Timestamp> {
        let waiting = &self.waiting;
        let first = [waiting.due.first(), waiting.deadlines.first()];
        first.into_iter().flatten().map(|(time, _)| *time).min()
    }

    /// Whether there is a new time since the last call.
    pub fn take_time_news(&mut self) -> bool {
        std::mem::take(&mut self.waiting.has_news)
    }

    /// Delayed operations that are due behind this place, at most so many, the earliest first.
    pub fn due(&self, after: Option<Place>, now: Timestamp, most: usize) -> Vec<Passed> {
        self.passed(&self.waiting.due, after, now, most)
    }

    /// Waiting operations behind this place that have expired, at most so many, the earliest first.
    pub fn expired(&self, after: Option<Place>, now: Timestamp, most: usize) -> Vec<Passed> {
        self.passed(&self.waiting.deadlines, after, now, most)
    }

    fn passed(
        &self,
        times: &BTreeSet<Place>,
        after: Option<Place>,
        now: Timestamp,
        most: usize,
    ) -> Vec<Passed> {
        let last = (now, u32::MAX);
        // A clock that was set back would make a range that ends before it begins.
        if after.is_some_and(|after| after >= last) {
            return Vec::new();
        }
        let first = after.map_or(Bound::Unbounded, Bound::Excluded);
        times
            .range((first, Bound::Included(last)))
            .filter_map(|place| Some((*place, self.record(place.1)?)))
            .take(most)
            .collect()
    }

    /// The queue into which an event moves the operation at this place; `None` when it does not.
    ///
    /// # Errors
    /// [`Skip`] when the queue is one of another class.
    pub(super) fn moved_into(
        &mut self,
        position: usize,
        event: &Event,
    ) -> Result<Option<Arc<QueueInfo>>, Skip> {
        let EventKind::Moved { queue, .. } = &event.kind else {
            return Ok(None);
        };
        let record = self.records.get(position).and_then(Option::as_ref);
        let own = &record.ok_or(Skip::Unknown)?.queue;
        if !is_of_class(own, queue) {
            return Err(Skip::Rejected(Rejected::OutOfOrder));
        }
        let worker_type = own.worker_type.clone();
        Ok(Some(
            self.queue_info(&worker_type, Origin::Queued(queue.clone())),
        ))
    }

    /// The number of the line of a new queue, which becomes a part of it.
    pub(super) fn join_line(&mut self, queue: u32, type_number: u32, name: QueueName) -> u32 {
        let mut lines = self.lines.iter();
        let known = lines
            .position(|line| line.type_number == type_number && line.class == name.class)
            .unwrap_or_else(|| {
                self.lines.push(Line {
                    type_number,
                    class: name.class,
                    queues: [None; Priority::COUNT],
                });
                self.lines.len() - 1
            });
        if !name.is_delayed
            && let Some(line) = self.lines.get_mut(known)
        {
            line.queues[usize::from(name.priority.number() - 1)] = Some(queue);
        }
        known as u32
    }

    /// The place of a waiting operation among those of its class, from 1: all of a higher priority are
    /// before it. `None` for one that does not wait, or waits for its time.
    pub(super) fn queue_position(&self, record: &Record, number: u32) -> Option<u64> {
        let queue = &record.queue;
        if queue.is_delayed() {
            return None;
        }
        let own = self.index.queue_position(queue.number, number)?;
        let before = match (queue.name, self.lines.get(queue.line as usize)) {
            (Some(name), Some(line)) => {
                let earlier = usize::from(name.priority.number() - 1);
                let queues = line.queues[..earlier].iter().flatten();
                queues.map(|queue| self.index.pending(*queue)).sum()
            }
            _ => 0,
        };
        Some(before + own)
    }
}

fn is_of_class(own: &QueueInfo, other: &Queue) -> bool {
    let other = QueueName::parse(other.as_str());
    own.name
        .is_some_and(|own| other.is_some_and(|other| other.class == own.class))
}

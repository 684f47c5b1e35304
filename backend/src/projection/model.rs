//! The read model: all operations, numbered in the order of creation, and their indexes. It does no
//! I/O and takes no locks.
//!
//! Longer than 600 lines: records, their numbers and their indexes change together.

mod put_back;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ktrdr_protocol::cancel::CancelIntent;
use ktrdr_protocol::event::Event;
use ktrdr_protocol::id::{OperationId, WorkerId, WorkerType};
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::rest::stats::MinuteStats;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::state::{Rejected, Status};
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::token_name::TokenName;
use tokio::time::Instant;

use self::archiving::Archiving;
use super::counters::Transition;
use super::fold::{self, ProgressReport};
use super::index::Index;
use super::minutes::RecentMinutes;
use super::recent::RecentChanges;
use super::record::{QueueInfo, Record, View};

pub mod archiving;

/// Names of tokens that are shared, at most. Whoever may publish can make up as many as they like.
const MAX_SHARED_TOKENS: usize = 10_000;

/// Worker ids that are kept although no operation may name them any more.
const MAX_IDLE_WORKERS: usize = 1000;

/// Places of forgotten operations that are kept although most places are such.
const MAX_IDLE_GAPS: usize = 100_000;

/// Other start requests of one operation that are noted, at most. There are more only if somebody
/// floods the stream; the operation then leaves it by its age alone.
pub const MAX_OTHER_STARTS: usize = 32;

/// Why a message changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Skip {
    /// Its operation is not known: the start request has left the stream, or was never in it.
    #[error("it belongs to an operation that is not known")]
    Unknown,
    /// An operation with this id exists already.
    #[error("an operation with this id exists already")]
    Exists,
    /// The operation belongs to another worker type than the subject says.
    #[error("the operation is of another worker type")]
    OtherType,
    /// It cannot follow the operation's last event.
    #[error("{0}")]
    Rejected(Rejected),
}

/// The operation that a message changed, as it is now.
#[derive(Debug)]
pub struct Applied {
    /// The operation id.
    pub operation_id: OperationId,
    /// Its worker type and origin.
    pub queue: Arc<QueueInfo>,
    /// Its status.
    pub status: Status,
    /// The effect of the message.
    pub transition: Transition,
}

/// The operations of one queue.
#[derive(Debug)]
pub struct QueueState {
    /// Worker type and origin.
    pub info: Arc<QueueInfo>,
    /// Operations that wait.
    pub pending: u64,
    /// Operations that run.
    pub running: u64,
    /// When the oldest operation that waits was created.
    pub oldest_pending: Option<Timestamp>,
}

/// The unfinished operations of one worker type.
#[derive(Debug)]
pub struct UnfinishedWork {
    /// The worker type.
    pub worker_type: WorkerType,
    /// The oldest one that has not ended, and when it was created.
    pub oldest: Option<(OperationId, Timestamp)>,
    /// The running one that has reported nothing new for the longest time, and that time.
    pub quietest: Option<(OperationId, Duration)>,
}

impl UnfinishedWork {
    /// Age of the oldest one in seconds; 0 when there is none.
    pub fn oldest_age(&self, now: Timestamp) -> f64 {
        let created = self.oldest.as_ref().map(|(_, created)| *created);
        created.map_or(0.0, |created| now.seconds_since(created))
    }
}

/// All retained operations.
#[derive(Debug, Default)]
pub struct Model {
    /// Oldest first; `None` where an operation was forgotten. The first one is never `None`.
    ///
    /// Records are shared: a reader takes one away without copying it and without holding the lock,
    /// and a change while a reader holds one copies that one.
    records: VecDeque<Option<Arc<Record>>>,
    /// How many of them were forgotten.
    gaps: usize,
    /// When operations ended, and their numbers, in the order of the stream.
    ends: VecDeque<(Timestamp, u32)>,
    /// Number of the oldest record.
    base: u32,
    numbers: HashMap<OperationId, u32>,
    queues: Vec<Arc<QueueInfo>>,
    queue_numbers: HashMap<WorkerType, HashMap<Origin, u32>>,
    type_numbers: HashMap<WorkerType, u32>,
    /// Operations that were started a second time, directly on a worker.
    started_direct: HashSet<OperationId>,
    /// One shared copy of each worker id.
    workers: HashSet<WorkerId>,
    /// One shared copy of each name of a token, up to [`MAX_SHARED_TOKENS`].
    tokens: HashSet<TokenName>,
    index: Index,
    /// The newest changes.
    pub recent: RecentChanges,
    /// What happened in the last minutes, by the number of the worker type.
    minutes: Vec<RecentMinutes>,
    /// When the stream was created, in nanoseconds since 1970.
    stream: i64,
    /// How often all operations were numbered again.
    numbering: u64,
    /// What is in the archive; `None` without one.
    archiving: Option<Archiving>,
}

impl Model {
    /// Applies the start request at `sequence`, which was found on the subject of `origin`.
    ///
    /// # Errors
    /// [`Skip::Exists`] when the id is taken.
    pub fn start(
        &mut self,
        sequence: u64,
        origin: Origin,
        request: StartRequest,
    ) -> Result<Applied, Skip> {
        if self.numbers.contains_key(&request.operation_id) {
            self.note_other_start(sequence, request.operation_id.as_str());
            if let Some(taken) = self.take_copy(sequence, &origin, &request) {
                return Ok(taken);
            }
            self.note_direct(sequence, &origin, request);
            return Err(Skip::Exists);
        }

        if u32::try_from(self.records.len())
            .ok()
            .and_then(|len| self.base.checked_add(len))
            .is_none()
        {
            self.renumber();
        }

        let queue = self.queue_info(&request.operation_type, origin);
        let request = self.sharing_token(request);
        let number = self.base + self.records.len() as u32;
        let record = Record::new(request, sequence, queue);
        self.numbers.insert(record.id.clone(), number);
        self.index.insert(number, record.place());

        let applied = applied(&record, Transition::Created);
        self.records.push_back(Some(Arc::new(record)));
        Ok(applied)
    }

    /// The request with the shared copy of its token's name.
    fn sharing_token(&mut self, mut request: StartRequest) -> StartRequest {
        if let Some(name) = &mut request.requested_by {
            if let Some(shared) = self.tokens.get(name) {
                *name = shared.clone();
            } else if self.tokens.len() < MAX_SHARED_TOKENS {
                self.tokens.insert(name.clone());
            }
        }
        request
    }

    /// Notes that there is another start request with this id, of whatever type: it must not outlive
    /// the first one.
    fn note_other_start(&mut self, sequence: u64, id: &str) {
        let position = self
            .numbers
            .get(id)
            .and_then(|number| number.checked_sub(self.base));
        let record = position.and_then(|position| self.records.get_mut(position as usize));
        if let Some(Some(record)) = record
            && record.other_starts().len() < MAX_OTHER_STARTS
        {
            let rare = Arc::make_mut(record).rare_mut();
            rare.other_starts.push(sequence);
        }
    }

    /// Notes a second start of an operation if it was made directly on a worker: the attempts that
    /// belong to it are not in the queue.
    fn note_direct(&mut self, sequence: u64, origin: &Origin, request: StartRequest) {
        let StartRequest {
            operation_id,
            operation_type,
            ..
        } = request;
        if origin.is_direct()
            && let Ok((_, record)) = self.find_mut(operation_type.as_str(), operation_id.as_str())
        {
            Arc::make_mut(record).rare_mut().direct_start = Some(sequence);
            self.started_direct.insert(operation_id);
        }
    }

    /// Applies the event at `sequence`.
    ///
    /// # Errors
    /// [`Skip`] when it changes nothing.
    pub fn event(
        &mut self,
        sequence: u64,
        worker_type: &str,
        event: Event,
    ) -> Result<Applied, Skip> {
        let (number, position) = self.find(worker_type, event.operation_id.as_str())?;
        let record = self.records.get_mut(position).and_then(Option::as_mut);
        let record = record.ok_or(Skip::Unknown)?;
        let before = record.place();

        let known = event.worker_id.as_ref().map(|id| self.workers.get(id));
        let worker = match known {
            Some(Some(shared)) => Some(shared.clone()),
            _ => event.worker_id.clone(),
        };
        // Kept only with an event that is applied: others may make up as many ids as they like.
        let new = worker.clone().filter(|_| matches!(known, Some(None)));

        Arc::make_mut(record)
            .apply(sequence, event, worker)
            .map_err(Skip::Rejected)?;
        self.workers.extend(new);

        let applied = applied(record, Transition::of(before.status, record));
        if let Some(ended_at) = record.completed_at {
            self.ends.push_back((ended_at, number));
        }
        self.index.shift(number, before, applied.status);
        if applied.status.is_terminal()
            && let Some(archiving) = &mut self.archiving
        {
            archiving.ended(number);
        }
        Ok(applied)
    }

    /// Applies a cancel intent.
    ///
    /// # Errors
    /// [`Skip`] when it changes nothing.
    pub fn cancel(&mut self, worker_type: &str, intent: &CancelIntent) -> Result<Applied, Skip> {
        let (number, record) = self.find_mut(worker_type, intent.operation_id.as_str())?;
        if !Arc::make_mut(record).intend_cancel(intent) {
            return Err(Skip::Rejected(Rejected::Duplicate));
        }
        let applied = applied(record, Transition::Other);
        self.index.cancelling(number);
        Ok(applied)
    }

    /// Applies a progress report; returns whether it changed the operation.
    ///
    /// # Errors
    /// [`Skip`] when the operation is not known, or is of another worker type.
    pub fn apply_progress(
        &mut self,
        worker_type: &str,
        id: &OperationId,
        report: ProgressReport<'_>,
    ) -> Result<bool, Skip> {
        let (_, record) = self.find_mut(worker_type, id.as_str())?;
        Ok(fold::apply_progress(record, report))
    }

    /// Forgets operations whose start request has left the stream, and returns them: a limit dropped
    /// them, or somebody removed them.
    pub fn forget_before(&mut self, first_sequence: u64) -> Vec<Arc<Record>> {
        let mut forgotten = Vec::new();
        while let Some(Some(record)) = self.records.front()
            && record.start_sequence < first_sequence
        {
            forgotten.extend(self.forget(self.base));
        }
        self.tidy();
        forgotten
    }

    /// Forgets operations that ended before `time`, and returns them. At most `most`.
    pub fn forget_ended(&mut self, time: Timestamp, most: usize) -> Vec<Arc<Record>> {
        let mut forgotten = Vec::new();
        while let Some((ended_at, number)) = self.ends.front().copied()
            && ended_at < time
            && forgotten.len() < most
        {
            self.ends.pop_front();
            forgotten.extend(self.forget(number));
        }
        self.tidy();
        forgotten
    }

    /// When the oldest operation was created.
    pub fn oldest_created(&self) -> Option<Timestamp> {
        let oldest = self.records.front()?.as_ref();
        oldest.map(|record| record.created_at)
    }

    /// Forgets one operation; `None` when it was forgotten before.
    fn forget(&mut self, number: u32) -> Option<Arc<Record>> {
        let position = number.checked_sub(self.base)? as usize;
        let record = self.records.get_mut(position)?.take()?;
        if let Some(archiving) = &mut self.archiving {
            archiving.forget(self.stream, number, &record);
        }
        self.index.remove(number, record.place());
        self.numbers.remove(record.id.as_str());
        self.started_direct.remove(record.id.as_str());
        self.gaps += 1;
        while let Some(None) = self.records.front() {
            self.records.pop_front();
            self.base += 1;
            self.gaps -= 1;
        }
        Some(record)
    }

    /// Frees what forgotten operations have left.
    fn tidy(&mut self) {
        if self.gaps > MAX_IDLE_GAPS + 3 * self.len() {
            self.renumber();
        }
        if self.workers.len() > MAX_IDLE_WORKERS + 2 * self.len() {
            self.forget_workers();
        }
    }

    /// Forgets worker ids that no operation names any more.
    fn forget_workers(&mut self) {
        let records = self.records.iter().flatten();
        let attempts = records.flat_map(|record| &record.attempts);
        self.workers = attempts.map(|attempt| attempt.worker_id.clone()).collect();
    }

    /// One operation.
    pub fn get(&self, id: &str) -> Option<View> {
        self.numbers.get(id).and_then(|number| self.view(*number))
    }

    /// How many operations match, and one page of them, newest first, with its size in bytes. `None`
    /// matches all types or statuses. A page ends after the operation that fills `bytes`.
    pub fn list(
        &self,
        types: Option<&[&str]>,
        status: Option<Status>,
        offset: u64,
        limit: usize,
        bytes: usize,
    ) -> (u64, Vec<View>, usize) {
        let numbers = types.map(|types| self.numbers_of(types));
        let (total, page) = self.index.page(numbers.as_deref(), status, offset, limit);
        let (mut views, mut taken) = (Vec::with_capacity(page.len()), 0);
        for number in page {
            if taken >= bytes {
                break;
            }
            if let Some(view) = self.view(number) {
                taken += view.record.size();
                views.push(view);
            }
        }
        (total, views, taken)
    }

    /// The numbers of those types that ever had an operation, each once.
    fn numbers_of(&self, types: &[&str]) -> Vec<u32> {
        let mut numbers: Vec<u32> = types
            .iter()
            .filter_map(|name| self.type_numbers.get(*name).copied())
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }

    /// Counts the change in the minute of `at`.
    pub fn count_minute(&mut self, applied: &Applied, at: Timestamp, now: Timestamp) {
        let number = applied.queue.type_number as usize;
        if self.minutes.len() <= number {
            self.minutes.resize_with(number + 1, RecentMinutes::default);
        }
        self.minutes[number].count(applied.status, at, now);
    }

    /// What happened in each of the last 60 minutes to operations of these types; `None` for all.
    pub fn minutes(&self, types: Option<&[&str]>, now: Timestamp) -> Vec<MinuteStats> {
        match types {
            None => RecentMinutes::together(self.minutes.iter(), now),
            Some(types) => {
                let numbers = self.numbers_of(types);
                let shown = numbers.iter().filter_map(|n| self.minutes.get(*n as usize));
                RecentMinutes::together(shown, now)
            }
        }
    }

    /// Every queue that ever had an operation.
    pub fn queues(&self) -> Vec<QueueState> {
        let state = |queue: &Arc<QueueInfo>| {
            let (pending, running, oldest) = self.index.queue(queue.number);
            let oldest_pending = oldest
                .and_then(|number| self.record(number))
                .map(|record| record.created_at);
            QueueState {
                info: Arc::clone(queue),
                pending,
                running,
                oldest_pending,
            }
        };
        self.queues.iter().map(state).collect()
    }

    /// How many operations of a queue have not ended, and the sequence of the oldest one's start
    /// request.
    pub fn open(&self, worker_type: &WorkerType, origin: &Origin) -> (u64, Option<u64>) {
        let numbers = self.queue_numbers.get(worker_type);
        let Some(queue) = numbers.and_then(|numbers| numbers.get(origin)) else {
            return (0, None);
        };
        let (open, oldest) = self.index.open(*queue);
        let oldest = oldest.and_then(|number| self.record(number));
        (open, oldest.map(|record| record.start_sequence))
    }

    /// The unfinished operations of each worker type that ever had an operation. Looks at each
    /// running one.
    pub fn unfinished(&self, now: Timestamp, instant: Instant) -> Vec<UnfinishedWork> {
        let of_type = |(worker_type, number): (&WorkerType, &u32)| {
            let oldest = self.index.oldest_unfinished(*number);
            let oldest = oldest.and_then(|number| self.record(number));

            let running = self.index.running(*number);
            let quiet = running
                .filter_map(|number| self.record(number))
                .map(|record| (record.quiet_for(now, instant), record));
            let quietest = quiet.max_by_key(|(age, _)| *age);

            UnfinishedWork {
                worker_type: worker_type.clone(),
                oldest: oldest.map(|record| (record.id.clone(), record.created_at)),
                quietest: quietest.map(|(age, record)| (record.id.clone(), age)),
            }
        };
        self.type_numbers.iter().map(of_type).collect()
    }

    /// How many operations there are of each type in each status.
    pub fn counts(&self) -> Vec<(WorkerType, [u64; Status::ALL.len()])> {
        let count = |number: u32| {
            Status::ALL.map(|status| self.index.page(Some(&[number]), Some(status), 0, 0).0)
        };
        self.type_numbers
            .iter()
            .map(|(name, number)| (name.clone(), count(*number)))
            .collect()
    }

    /// How many operations ended before `time`.
    pub fn ended_before(&self, time: Timestamp) -> u64 {
        let records = self.records.iter().flatten();
        let ends = records.filter_map(|record| record.completed_at);
        ends.filter(|end| *end < time).count() as u64
    }

    /// Operations with a cancel intent that have not ended.
    pub fn cancelling(&self) -> Vec<Arc<Record>> {
        self.index
            .all_cancelling()
            .filter_map(|number| self.record(number))
            .collect()
    }

    /// Operations that have not ended and that no queue will deliver again.
    pub fn open_direct(&self) -> Vec<Arc<Record>> {
        let queues = self.queues.iter().filter(|queue| queue.origin.is_direct());
        let in_queues = queues
            .flat_map(|queue| self.index.open_in_queue(queue.number))
            .filter_map(|number| self.record(number));

        let started_again = self
            .started_direct
            .iter()
            .filter_map(|id| self.record(*self.numbers.get(id)?));
        let running = started_again.filter(|record| record.runs_direct());
        in_queues.chain(running).collect()
    }

    /// How many operations there are.
    pub fn len(&self) -> usize {
        self.records.len() - self.gaps
    }

    fn record(&self, number: u32) -> Option<Arc<Record>> {
        self.records
            .get(number.checked_sub(self.base)? as usize)?
            .clone()
    }

    fn view(&self, number: u32) -> Option<View> {
        let record = self.record(number)?;
        let queue_position = self.index.queue_position(record.queue.number, number);
        Some(View {
            record,
            queue_position,
            archived: false,
        })
    }

    fn find_mut(&mut self, worker_type: &str, id: &str) -> Result<(u32, &mut Arc<Record>), Skip> {
        let (number, position) = self.find(worker_type, id)?;
        let record = self.records.get_mut(position).and_then(Option::as_mut);
        Ok((number, record.ok_or(Skip::Unknown)?))
    }

    /// The number of a record, and where it is.
    fn find(&self, worker_type: &str, id: &str) -> Result<(u32, usize), Skip> {
        let number = *self.numbers.get(id).ok_or(Skip::Unknown)?;
        let position = number.checked_sub(self.base).ok_or(Skip::Unknown)? as usize;
        let record = self.records.get(position).and_then(Option::as_ref);
        let record = record.ok_or(Skip::Unknown)?;
        if record.queue.worker_type.as_str() != worker_type {
            return Err(Skip::OtherType);
        }
        Ok((number, position))
    }

    fn queue_info(&mut self, worker_type: &WorkerType, origin: Origin) -> Arc<QueueInfo> {
        let known = self
            .queue_numbers
            .get(worker_type)
            .and_then(|origins| origins.get(&origin));
        if let Some(queue) = known.and_then(|number| self.queues.get(*number as usize)) {
            return Arc::clone(queue);
        }

        let next_type = self.type_numbers.len() as u32;
        let type_number = *self
            .type_numbers
            .entry(worker_type.clone())
            .or_insert(next_type);
        let number = self.queues.len() as u32;
        self.queue_numbers
            .entry(worker_type.clone())
            .or_default()
            .insert(origin.clone(), number);
        let queue = Arc::new(QueueInfo {
            number,
            type_number,
            worker_type: worker_type.clone(),
            origin,
        });
        self.queues.push(Arc::clone(&queue));
        queue
    }

    /// Numbers all operations again from 0, without gaps. Needed once in 4 billion operations, and
    /// when an old operation is still there after most of the later ones were forgotten.
    fn renumber(&mut self) {
        if let Some(archiving) = &mut self.archiving {
            archiving.renumber(self.base, &self.records);
        }
        self.numbering += 1;
        self.base = 0;
        self.gaps = 0;
        self.index = Index::default();
        self.records.retain(Option::is_some);
        self.records.shrink_to_fit();
        let mut ends = Vec::with_capacity(self.ends.len());
        for (number, record) in (0u32..).zip(self.records.iter().flatten()) {
            ends.extend(record.completed_at.map(|ended_at| (ended_at, number)));
            self.numbers.insert(record.id.clone(), number);
            self.index.insert(number, record.place());
            if record.cancel_requested_at().is_some() && !record.state.status.is_terminal() {
                self.index.cancelling(number);
            }
        }
        ends.sort_by_key(|(ended_at, _)| *ended_at);
        self.ends = ends.into();
    }
}

fn applied(record: &Record, transition: Transition) -> Applied {
    Applied {
        operation_id: record.id.clone(),
        queue: Arc::clone(&record.queue),
        status: record.state.status,
        transition,
    }
}

#[cfg(test)]
mod tests;

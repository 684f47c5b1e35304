//! The read model: all operations, numbered in the order of creation, and their indexes. It does no
//! I/O and takes no locks.
//!
//! Longer than 600 lines: records, their numbers and their indexes change together.

mod ended;
mod keys;
mod put_back;
mod times;

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ktrdr_protocol::cancel::CancelIntent;
use ktrdr_protocol::event::Event;
use ktrdr_protocol::id::{OperationId, WorkerId, WorkerType};
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::queue_name::QueueName;
use ktrdr_protocol::rest::query::ListOrder;
use ktrdr_protocol::rest::stats::MinuteStats;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::state::{Rejected, Status};
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::token_name::TokenName;
use roaring::RoaringBitmap;
use tokio::time::Instant;

use self::archiving::Archiving;
pub use self::keys::{KeyFigures, UnknownHolder};
use self::times::{Line, WaitingForTimes};
pub use self::times::{Passed, Place};
use super::counters::Transition;
use super::filter::{Filter, Page, Position, Wanted};
use super::fold::{self, ProgressReport};
use super::index::{Index, Selection, page_of};
use super::minutes::RecentMinutes;
use super::permits::Keys;
use super::recent::RecentChanges;
use super::record::{CountingRequest, QueueInfo, Record, Times, View};
use crate::summaries::Summaries;

pub mod archiving;

/// Waiting operations of a queue that are looked at for the one that waits the longest: those that were
/// delayed, and one more.
const MAX_LOOKED_AT: usize = 1_000;

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
    /// The operation that it repeats, when this is its start.
    pub retried: Option<OperationId>,
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
    /// Those among them that wait for a permit.
    pub waiting_for_permit: u64,
    /// Operations that run.
    pub running: u64,
    /// Since when the oldest operation that waits could have started. In a queue of delayed ones: when the
    /// oldest was created.
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
    /// The operations that repeat another one, oldest first, by that one's id.
    retries: HashMap<OperationId, Vec<u32>>,
    /// Operations that were started a second time, directly on a worker.
    started_direct: HashSet<OperationId>,
    /// One shared copy of each worker id.
    workers: HashSet<WorkerId>,
    /// One shared copy of each name of a token, up to [`MAX_SHARED_TOKENS`].
    tokens: HashSet<TokenName>,
    index: Index,
    /// The operations that wait for a time.
    waiting: WaitingForTimes,
    /// Who holds which key.
    pub(super) keys: Keys,
    /// Operations whose log names a copy of the start request that is not in the stream yet.
    missing: RoaringBitmap,
    lines: Vec<Line>,
    /// How operations are summarised.
    pub summaries: Arc<Summaries>,
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
        self.enter(number, &record);

        let applied = Applied {
            retried: record.retry_of().cloned(),
            ..applied(&record, Transition::Created)
        };
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
        let moved_into = self.moved_into(position, &event)?;
        let record = self.records.get_mut(position).and_then(Option::as_mut);
        let record = record.ok_or(Skip::Unknown)?;
        let before = record.place();
        let times_before = record.times();
        let was_queued = record.is_queued();
        let worker_before = record.worker_id().cloned();

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
        if let Some(queue) = moved_into {
            Arc::make_mut(record).queue = queue;
            self.index.transfer(number, before, record.place());
        }
        self.waiting.change(number, times_before, record.times());
        self.keys.note_operation(number, record, was_queued);
        let is_missing =
            record.request() == CountingRequest::Missing && !record.state.status.is_terminal();

        let applied = applied(record, Transition::of(before.status, record));
        if let Some(ended_at) = record.completed_at {
            self.ends.push_back((ended_at, number));
        }
        self.index.shift(number, before, applied.status);
        (self.index).attribute(number, worker_before.as_ref(), record.worker_id());
        if let Some(failure) = record.failure() {
            self.index.failed(number, &failure.code);
        }
        if applied.status.is_terminal()
            && let Some(archiving) = &mut self.archiving
        {
            archiving.ended(number);
        }
        self.note_missing(number, is_missing);
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
        self.keys.forget_before(first_sequence);
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
        self.waiting
            .change(number, record.times(), Times::default());
        self.keys.forget(number, &record);
        self.note_missing(number, false);
        self.index.attribute(number, record.worker_id(), None);
        if let Some(schedule) = record.schedule_id() {
            self.index.forget_schedule(number, schedule);
        }
        if let Some(failure) = record.failure() {
            self.index.forget_failure(number, &failure.code);
        }
        if let Some(labels) = record.labels() {
            self.index.forget_labels(number, labels);
        }
        if let Some(retried) = record.retry_of()
            && let Some(retries) = self.retries.get_mut(retried.as_str())
        {
            retries.retain(|other| *other != number);
            if retries.is_empty() {
                self.retries.remove(retried.as_str());
            }
        }
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

    /// One page of the operations that match, newest first. It takes no notice of a text that is
    /// looked for: see [`super::search`].
    pub fn list(&self, wanted: &Wanted) -> Page {
        self.page(&self.matching(&wanted.filter), wanted)
    }

    /// The numbers of the operations that match all of the filter but its text.
    pub(super) fn matching(&self, filter: &Filter) -> Cow<'_, RoaringBitmap> {
        let types = filter.types.as_ref().map(|types| self.numbers_of(types));
        let begin = filter.created_after.map(|time| self.number_at(time));
        let end = filter.created_before.map(|time| self.number_at(time));
        let numbers =
            (begin.is_some() || end.is_some()).then(|| begin.unwrap_or(0)..end.unwrap_or(u32::MAX));
        self.index.matching(Selection {
            types: types.as_deref(),
            statuses: &filter.statuses,
            worker: filter.worker.as_deref(),
            schedule: filter.schedule.as_deref(),
            codes: &filter.error_codes,
            ended: filter.ended_after.map(|time| self.ended_from(time)),
            labels: &filter.labels,
            numbers,
        })
    }

    /// One page of these operations.
    pub(super) fn page(&self, matching: &RoaringBitmap, wanted: &Wanted) -> Page {
        let mut page = Page {
            total: matching.len(),
            ..Page::default()
        };
        for number in self.numbers_wanted(matching, wanted) {
            let Some(view) = self.view(number) else {
                continue;
            };
            if page.views.len() >= wanted.limit || page.bytes >= wanted.bytes {
                page.next = page.views.last().map(|last| self.position(last));
                break;
            }
            page.bytes += view.size(wanted.extent);
            page.views.push(view);
        }
        page
    }

    /// Where an operation of this stream is among all.
    fn position(&self, view: &View) -> Position {
        Position {
            stream: self.stream,
            sequence: view.record.start_sequence,
        }
    }

    /// The numbers from the beginning of the page on.
    fn numbers_wanted<'a>(
        &self,
        matching: &'a RoaringBitmap,
        wanted: &Wanted,
    ) -> Box<dyn Iterator<Item = u32> + 'a> {
        let order = wanted.order;
        let Some(after) = wanted.after else {
            return page_of(matching, order, wanted.offset);
        };
        let here = |sequence| Position {
            stream: self.stream,
            sequence,
        };
        match order {
            // Its stream is gone, and all that is here is newer.
            ListOrder::Newest if after < here(0) => Box::new(std::iter::empty()),
            ListOrder::Oldest if after < here(0) => page_of(matching, order, 0),
            ListOrder::Newest if after > here(u64::MAX) => page_of(matching, order, 0),
            ListOrder::Oldest if after > here(u64::MAX) => Box::new(std::iter::empty()),
            ListOrder::Newest => {
                let end = self.number_from(after.sequence);
                Box::new(matching.range(..end).rev())
            }
            ListOrder::Oldest => {
                let begin = self.number_from(after.sequence.saturating_add(1));
                Box::new(matching.range(begin..))
            }
        }
    }

    /// How many operations have this status.
    pub fn count(&self, status: Status) -> u64 {
        self.index.count(None, Some(status))
    }

    /// Whether there ever was an operation of this type.
    pub fn knows_type(&self, name: &str) -> bool {
        self.type_numbers.contains_key(name)
    }

    /// The numbers of those types that ever had an operation, each once.
    fn numbers_of(&self, types: &[impl AsRef<str>]) -> Vec<u32> {
        let mut numbers: Vec<u32> = types
            .iter()
            .filter_map(|name| self.type_numbers.get(name.as_ref()).copied())
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
            let (pending, running) = self.index.queue(queue.number);
            let oldest_pending = self.oldest_pending(queue);
            QueueState {
                info: Arc::clone(queue),
                pending,
                waiting_for_permit: self.index.pending_among(queue.number, self.keys.waiting()),
                running,
                oldest_pending,
            }
        };
        self.queues.iter().map(state).collect()
    }

    fn oldest_pending(&self, queue: &QueueInfo) -> Option<Timestamp> {
        let pending = self.index.all_pending(queue.number);
        let mut records = pending.filter_map(|number| self.record_ref(number));
        if queue.is_delayed() {
            return records.next().map(|record| record.created_at);
        }

        let mut oldest: Option<Timestamp> = None;
        for record in records.take(MAX_LOOKED_AT) {
            let since = record.waits_since();
            oldest = Some(oldest.map_or(since, |known| known.min(since)));
            // Those that follow were created later. Only one that was delayed waits for less time than them.
            if record.due().is_none() {
                break;
            }
        }
        oldest
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
        let count =
            |number: u32| Status::ALL.map(|status| self.index.count(Some(number), Some(status)));
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
        self.record_ref(number).cloned()
    }

    fn record_ref(&self, number: u32) -> Option<&Arc<Record>> {
        let position = number.checked_sub(self.base)? as usize;
        self.records.get(position)?.as_ref()
    }

    fn view(&self, number: u32) -> Option<View> {
        let record = self.record(number)?;
        let queue_position = self.queue_position(&record, number);
        let waits_for_permit = self.waits_for_permit(&record, number);
        let retried_as = self.retried_as(&record);
        Some(View {
            record,
            queue_position,
            waits_for_permit,
            retried_as,
            archived: false,
            turn: None,
        })
    }

    /// The newest operation that repeats this one, which may come from the archive.
    pub fn retried_as(&self, record: &Record) -> Option<OperationId> {
        if !matches!(record.state.status, Status::Failed | Status::Cancelled) {
            return None;
        }
        let newest = self.retries.get(record.id.as_str())?.last()?;
        Some(self.record(*newest)?.id.clone())
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
        let name = QueueName::parse(origin.as_str());
        let queue = Arc::new(QueueInfo {
            number,
            type_number,
            summary: self.summaries.of(worker_type),
            worker_type: worker_type.clone(),
            line: name.map_or(u32::MAX, |name| self.join_line(number, type_number, name)),
            name,
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
        self.waiting = WaitingForTimes::default();
        self.keys.forget_numbers();
        self.missing.clear();
        self.retries.clear();
        let mut records = std::mem::take(&mut self.records);
        records.retain(Option::is_some);
        records.shrink_to_fit();
        let mut ends = Vec::with_capacity(self.ends.len());
        for (number, record) in (0u32..).zip(records.iter().flatten()) {
            ends.extend(record.completed_at.map(|ended_at| (ended_at, number)));
            self.enter(number, record);
        }
        self.records = records;
        ends.sort_by_key(|(ended_at, _)| *ended_at);
        self.ends = ends.into();
    }

    /// Enters a record into every index, under a number that is free.
    fn enter(&mut self, number: u32, record: &Record) {
        self.numbers.insert(record.id.clone(), number);
        self.index.insert(number, record.place());
        self.index.attribute(number, None, record.worker_id());
        if let Some(schedule) = record.schedule_id() {
            self.index.scheduled(number, schedule);
        }
        if let Some(labels) = record.labels() {
            self.index.label(number, labels);
        }
        if let Some(failure) = record.failure() {
            self.index.failed(number, &failure.code);
        }
        if record.cancel_requested_at().is_some() && !record.state.status.is_terminal() {
            self.index.cancelling(number);
        }

        self.waiting
            .change(number, Times::default(), record.times());
        self.keys.note_operation(number, record, false);
        if record.request() == CountingRequest::Missing {
            self.missing.insert(number);
        }
        if let Some(retried) = record.retry_of() {
            self.retries
                .entry(retried.clone())
                .or_default()
                .push(number);
        }
    }
}

fn applied(record: &Record, transition: Transition) -> Applied {
    Applied {
        operation_id: record.id.clone(),
        queue: Arc::clone(&record.queue),
        status: record.state.status,
        retried: None,
        transition,
    }
}

#[cfg(test)]
mod tests;

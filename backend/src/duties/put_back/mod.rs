//! Puts operations back that no queue holds any more.
//!
//! The problem: an operation goes on because its queue delivers its start request again. When the
//! stream has lost its tail, or somebody has purged a consumer, the queue takes the request for done,
//! while the log says that the operation is open. Nobody would ever run it.
//!
//! How it is solved: rounds that compare the open operations with what their queue holds ([`held`]).
//! One that no queue holds and no worker reports for two leases is put back: the event `released`
//! with the name of a new copy, then the copy ([`crate::dispatch`]). When no attempt is left, it ends
//! as `worker_lost`. A log that names a copy which is not in the stream is of a backend that died in
//! between, and gets that copy.
//!
//! A round may be wrong without harm. Its event must follow the last one that it knows, so of several
//! backends one succeeds, and what has moved on is left alone. A queue that holds the request after
//! all delivers it to a worker that drops it, because its log names another copy. What waits uses up
//! no attempt.
//!
//! Rejected: to publish the request again without an event. Two requests would be in the queue, and
//! no log would say which one counts.

mod held;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::Info;
use ktrdr_bus::oplog::AppendError;
use ktrdr_bus::queues;
use ktrdr_bus::telemetry::{Repeated, chain};
use ktrdr_protocol::claim::worker_lost_message;
use ktrdr_protocol::event::Failure;
use ktrdr_protocol::execution::ExecutionDefaults;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::state::Status;
use tokio::time::Instant;

use self::held::{Doubtful, Held};
use crate::dispatch::{MoveError, NoOriginal};
use crate::projection::model::QueueState;
use crate::projection::record::{CountingRequest, Record};
use crate::registry::Presence;
use crate::state::AppState;

/// Leases for which nothing must have happened to an operation that no queue holds.
const PATIENCE_IN_LEASES: u32 = 2;

/// Each further time, an operation is put back after twice the time, up to 2 to the power of this.
const MOST_DOUBLINGS: u32 = 6;

/// Operations that are put back in one round, at most. The rest follows in the next one.
const MOST_AT_A_TIME: usize = 500;

/// Shortest and longest pause between two rounds.
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// Heartbeat intervals that this backend must have listened for before it calls a worker lost.
const LISTENED_INTERVALS: u32 = 3;

/// Works until the task is dropped.
pub async fn run(state: &AppState) {
    let mut watch = Watch::new(state);
    loop {
        let pause = state.settings.get().lease / 4;
        tokio::time::sleep(pause.clamp(MIN_PAUSE, MAX_PAUSE)).await;

        let can_tell = state.connection.is_up()
            && state.is_loaded()
            && state.projection.reader.trouble().is_none();
        if can_tell {
            watch.round().await;
        } else {
            watch.doubts.clear();
        }
    }
}

/// What one round has done.
#[derive(Debug, Default)]
struct Done {
    put_back: usize,
    failed: usize,
    first: Option<OperationId>,
}

/// The operations that seem to be held by no queue.
struct Watch<'a> {
    state: &'a AppState,
    doubts: HashMap<OperationId, Doubt>,
    /// The connection and stream that the doubts are about.
    epoch: (u64, u64),
    failures: Repeated,
}

/// Since when an operation seems to be held by no queue, and in which state it is since then.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    last_sequence: u64,
    since: Instant,
    /// How often a copy was published that did not arrive.
    tries: u32,
    /// The round that has seen it last.
    round: Instant,
}

impl<'a> Watch<'a> {
    fn new(state: &'a AppState) -> Self {
        Self {
            state,
            doubts: HashMap::new(),
            epoch: state.queues.epoch(),
            failures: Repeated::new(),
        }
    }

    /// Looks at every queue with operations that have not ended.
    async fn round(&mut self) {
        let (state, now) = (self.state, Instant::now());
        let epoch = state.queues.epoch();
        if std::mem::replace(&mut self.epoch, epoch) != epoch {
            self.doubts.clear();
        }

        let mut done = Done::default();
        for queue in state.projection.queues() {
            if queue.pending + queue.running > 0
                && !queue.info.is_delayed()
                && let Origin::Queued(name) = &queue.info.origin
            {
                let consumer = state.names.consumer(&queue.info.worker_type, name);
                let (jetstream, names) = (&state.connection.jetstream, &state.names);
                // One that is missing is made by another duty.
                if let Ok(info) = queues::info(jetstream, names, &consumer).await {
                    self.look_at(&queue, &info, now, &mut done).await;
                }
            }
        }
        self.doubts.retain(|_, doubt| doubt.round == now);

        if let Some(first) = &done.first {
            let Done {
                put_back, failed, ..
            } = done;
            tracing::warn!(
                put_back,
                failed,
                %first,
                "no queue held operations that have not ended: put back what has attempts left, and ended the others as failed"
            );
        }
    }

    /// Looks at the operations of one queue.
    async fn look_at(&mut self, queue: &QueueState, info: &Info, now: Instant, done: &mut Done) {
        let state = self.state;
        let held = Held::of(info);
        let open = state.projection.open_delivered(&queue.info, held.delivered);
        let Doubtful { gone, maybe, lost } = held.doubtful(open, |record| self.may_run(record));

        let lease = info.config.ack_wait;
        let (mut gone_long, mut maybe_long) = (Vec::new(), Vec::new());
        for record in gone {
            gone_long.extend(self.note(record, lease, now));
        }
        for record in maybe {
            maybe_long.extend(self.note(record, lease, now));
        }

        let lost = gone_long
            .into_iter()
            .chain(maybe_long.into_iter().take(lost));
        for record in lost.take(MOST_AT_A_TIME) {
            self.settle(&record, done).await;
        }
    }

    /// Whether a worker may be running the operation, or another duty looks after it.
    fn may_run(&self, record: &Record) -> bool {
        let (state, now) = (self.state, Instant::now());
        if record.cancel_requested_at().is_some() || record.runs_direct() {
            return true;
        }
        let Some(worker) = record.worker_id() else {
            return false;
        };

        let needed = state.config.protocol.heartbeat_interval * LISTENED_INTERVALS;
        let presence = state.registry.presence(
            &record.queue.worker_type,
            worker,
            &record.id,
            record.state.attempt,
            now,
        );
        state.registry.listening_for(now) <= needed
            || matches!(
                presence,
                Presence::Alive { runs_it: true } | Presence::Unknown
            )
    }

    /// Notes a doubt; returns the operation if the doubt has lasted long enough.
    fn note(&mut self, record: Arc<Record>, lease: Duration, now: Instant) -> Option<Arc<Record>> {
        let last_sequence = record.state.last_sequence;
        let new = Doubt {
            last_sequence,
            since: now,
            tries: 0,
            round: now,
        };
        let doubt = self.doubts.entry(record.id.clone()).or_insert(new);
        if doubt.last_sequence != last_sequence {
            *doubt = new;
        }
        doubt.round = now;

        let times = record.put_back().map_or(0, |put_back| put_back.count);
        let patience = match record.request() {
            // Its copy is published right after the event.
            CountingRequest::Missing => lease,
            CountingRequest::Stored(_) => {
                lease * PATIENCE_IN_LEASES * 2_u32.pow(times.min(MOST_DOUBLINGS))
            }
        };
        (now.duration_since(doubt.since) >= patience).then_some(record)
    }

    /// Puts an operation back, or ends it.
    async fn settle(&mut self, record: &Record, done: &mut Done) {
        let settled = match self.attempts_left(record) {
            true => self.put_back(record).await,
            false => self.give_up(record).await,
        };
        let id = &record.id;
        match settled {
            Ok(Settled::PutBack) => done.put_back += 1,
            Ok(Settled::Failed) => done.failed += 1,
            Ok(Settled::Later) => return,
            Err(AppendError::Conflict(_)) => {
                return tracing::debug!(operation_id = %id, "another event came first");
            }
            Err(error) => {
                if let Some(count) = self.failures.note() {
                    tracing::warn!(operation_id = %id, error = chain(&error), count, "an operation that no queue holds could not be put back; trying again");
                }
                return;
            }
        }
        done.first.get_or_insert_with(|| id.clone());
    }

    fn attempts_left(&self, record: &Record) -> bool {
        let worker_type = record.queue.worker_type.as_str();
        let entry = self.state.catalogue.by_type(worker_type);
        let defaults = entry.map_or_else(ExecutionDefaults::default, |entry| {
            entry.published.execution_defaults
        });
        let options = record.rare.as_ref().and_then(|rare| rare.execution.clone());
        let limits = options.unwrap_or_default().limits(&defaults);
        record.state.status == Status::Pending || record.state.attempt < limits.max_attempts
    }

    async fn give_up(&self, record: &Record) -> Result<Settled, AppendError> {
        let message = worker_lost_message(&record.id, record.state.attempt);
        self.state.dispatch.fail_lost(record, message).await?;
        Ok(Settled::Failed)
    }

    async fn put_back(&mut self, record: &Record) -> Result<Settled, AppendError> {
        let (id, dispatch) = (&record.id, &self.state.dispatch);
        // Before the event: a copy that cannot be made must not be named.
        let original = match dispatch.original(record).await {
            Ok(original) => original,
            Err(NoOriginal::Unknown(error)) => {
                tracing::debug!(operation_id = %id, error = chain(&error), "the start request could not be read");
                return Ok(Settled::Later);
            }
            Err(why) => {
                return match dispatch.end_without_original(record, why).await {
                    Ok(_) => Ok(Settled::Failed),
                    Err(MoveError::Append(error)) => Err(error),
                    Err(_) => Ok(Settled::Later),
                };
            }
        };

        let (copy, tries) = match record.put_back() {
            Some(named) if record.request() == CountingRequest::Missing => {
                (named.copy.clone(), self.next_try(id))
            }
            _ => (dispatch.name_copy(record, lost_attempt(record)).await?, 0),
        };
        let origin = &record.queue.origin;
        dispatch
            .store_copy(record, origin, original, &copy, tries)
            .await?;
        Ok(Settled::PutBack)
    }

    /// How often the copy was published that the log names. It has some time to arrive before the
    /// next try.
    fn next_try(&mut self, id: &OperationId) -> u32 {
        let Some(doubt) = self.doubts.get_mut(id) else {
            return 0;
        };
        doubt.since = Instant::now();
        doubt.tries += 1;
        doubt.tries - 1
    }
}

/// What became of an operation that no queue held.
enum Settled {
    PutBack,
    Failed,
    Later,
}

/// What became of the attempt of an operation that is put back.
fn lost_attempt(record: &Record) -> Option<Failure> {
    (record.state.status == Status::Running).then(|| Failure {
        code: "worker_lost".to_owned(),
        message: "its worker was lost, and no queue held its start request".to_owned(),
        permanent: false,
    })
}

//! Starts the operations of schedules.
//!
//! A ring of the NATS server ([`bell`]) or the backend's own look once a second says that slots may be
//! due. Both do the same: read schedule and decisions from the leader of the bucket, decide about the
//! next slot, write the decision behind its revision, and start the operation. A decision that was
//! written and not carried out is carried out first. So it does not matter which backend does it, how
//! often, and where another one died.
//!
//! Time is that of the NATS server. A backend's own clock decides nothing.
//!
//! While there is no schedule, this duty does nothing more than to clear up once.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use futures::StreamExt;
use ktrdr_bus::key_values::KeyError;
use ktrdr_bus::oplog::stream_time;
use ktrdr_bus::telemetry::{Repeated, chain};
use ktrdr_protocol::cancel::{CancelIntent, REPLACED_BY_SLOT};
use ktrdr_protocol::id::{OperationId, ScheduleId, WorkerType};
use ktrdr_protocol::schedule::{LastError, LastRun, Overlap, slot_id};
use ktrdr_protocol::time::Timestamp;
use tokio::time::Instant;

use crate::error::{ApiError, ErrorCode};
use crate::projection::record::View;
use crate::schedules::bell::{self, BellError};
use crate::schedules::cron::{self, Cron};
use crate::schedules::due::{GRACE, next_due};
use crate::schedules::{Known, Schedules};
use crate::starts;
use crate::state::AppState;

/// How often schedules are looked at without a ring.
const TICK: Duration = Duration::from_secs(1);

/// How long after a slot that look finds it: the ring comes first, as a rule.
const LATE: Duration = Duration::from_millis(1_500);

/// How often stream, consumer and messages are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Rings that are taken at a time.
const RINGS: usize = 64;

/// Decisions about one schedule in one go. The rest comes with the next look.
const DECISIONS: usize = 200;

/// Why a schedule cannot be looked after now.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the NATS server does not ring for schedules")]
    Bell(#[from] BellError),
    #[error("a decision cannot be read or written")]
    Key(#[from] KeyError),
    #[error("rings cannot be read")]
    Rings(#[source] async_nats::Error),
    #[error("the operation of a slot cannot be started yet: {0}")]
    Start(String),
    #[error(
        "this backend cannot tell whether the last operation has ended: it has not read the newest events"
    )]
    NotRead,
}

/// Works until the task is dropped.
pub async fn run(state: &AppState) {
    let mut keeper = Keeper {
        state,
        consumer: None,
        looked: None,
        told: HashMap::new(),
        refused: Repeated::new(),
        failures: Repeated::new(),
    };
    let mut is_clear = false;
    loop {
        // Cancel safe: a wake-up that was not received stays stored.
        tokio::select! {
            () = tokio::time::sleep(TICK) => {}
            () = state.schedules.changed.notified() => {}
        }
        while state.schedules.count() > 0 && state.is_loaded() {
            is_clear = false;
            let round = state.connection.while_up(Box::pin(keeper.round())).await;
            if let Some(Err(error)) = round {
                (keeper.consumer, keeper.looked) = (None, None);
                keeper.note_failure(&error);
                tokio::time::sleep(TICK).await;
            }
        }
        let is_left_over = || !state.schedules.left_over().is_empty();
        if state.is_loaded() && (!is_clear || is_left_over()) {
            let clear = Box::pin(keeper.clear_up());
            is_clear = match state.connection.while_up(clear).await {
                Some(Ok(())) => true,
                Some(Err(error)) => {
                    keeper.note_failure(&error);
                    false
                }
                None => false,
            };
        }
    }
}

struct Keeper<'a> {
    state: &'a AppState,
    consumer: Option<PullConsumer>,
    looked: Option<(Instant, u64)>,
    /// The revision of each schedule of which this backend knows that the server was told.
    told: HashMap<ScheduleId, u64>,
    refused: Repeated,
    failures: Repeated,
}

impl Keeper<'_> {
    /// Takes rings for a second, and then looks at all schedules.
    async fn round(&mut self) -> Result<(), Trouble> {
        let epoch = self.state.connection.link.borrow().epoch;
        let is_current = self
            .looked
            .is_some_and(|(when, of)| of == epoch && when.elapsed() < LOOK_EVERY);
        if !is_current || self.has_untold() {
            self.look_at_bell().await?;
            self.looked = Some((Instant::now(), epoch));
        }

        let begun = Instant::now();
        let rings = match self.consumer.clone() {
            Some(consumer) => self.take_rings(&consumer).await,
            None => Ok(()),
        };
        // The server may end a pull early.
        tokio::time::sleep_until(begun + TICK).await;
        if let Some(now) = self.state.projection.clock.now() {
            self.look_at_slots(now).await;
        }
        rings
    }

    /// Removes what is left of schedules when there is none.
    async fn clear_up(&mut self) -> Result<(), Trouble> {
        let (jetstream, names) = (&self.state.connection.jetstream, &self.state.names);
        if bell::exists(jetstream, names).await? {
            for id in bell::all_set(jetstream, names).await? {
                self.remove_stray(&id).await?;
            }
        }
        self.forget_runs().await
    }

    /// Removes decisions about schedules that were deleted.
    async fn forget_runs(&self) -> Result<(), Trouble> {
        for id in self.state.schedules.left_over() {
            self.state.schedules.forget_run(&id).await?;
        }
        Ok(())
    }

    /// One schedule that cannot go on does not hold up the others: the next look tries it again.
    async fn advance(&self, id: &ScheduleId, now: Timestamp) {
        if let Err(error) = advance(self.state, id, now).await {
            self.note_failure(&error);
        }
    }

    fn note_failure(&self, error: &Trouble) {
        if let Some(count) = self.failures.note() {
            tracing::warn!(
                error = chain(error),
                count,
                "the schedules could not be looked after; trying again"
            );
        }
    }

    fn has_untold(&self) -> bool {
        let all = self.state.schedules.all();
        all.iter()
            .any(|(id, known)| !known.schedule.paused && self.told.get(id) != Some(&known.revision))
    }

    async fn take_rings(&self, consumer: &PullConsumer) -> Result<(), Trouble> {
        let state = self.state;
        let rings = consumer.fetch().max_messages(RINGS).expires(TICK);
        let mut rings = rings
            .messages()
            .await
            .map_err(|error| Trouble::Rings(error.into()))?;
        while let Some(ring) = rings.next().await {
            let ring = ring.map_err(Trouble::Rings)?;
            let stored_at = ring.info().map(|info| stream_time(info.published));
            if let (Some(id), Ok(now)) = (state.names.schedule_of_ring(&ring.subject), stored_at) {
                self.advance(&id, now).await;
            }
            let _ = ring.ack().await;
        }
        Ok(())
    }

    /// Finds slots whose ring nobody has heard.
    async fn look_at_slots(&self, now: Timestamp) {
        let late = now.minus(LATE);
        for (id, known) in self.state.schedules.all() {
            let is_due = known.run.starting
                || read_cron(&known).is_some_and(|cron| {
                    next_due(&known.schedule, &cron, &known.run, late).is_some()
                });
            if is_due {
                self.advance(&id, now).await;
            }
        }
    }

    /// Brings back stream, consumer and messages that are missing, and removes those of schedules that
    /// are gone.
    async fn look_at_bell(&mut self) -> Result<(), Trouble> {
        let state = self.state;
        let (jetstream, names) = (&state.connection.jetstream, &state.names);
        let replicas = usize::from(state.settings.get().replicas);
        match bell::ensure(&state.connection, names, replicas).await {
            Ok(consumer) => self.consumer = Some(consumer),
            // The look once a second starts what is due.
            Err(BellError::Unsupported(version)) => {
                if let Some(count) = self.refused.note() {
                    tracing::warn!(
                        version,
                        count,
                        "the NATS server is too old for schedules; their slots are found late"
                    );
                }
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }

        let set = bell::all_set(jetstream, names).await?;
        for (id, known) in state.schedules.all() {
            let Some(cron) = read_cron(&known).filter(|_| !known.schedule.paused) else {
                continue;
            };
            let wanted = (&cron, known.schedule.time_zone.as_str());
            let is_told = set.contains(&id)
                && (self.told.get(&id) == Some(&known.revision)
                    || bell::is_set(jetstream, names, &id, wanted).await?);
            if !is_told {
                match bell::set(jetstream, names, &id, wanted).await {
                    Ok(()) => tracing::debug!(schedule = %id, "told the server about the schedule"),
                    Err(BellError::Refused(why)) => {
                        if let Some(count) = self.refused.note() {
                            tracing::warn!(schedule = %id, why, count, "the server does not take the schedule; its slots are found late");
                        }
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            self.told.insert(id, known.revision);
        }
        for id in set {
            self.remove_stray(&id).await?;
        }
        self.forget_runs().await
    }

    /// Removes the message of a schedule that is paused or was deleted.
    async fn remove_stray(&mut self, id: &ScheduleId) -> Result<(), Trouble> {
        let state = self.state;
        let all = state.schedules.all();
        let is_active = |known: &Known| !known.schedule.paused;
        if all.iter().any(|(of, known)| of == id && is_active(known)) {
            return Ok(());
        }
        // This backend may not have heard of it yet.
        let newest = state.schedules.newest(id).await?;
        if !newest.as_ref().is_some_and(is_active) {
            self.told.remove(id);
            bell::unset(&state.connection.jetstream, &state.names, id).await?;
        }
        Ok(())
    }
}

fn read_cron(known: &Known) -> Option<Cron> {
    let zone = cron::zone(&known.schedule.time_zone).ok()?;
    Cron::read(&known.schedule.cron, zone).ok()
}

/// Decides about all slots of a schedule that are due, and starts their operations.
async fn advance(state: &AppState, id: &ScheduleId, now: Timestamp) -> Result<(), Trouble> {
    let schedules = &state.schedules;
    for _ in 0..DECISIONS {
        let Some(mut known) = schedules.newest(id).await? else {
            return Ok(());
        };
        if known.run.starting {
            finish(state, id, &known, now).await?;
            continue;
        }
        let Some(cron) = read_cron(&known) else {
            return Ok(());
        };
        let Some(slot) = next_due(&known.schedule, &cron, &known.run, now) else {
            return Ok(());
        };

        let open = open_run(state, &known).await?;
        let overlap = known.schedule.overlap;
        if open.is_some() && overlap == Overlap::Queue {
            return Ok(());
        }
        known.run.slot = Some(slot);
        if open.is_some() && overlap == Overlap::Skip {
            known.run.skipped += 1;
            let decided = schedules.decide(id, &known.run, known.run_revision).await?;
            if decided.is_some() {
                schedules.counters.skipped.inc();
                tracing::info!(schedule = %id, %slot, "left a slot out: the last operation has not ended");
            }
            continue;
        }

        (known.run.starting, known.run.decided_at) = (true, Some(now));
        if let Some(revision) = schedules.decide(id, &known.run, known.run_revision).await? {
            known.run_revision = revision;
            finish(state, id, &known, now).await?;
        }
    }
    Ok(())
}

/// The last operation of a schedule, if it has not ended.
async fn open_run(state: &AppState, known: &Known) -> Result<Option<OperationId>, Trouble> {
    let Some(last_run) = known.run.last_run.as_ref() else {
        return Ok(None);
    };
    let last = &last_run.operation_id;
    let is_open = || {
        let view = state.projection.get(last.as_str())?;
        Some(!view.status().is_terminal())
    };
    // Another backend may have started it a moment ago.
    if is_open() != Some(false) && !state.has_read_all().await {
        return Err(Trouble::NotRead);
    }
    // One that nobody knows any more has ended long ago.
    Ok((is_open() == Some(true)).then(|| last.clone()))
}

/// Whether an operation was started by this schedule, as one of this type. A worker of another type can
/// write any schedule into a start request, under the id of a slot.
fn is_of(view: &View, id: &ScheduleId, worker_type: &WorkerType) -> bool {
    let record = &view.record;
    record.schedule_id() == Some(id) && record.queue.worker_type == *worker_type
}

/// Cancels the operation that the next one replaces, if the schedule has started it.
async fn replace(
    state: &AppState,
    id: &ScheduleId,
    known: &Known,
    open: &OperationId,
) -> Result<(), Trouble> {
    let Some(view) = state.projection.get(open.as_str()) else {
        return Ok(());
    };
    let worker_type = known.run.last_type.as_ref();
    let worker_type = worker_type.unwrap_or(&known.schedule.worker_type);
    // Somebody else's operation held the unique key of a slot.
    if !is_of(&view, id, worker_type) {
        return Ok(());
    }
    let intent = CancelIntent::new(open.clone(), Some(REPLACED_BY_SLOT.to_owned()));
    let cancelled = state.dispatch.cancel(&view.record, intent).await;
    cancelled
        .map(drop)
        .map_err(|error| Trouble::Start(error.problem().error.clone()))
}

/// Starts the operation of the slot about which was decided last, and writes down what became of it. If
/// the last operation is to be replaced, it is cancelled before: whoever goes on after another backend has
/// died does both again.
async fn finish(
    state: &AppState,
    id: &ScheduleId,
    known: &Known,
    now: Timestamp,
) -> Result<(), Trouble> {
    let schedules: &Schedules = &state.schedules;
    let mut run = known.run.clone();
    run.starting = false;
    if let Some(slot) = run.slot {
        if known.schedule.overlap == Overlap::Replace
            && let Some(open) = open_run(state, known).await?
            && slot_id(id, slot).is_ok_and(|next| next != open)
        {
            replace(state, id, known, &open).await?;
        }
        match start(state, id, known, slot).await {
            Ok(operation_id) => {
                if slot_id(id, slot).is_ok_and(|own| own == operation_id) {
                    schedules.counters.started.inc();
                    tracing::debug!(schedule = %id, %operation_id, "started the operation of a slot");
                } else {
                    tracing::debug!(schedule = %id, %operation_id, "the operation with the unique key of a slot was open");
                }
                run.last_error = None;
                run.last_run = Some(LastRun {
                    operation_id,
                    slot: Some(slot),
                    at: now,
                });
                run.last_type = Some(known.schedule.worker_type.clone());
            }
            Err(error) if is_worth_waiting(&error, known, now) => {
                return Err(Trouble::Start(error.problem().error.clone()));
            }
            Err(error) => {
                let problem = error.problem();
                schedules.counters.refused.inc();
                tracing::warn!(schedule = %id, %slot, code = %problem.code, error = problem.error, "the operation of a slot was refused");
                run.last_error = Some(LastError {
                    slot,
                    code: problem.code.to_string(),
                    message: problem.error.clone(),
                    at: now,
                });
            }
        }
    }
    // Whoever has written meanwhile has finished it, too.
    schedules.decide(id, &run, known.run_revision).await?;
    Ok(())
}

/// Whether the slot is tried again: for a minute after it was decided. With `queue` no slot is left out,
/// however long that takes.
fn is_worth_waiting(error: &ApiError, known: &Known, now: Timestamp) -> bool {
    let waits =
        known.schedule.overlap == Overlap::Queue && error.problem().code != ErrorCode::Internal;
    // Earlier releases did not write when it was decided.
    let decided_at = known.run.decided_at.or(known.run.slot);
    let is_new = decided_at.is_some_and(|decided_at| decided_at.plus(GRACE) > now);
    is_passing(error) && (waits || is_new)
}

/// Whether a later try may succeed.
fn is_passing(error: &ApiError) -> bool {
    matches!(
        error.problem().code,
        ErrorCode::NatsUnavailable
            | ErrorCode::OutcomeUnknown
            | ErrorCode::NotReady
            | ErrorCode::Overloaded
            | ErrorCode::CheckTimeout
            | ErrorCode::StorageFull
            | ErrorCode::Internal
    )
}

/// The operation of a slot, started now or before; another one when that holds its unique key and the
/// schedule's body says `return`.
async fn start(
    state: &AppState,
    id: &ScheduleId,
    known: &Known,
    slot: Timestamp,
) -> Result<OperationId, ApiError> {
    let operation_id = slot_id(id, slot).map_err(ApiError::internal)?;
    let is_ours = || {
        let view = state.projection.get(operation_id.as_str());
        view.is_some_and(|view| is_of(&view, id, &known.schedule.worker_type))
    };
    if is_ours() {
        return Ok(operation_id);
    }
    let schedule = &known.schedule;
    match starts::of_schedule(state, id, schedule, operation_id.clone()).await {
        Ok(answer) => Ok(answer.operation_id().clone()),
        // Another backend has started it, from another body: somebody has changed the schedule.
        Err(error) if error.problem().code == ErrorCode::IdempotencyMismatch && is_ours() => {
            Ok(operation_id)
        }
        Err(error) => Err(error),
    }
}

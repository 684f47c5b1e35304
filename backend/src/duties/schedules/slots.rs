//! Decides about the slots of one schedule.
//!
//! Read schedule and decisions from the leader of the bucket, decide about the next slot, write the
//! decision behind its revision, read again, and start the operation. A decision that was written and not
//! carried out is carried out first. So it does not matter which backend does it, how often, and where
//! another one died.
//!
//! Time is that of the NATS server. A backend's own clock decides nothing.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use ktrdr_protocol::cancel::{CancelIntent, REPLACED_BY_SLOT};
use ktrdr_protocol::id::{OperationId, ScheduleId, WorkerType};
use ktrdr_protocol::schedule::{LastError, LastRun, Overlap, PAUSED, ScheduleRun, slot_id};
use ktrdr_protocol::time::Timestamp;
use parking_lot::Mutex;

use super::Trouble;
use crate::error::{ApiError, ErrorCode};
use crate::projection::record::View;
use crate::schedules::Known;
use crate::schedules::due::{GRACE, missed, next_due};
use crate::starts;
use crate::state::AppState;

/// Decisions about one schedule in one go. The rest comes with the next look.
const DECISIONS: usize = 200;

/// The schedules whose slots are being decided, each with the newest time that the server has told.
#[derive(Clone, Default)]
pub(super) struct Busy(Arc<Mutex<HashMap<ScheduleId, Timestamp>>>);

impl Busy {
    /// `None` when the schedule has its turn already. It hears of the time.
    pub(super) fn take(&self, id: &ScheduleId, told: Timestamp) -> Option<Turn> {
        match self.0.lock().entry(id.clone()) {
            Entry::Occupied(mut of_turn) => {
                let newest = of_turn.get_mut();
                *newest = told.max(*newest);
                None
            }
            Entry::Vacant(free) => {
                free.insert(told);
                Some(Turn {
                    busy: self.clone(),
                    id: id.clone(),
                })
            }
        }
    }
}

/// The turn of a schedule, until it is dropped.
pub(super) struct Turn {
    busy: Busy,
    id: ScheduleId,
}

impl Turn {
    /// The time now. A ring tells when it was stored, which may be long ago; the clock of the stream, as
    /// it was read last, may be a little behind a new ring.
    fn now(&self, clock: Option<Timestamp>) -> Option<Timestamp> {
        let told = self.busy.0.lock().get(&self.id).copied();
        Some(clock?.max(told?))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.busy.0.lock().remove(&self.id);
    }
}

/// Decides about all slots of a schedule that are due, and starts their operations.
pub(super) async fn advance(state: &AppState, turn: &Turn) -> Result<(), Trouble> {
    let (schedules, id) = (&state.schedules, &turn.id);
    for _ in 0..DECISIONS {
        let Some(mut known) = schedules.newest(id).await? else {
            return Ok(());
        };
        // Without the clock of the stream, nobody knows how late it is.
        let Some(now) = turn.now(state.projection.clock.now()) else {
            return Ok(());
        };
        if known.is_unreadable {
            return Ok(());
        }
        if known.run.starting {
            finish(state, id, &known, now).await?;
            continue;
        }
        let Some(cron) = known.cron() else {
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
        let missed = missed(&known.schedule, &cron, &known.run, slot);
        known.run.missed += missed;
        known.run.slot = Some(slot);
        let is_left_out = open.is_some() && overlap == Overlap::Skip;
        if is_left_out {
            known.run.skipped += 1;
        } else {
            (known.run.starting, known.run.decided_at) = (true, Some(now));
        }
        let decided = schedules.decide(id, &known.run, known.run_revision).await?;
        if decided.is_none() {
            continue;
        }
        let counters = &schedules.counters;
        counters.missed.inc_by(missed);
        if missed > 0 {
            tracing::warn!(schedule = %id, missed, %slot, "slots were missed before this one");
        }
        if is_left_out {
            counters.skipped.inc();
            tracing::info!(schedule = %id, %slot, "left a slot out: the last operation has not ended");
        }
        // The next turn of the loop starts the operation, if the schedule was not paused meanwhile.
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

/// Whether the operation of a slot was started, as far as this backend has read.
fn is_started(
    state: &AppState,
    id: &ScheduleId,
    known: &Known,
    operation_id: &OperationId,
) -> bool {
    let view = state.projection.get(operation_id.as_str());
    view.is_some_and(|view| is_of(&view, id, &known.schedule.worker_type))
}

/// Cancels the operation that the next one replaces, if the schedule has started it.
async fn replace(
    state: &AppState,
    id: &ScheduleId,
    known: &Known,
    open: &OperationId,
) -> Result<(), ApiError> {
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
    state.dispatch.cancel(&view.record, intent).await.map(drop)
}

/// What became of the slot about which was decided last.
enum Outcome {
    /// Its operation was started.
    Started,
    /// Another operation has its unique key.
    Held,
    /// It was refused.
    Refused,
    /// The schedule was paused meanwhile.
    Paused,
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
    let mut run = known.run.clone();
    run.starting = false;
    let outcome = match run.slot {
        Some(slot) => Some(carry_out(state, id, known, (slot, now), &mut run).await?),
        None => None,
    };

    // Another backend may have finished it meanwhile, or an operation was started by hand: whoever looks
    // next reads that.
    let schedules = &state.schedules;
    let decided = schedules.decide(id, &run, known.run_revision).await?;
    if decided.is_some() {
        let counters = &schedules.counters;
        match outcome {
            Some(Outcome::Started) => counters.started.inc(),
            Some(Outcome::Refused) => counters.refused.inc(),
            Some(Outcome::Paused) => counters.skipped.inc(),
            Some(Outcome::Held) | None => 0,
        };
    }
    Ok(())
}

/// Starts the operation of a slot, and notes what became of it in `run`.
async fn carry_out(
    state: &AppState,
    id: &ScheduleId,
    known: &Known,
    (slot, now): (Timestamp, Timestamp),
    run: &mut ScheduleRun,
) -> Result<Outcome, Trouble> {
    let own = slot_id(id, slot).map_err(ApiError::internal);
    let own = own.map_err(Trouble::Start)?;
    if known.schedule.paused && !is_started(state, id, known, &own) {
        // Another backend may have started it a moment ago.
        if !state.has_read_all().await {
            return Err(Trouble::NotRead);
        }
        if !is_started(state, id, known, &own) {
            tracing::info!(schedule = %id, %slot, "left a slot out: the schedule was paused");
            run.skipped += 1;
            run.last_error = Some(LastError {
                slot,
                code: PAUSED.to_owned(),
                message: "The schedule was paused before the operation of this slot was started"
                    .to_owned(),
                at: now,
            });
            return Ok(Outcome::Paused);
        }
    }

    let replaced = match known.schedule.overlap {
        Overlap::Replace => open_run(state, known).await?.filter(|open| *open != own),
        Overlap::Skip | Overlap::Queue => None,
    };
    let started = async {
        if let Some(open) = &replaced {
            replace(state, id, known, open).await?;
        }
        start(state, id, known, &own).await
    };
    match started.await {
        Ok(operation_id) => {
            let outcome = if operation_id == own {
                tracing::debug!(schedule = %id, %operation_id, "started the operation of a slot");
                Outcome::Started
            } else {
                tracing::debug!(schedule = %id, %operation_id, "the operation with the unique key of a slot was open");
                Outcome::Held
            };
            run.last_run = Some(LastRun {
                operation_id,
                slot: Some(slot),
                at: now,
            });
            run.last_type = Some(known.schedule.worker_type.clone());
            Ok(outcome)
        }
        Err(error) if is_worth_waiting(&error, known, now) => Err(Trouble::Start(error)),
        Err(error) => {
            let problem = error.problem();
            tracing::warn!(schedule = %id, %slot, code = %problem.code, error = problem.error, "the operation of a slot was refused");
            run.last_error = Some(LastError {
                slot,
                code: problem.code.to_string(),
                message: problem.error.clone(),
                at: now,
            });
            Ok(Outcome::Refused)
        }
    }
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
    own: &OperationId,
) -> Result<OperationId, ApiError> {
    let is_started = || is_started(state, id, known, own);
    if is_started() {
        return Ok(own.clone());
    }
    match starts::of_schedule(state, id, &known.schedule, own.clone()).await {
        Ok(answer) => Ok(answer.operation_id().clone()),
        // Another backend has started it, from another body: somebody has changed the schedule.
        Err(error) if error.problem().code == ErrorCode::IdempotencyMismatch && is_started() => {
            Ok(own.clone())
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        serde_json::from_value(format!("2026-11-27T{text}Z").into()).unwrap()
    }

    #[test]
    fn a_ring_that_waited_for_a_backend_does_not_say_what_the_time_is() {
        let (busy, id) = (Busy::default(), ScheduleId::new("nightly").unwrap());
        let turn = busy.take(&id, time("10:00:00")).unwrap();

        assert_eq!(turn.now(Some(time("10:30:00"))), Some(time("10:30:00")));
        assert_eq!(turn.now(None), None);
    }

    #[test]
    fn a_schedule_has_one_turn_at_a_time_and_hears_of_later_rings() {
        let (busy, id) = (Busy::default(), ScheduleId::new("tick").unwrap());
        let turn = busy.take(&id, time("10:00:00")).unwrap();

        assert!(busy.take(&id, time("10:00:01")).is_none());
        assert_eq!(turn.now(Some(time("10:00:00"))), Some(time("10:00:01")));
        drop(turn);
        assert!(busy.take(&id, time("10:00:02")).is_some());
    }
}

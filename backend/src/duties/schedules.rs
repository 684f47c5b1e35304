//! Starts the operations of schedules.
//!
//! A ring of the NATS server ([`bell`]) or the backend's own look once a second says that slots may be
//! due. Both do the same: decide about the slots of that schedule, and start their operations
//! ([`slots`]). Each schedule has a task of its own for that, so one that has to wait does not hold up
//! the others.
//!
//! While there is no schedule, this duty does nothing more than to clear up once.

mod slots;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::PullConsumer;
use futures::StreamExt;
use ktrdr_bus::key_values::KeyError;
use ktrdr_bus::oplog::stream_time;
use ktrdr_bus::telemetry::{Repeated, chain};
use ktrdr_protocol::id::ScheduleId;
use ktrdr_protocol::time::Timestamp;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use crate::error::ApiError;
use crate::schedules::bell::{self, BellError};
use crate::schedules::due::next_due;
use crate::schedules::{ChangeError, Known};
use crate::state::AppState;

use self::slots::Busy;

/// How often schedules are looked at without a ring.
const TICK: Duration = Duration::from_secs(1);

/// How long after a slot that look finds it: the ring comes first, as a rule.
const LATE: Duration = Duration::from_millis(1_500);

/// How often stream, consumer and messages are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Rings that are taken at a time.
const RINGS: usize = 64;

/// Schedules whose slots are decided at a time.
const AT_A_TIME: usize = 64;

/// Why a schedule cannot be looked after now.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("the NATS server does not ring for schedules")]
    Bell(#[from] BellError),
    #[error("a schedule cannot be read")]
    Key(#[from] KeyError),
    #[error("a decision cannot be written")]
    Change(#[from] ChangeError),
    #[error("rings cannot be read")]
    Rings(#[source] async_nats::Error),
    #[error("the operation of a slot cannot be started yet")]
    Start(#[source] ApiError),
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
        busy: Busy::default(),
        advancing: JoinSet::new(),
        refused: Repeated::new(),
        failures: Arc::new(Repeated::new()),
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
                note_failure(&keeper.failures, &error);
                tokio::time::sleep(TICK).await;
            }
        }
        let is_left_over = || !state.schedules.left_over().is_empty();
        if state.is_loaded() && (!is_clear || is_left_over()) {
            let clear = Box::pin(keeper.clear_up());
            is_clear = match state.connection.while_up(clear).await {
                Some(Ok(())) => true,
                Some(Err(error)) => {
                    note_failure(&keeper.failures, &error);
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
    busy: Busy,
    /// One task for each schedule that is busy.
    advancing: JoinSet<()>,
    refused: Repeated,
    failures: Arc<Repeated>,
}

/// A panic of a task is one of this duty.
fn end_with(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

fn note_failure(failures: &Repeated, error: &Trouble) {
    if let Some(count) = failures.note() {
        tracing::warn!(
            error = chain(error),
            count,
            "the schedules could not be looked after; trying again"
        );
    }
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
        while let Some(ended) = self.advancing.try_join_next() {
            end_with(ended);
        }
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

    /// Decides about the slots of a schedule in a task of its own: one that cannot go on does not hold up
    /// the others. The next look tries it again. `told` is a time that the server has told.
    async fn advance(&mut self, id: &ScheduleId, told: Timestamp) {
        let Some(turn) = self.busy.take(id, told) else {
            return;
        };
        while self.advancing.len() >= AT_A_TIME
            && let Some(ended) = self.advancing.join_next().await
        {
            end_with(ended);
        }
        let (state, failures) = (self.state.clone(), Arc::clone(&self.failures));
        self.advancing.spawn(async move {
            let advance = Box::pin(slots::advance(&state, &turn));
            if let Some(Err(error)) = state.connection.while_up(advance).await {
                note_failure(&failures, &error);
            }
        });
    }

    fn has_untold(&self) -> bool {
        let all = self.state.schedules.all();
        all.iter()
            .any(|(id, known)| !known.schedule.paused && self.told.get(id) != Some(&known.revision))
    }

    async fn take_rings(&mut self, consumer: &PullConsumer) -> Result<(), Trouble> {
        let state = self.state;
        let rings = consumer.fetch().max_messages(RINGS).expires(TICK);
        let mut rings = rings
            .messages()
            .await
            .map_err(|error| Trouble::Rings(error.into()))?;
        while let Some(ring) = rings.next().await {
            let ring = ring.map_err(Trouble::Rings)?;
            let stored_at = ring.info().map(|info| stream_time(info.published));
            if let (Some(id), Ok(told)) = (state.names.schedule_of_ring(&ring.subject), stored_at) {
                self.advance(&id, told).await;
            }
            let _ = ring.ack().await;
        }
        Ok(())
    }

    /// Finds slots whose ring nobody has heard.
    async fn look_at_slots(&mut self, now: Timestamp) {
        let late = now.minus(LATE);
        for (id, known) in self.state.schedules.all() {
            let is_due = known.run.starting
                || !known.is_unreadable
                    && known.cron().is_some_and(|cron| {
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
        let all = state.schedules.all();
        let ids: HashSet<&ScheduleId> = all.iter().map(|(id, _)| id).collect();
        self.told.retain(|id, _| ids.contains(id));
        for (id, known) in all {
            let Some(cron) = known.cron().filter(|_| !known.schedule.paused) else {
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

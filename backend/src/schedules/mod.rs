//! The schedules, as they are stored, and changing them.
//!
//! Every backend hears of all changes. What it decides about a slot it writes behind the revision that
//! it has read from the leader of the bucket, so a decision is made once
//! ([`ktrdr_protocol::schedule`]).
//!
//! | module | holds |
//! |---|---|
//! | [`cron`] | cron lines, read in a time zone |
//! | [`readings`] | what a clock on the wall shows, and when |
//! | [`due`] | which slot is to be decided next |
//! | [`bell`] | the stream whose server rings when a slot comes |

pub mod bell;
pub mod cron;
pub mod due;
pub mod readings;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ktrdr_bus::backoff::Backoff;
use ktrdr_bus::key_values::{Found, KeyError, KeyValues};
use ktrdr_bus::nats::Connection;
use ktrdr_http::metrics::register_gauge;
use ktrdr_protocol::id::{OperationId, ScheduleId, WorkerType};
use ktrdr_protocol::schedule::{
    LastError, Schedule, ScheduleRun, run_key, schedule_key, schedule_of_key, schedule_of_run_key,
    schedule_of_slot,
};
use ktrdr_protocol::subject::SubjectNames;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

use self::cron::Cron;
use crate::error::ErrorCode;
use crate::followed_keys::{self, Followed, Follower, Heard};

/// Most schedules.
pub const MAX_SCHEDULES: usize = 1_000;

/// Most bytes of the bodies of all schedules together. Every backend has them in memory, and one answer
/// shows them all.
pub const MAX_BODIES: usize = 16 * 1024 * 1024;

/// How often a change is tried while other writes come first.
const TRIES: usize = 8;

/// The pauses between these tries.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(200));

/// Why a schedule, or what was decided about its slots, could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// NATS did not answer.
    #[error("the schedule cannot be read or written")]
    Key(#[from] KeyError),
    /// It cannot be written as JSON.
    #[error("the schedule cannot be written as JSON")]
    Unwritable(#[from] serde_json::Error),
    /// What is there cannot be read, and would be lost.
    #[error("what was decided about the slots of the schedule cannot be read")]
    Unreadable,
    /// Other writes came first, again and again.
    #[error("others changed the schedule {TRIES} times meanwhile; try again")]
    Busy,
}

/// A schedule with what was decided about its slots, and the revisions to replace.
#[derive(Debug, Clone)]
pub struct Known {
    /// The definition.
    pub schedule: Arc<Schedule>,
    /// Its revision.
    pub revision: u64,
    /// What was decided.
    pub run: ScheduleRun,
    /// Its revision; 0 when nothing was ever written.
    pub run_revision: u64,
    /// Whether what was decided cannot be read. Then nothing may be started: `run` only says why.
    pub is_unreadable: bool,
}

impl Known {
    /// `None` when there is no such schedule.
    fn of(schedule: Heard<Arc<Schedule>>, run: Heard<StoredRun>) -> Option<Self> {
        let (revision, run_revision) = (schedule.revision, run.revision);
        let schedule = schedule.value?;
        let (run, is_unreadable) = match run.value {
            None => (ScheduleRun::default(), false),
            Some(StoredRun::Readable(run)) => (run, false),
            Some(StoredRun::Unreadable(_)) => (stopped(&schedule), true),
        };
        Some(Self {
            schedule,
            revision,
            run,
            run_revision,
            is_unreadable,
        })
    }

    /// Its cron line; `None` when this backend does not know the time zone, or cannot read the line.
    pub fn cron(&self) -> Option<Cron> {
        let zone = cron::zone(&self.schedule.time_zone).ok()?;
        Cron::read(&self.schedule.cron, zone).ok()
    }
}

/// What is shown of a schedule of which nobody knows what was decided.
fn stopped(schedule: &Schedule) -> ScheduleRun {
    let message = "What was decided about its slots cannot be read, so nothing is started. If a later version has written it, upgrade this backend; otherwise delete the schedule and make it again";
    ScheduleRun {
        last_error: Some(LastError {
            slot: schedule.since,
            code: ErrorCode::Internal.to_string(),
            message: message.to_owned(),
            at: schedule.updated_at,
        }),
        ..ScheduleRun::default()
    }
}

/// What stands at the key of a run.
#[derive(Debug, Clone)]
enum StoredRun {
    Readable(ScheduleRun),
    /// It cannot be read, and stays as it is. It does not count as none: slots would be decided again.
    Unreadable(Bytes),
}

impl StoredRun {
    fn read(value: &Bytes) -> Self {
        serde_json::from_slice(value)
            .map_or_else(|_| Self::Unreadable(value.clone()), Self::Readable)
    }

    fn to_bytes(&self) -> Option<Bytes> {
        match self {
            Self::Readable(run) => to_bytes(run).ok(),
            Self::Unreadable(bytes) => Some(bytes.clone()),
        }
    }
}

/// What the bucket has at both keys of a schedule.
#[derive(Debug, Clone)]
struct Pair {
    schedule: Heard<Arc<Schedule>>,
    run: Heard<StoredRun>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// What became of slots, counted since this backend began.
#[derive(Debug, Default)]
pub struct Counters {
    /// Operations that were started.
    pub started: Counter,
    /// Slots that were left out because the last operation had not ended, or because the schedule was
    /// paused or got other times.
    pub skipped: Counter,
    /// Slots that nobody could start in time.
    pub missed: Counter,
    /// Slots that were refused.
    pub refused: Counter,
}

/// All schedules, as far as this backend has heard.
pub struct Schedules {
    connection: Connection,
    names: SubjectNames,
    schedules: Followed<ScheduleId, Arc<Schedule>>,
    runs: Followed<ScheduleId, StoredRun>,
    /// Wakes the duty: there is something new.
    pub changed: Notify,
    /// What became of slots.
    pub counters: Counters,
}

impl Schedules {
    /// Knows nothing yet.
    pub fn new(connection: Connection, names: SubjectNames) -> Self {
        Self {
            connection,
            names,
            // Two backends may store the last ones at the same time.
            schedules: Followed::new(2 * MAX_SCHEDULES),
            runs: Followed::new(2 * MAX_SCHEDULES),
            changed: Notify::new(),
            counters: Counters::default(),
        }
    }

    /// All schedules by id.
    pub fn all(&self) -> Vec<(ScheduleId, Known)> {
        let mut runs = self.runs.all_heard();
        let all = self.schedules.all_heard().into_iter();
        all.filter_map(|(id, schedule)| {
            let run = runs.remove(&id).unwrap_or_default();
            Some((id, Known::of(schedule, run)?))
        })
        .collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.schedules.count()
    }

    /// The worker type of the schedule that has a slot with this id, if there is one.
    pub fn type_of_slot(&self, id: &OperationId) -> Option<WorkerType> {
        let schedule = self.schedules.get(&schedule_of_slot(id)?)?;
        Some(schedule.worker_type.clone())
    }

    /// Bytes of the bodies of all schedules but this one.
    pub fn bodies_beside(&self, id: &ScheduleId) -> usize {
        let all = self.schedules.all();
        let others = all.iter().filter(|(other, _)| other != id);
        others.map(|(_, schedule)| schedule.body.get().len()).sum()
    }

    /// Decisions about schedules that were deleted: whoever deleted them has ended in between.
    pub fn left_over(&self) -> Vec<ScheduleId> {
        let runs = self.runs.all().into_iter();
        runs.map(|(id, _)| id)
            .filter(|id| self.schedules.get(id).is_none())
            .collect()
    }

    /// Adds the figures to the page.
    pub fn register(&self, page: &mut Registry) {
        let outcomes = [
            ("started", &self.counters.started),
            ("skipped", &self.counters.skipped),
            ("missed", &self.counters.missed),
            ("refused", &self.counters.refused),
        ];
        let slots = Family::<OutcomeLabels, Counter>::default();
        for (outcome, counter) in outcomes {
            slots
                .get_or_create(&OutcomeLabels { outcome })
                .inc_by(counter.get());
        }
        page.register(
            "ktrdr_schedule_slots",
            "Slots of schedules that this backend decided about, by outcome",
            slots,
        );
        register_gauge(page, "ktrdr_schedules", "Schedules.", self.count() as f64);
    }

    /// Follows the bucket until the task is dropped.
    pub async fn follow(&self) {
        followed_keys::follow(&self.connection, &self.names, self).await;
    }

    fn take_schedule(&self, id: &ScheduleId, heard: Heard<Arc<Schedule>>) {
        if self.schedules.take(id, heard) {
            self.changed.notify_one();
        }
    }

    /// A schedule as the bucket has it now; `None` when there is none.
    ///
    /// # Errors
    /// [`KeyError`] when NATS does not answer.
    pub async fn newest(&self, id: &ScheduleId) -> Result<Option<Known>, KeyError> {
        let Pair { schedule, run } = self.read_pair(id).await?;
        Ok(Known::of(schedule, run))
    }

    /// The revision that the next write of a schedule replaces, and the schedule.
    async fn read_pair(&self, id: &ScheduleId) -> Result<Pair, KeyError> {
        let bucket = self.bucket();
        // In this order: a run without its schedule is of one that was deleted.
        let run = bucket.read_at_leader(&run_key(id)).await?;
        let schedule = bucket.read_at_leader(&schedule_key(id)).await?;
        let pair = Pair {
            schedule: Heard::of(schedule.as_ref(), |value| read(id, value).map(Arc::new)),
            run: Heard::of(run.as_ref(), |value| Some(StoredRun::read(value))),
        };
        self.runs.take(id, pair.run.clone());
        self.take_schedule(id, pair.schedule.clone());
        Ok(pair)
    }

    /// Changes a schedule, and tries again while other writes come first: `change` is given the one
    /// that is stored and returns the one to store, or `None` to remove it. Returns what was stored
    /// before, with the new revision.
    ///
    /// # Errors
    /// Those of `change`, and [`ChangeError`].
    pub async fn change<E>(
        &self,
        id: &ScheduleId,
        mut change: impl FnMut(Option<&Known>) -> Result<Option<Schedule>, E>,
    ) -> Result<Result<(Option<Known>, u64), E>, ChangeError> {
        let mut pauses = PAUSES;
        for _ in 0..TRIES {
            let Pair { schedule, run } = self.read_pair(id).await?;
            let (revision, run_revision) = (schedule.revision, run.revision);
            let has_run = run.value.is_some();
            let before = Known::of(schedule, run);
            let wanted = match change(before.as_ref()) {
                Ok(wanted) => wanted,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let key = schedule_key(id);
            let written = match &wanted {
                Some(schedule) => {
                    let value = to_bytes(schedule)?;
                    // Whoever deleted the one before has ended in between.
                    if before.is_none() && has_run && !self.remove_run(id, run_revision).await? {
                        pauses.wait().await;
                        continue;
                    }
                    self.bucket().update(&key, value, revision).await
                }
                None => self.bucket().remove_revision(&key, revision).await,
            };
            match written {
                Ok(revision) => {
                    let value = wanted.map(Arc::new);
                    self.take_schedule(id, Heard { revision, value });
                    return Ok(Ok((before, revision)));
                }
                Err(KeyError::Changed { .. }) => pauses.wait().await,
                Err(error) => return Err(error.into()),
            }
        }
        Err(ChangeError::Busy)
    }

    /// Changes what was decided about the slots of a schedule, and tries again while other writes come
    /// first. `change` returns false when there is nothing to write. Nothing is changed when there is no
    /// such schedule.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn change_run(
        &self,
        id: &ScheduleId,
        mut change: impl FnMut(&mut ScheduleRun) -> bool,
    ) -> Result<(), ChangeError> {
        let mut pauses = PAUSES;
        for _ in 0..TRIES {
            let Some(mut known) = self.newest(id).await? else {
                return Ok(());
            };
            if known.is_unreadable {
                return Err(ChangeError::Unreadable);
            }
            let is_done = !change(&mut known.run)
                || self
                    .decide(id, &known.run, known.run_revision)
                    .await?
                    .is_some();
            if is_done {
                return Ok(());
            }
            pauses.wait().await;
        }
        Err(ChangeError::Busy)
    }

    /// Writes what was decided in the place of this revision. `None` when another write came first.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn decide(
        &self,
        id: &ScheduleId,
        run: &ScheduleRun,
        revision: u64,
    ) -> Result<Option<u64>, ChangeError> {
        let key = run_key(id);
        match self.bucket().update(&key, to_bytes(run)?, revision).await {
            Ok(revision) => {
                let value = Some(StoredRun::Readable(run.clone()));
                self.runs.take(id, Heard { revision, value });
                Ok(Some(revision))
            }
            Err(KeyError::Changed { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Forgets what was decided about the slots of a schedule, if it was deleted: one of the same id may
    /// have been made since.
    ///
    /// # Errors
    /// [`ChangeError`].
    pub async fn forget_run(&self, id: &ScheduleId) -> Result<(), ChangeError> {
        let bucket = self.bucket();
        let mut pauses = PAUSES;
        for _ in 0..TRIES {
            let run = bucket.read_at_leader(&run_key(id)).await?;
            // Also a schedule that only later versions can read is there.
            let schedule = bucket.read_at_leader(&schedule_key(id)).await?;
            let is_deleted = schedule.is_none_or(|schedule| schedule.value.is_none());
            let Some(run) = run.filter(|run| run.value.is_some() && is_deleted) else {
                return Ok(());
            };
            if self.remove_run(id, run.revision).await? {
                return Ok(());
            }
            pauses.wait().await;
        }
        Err(ChangeError::Busy)
    }

    /// Removes what was decided at this revision. False when another write came first: somebody has
    /// decided about a slot, or has done the same.
    async fn remove_run(&self, id: &ScheduleId, revision: u64) -> Result<bool, KeyError> {
        match self.bucket().remove_revision(&run_key(id), revision).await {
            Ok(revision) => {
                let value = None;
                self.runs.take(id, Heard { revision, value });
                Ok(true)
            }
            Err(KeyError::Changed { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn bucket(&self) -> KeyValues {
        let bucket = self.names.worker_types_bucket();
        KeyValues::new(self.connection.jetstream.clone(), bucket)
    }
}

impl Follower for Schedules {
    const KEYS: [&'static str; 2] = ["schedule.*", "schedule_run.*"];
    const WHAT: &'static str = "schedules";

    fn hear(&self, key: &str, found: Found) {
        if let Some(id) = schedule_of_key(key) {
            let heard = Heard::of(Some(&found), |value| read(&id, value).map(Arc::new));
            self.take_schedule(&id, heard);
        } else if let Some(id) = schedule_of_run_key(key) {
            let heard = Heard::of(Some(&found), |value| Some(StoredRun::read(value)));
            if let Some(StoredRun::Unreadable(_)) = &heard.value {
                tracing::warn!(schedule = %id, "what was decided about the slots of the schedule cannot be read; it starts nothing");
            }
            self.runs.take(&id, heard);
        }
    }

    /// What was decided comes first: without it, slots would be decided again.
    fn lost(&self) -> Vec<(String, Bytes)> {
        let runs = self.runs.all().into_iter();
        let runs = runs
            .filter(|(id, _)| self.schedules.get(id).is_some())
            .filter_map(|(id, run)| Some((run_key(&id), run.to_bytes()?)));
        let schedules = self
            .schedules
            .all()
            .into_iter()
            .filter_map(|(id, schedule)| {
                let value = to_bytes(&*schedule).ok()?;
                Some((schedule_key(&id), value))
            });
        runs.chain(schedules).collect()
    }

    fn clear(&self) {
        self.schedules.clear();
        self.runs.clear();
    }
}

fn read(id: &ScheduleId, value: &[u8]) -> Option<Schedule> {
    serde_json::from_slice(value)
        .inspect_err(|error| {
            tracing::warn!(schedule = %id, %error, "the schedule cannot be read; it counts as missing");
        })
        .ok()
}

fn to_bytes(value: &impl serde::Serialize) -> Result<Bytes, serde_json::Error> {
    serde_json::to_vec(value).map(Bytes::from)
}

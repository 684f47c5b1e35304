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

use bytes::Bytes;
use ktrdr_bus::key_values::{Found, KeyError, KeyValues};
use ktrdr_bus::nats::Connection;
use ktrdr_http::metrics::register_gauge;
use ktrdr_protocol::id::{OperationId, ScheduleId, WorkerType};
use ktrdr_protocol::schedule::{
    Schedule, ScheduleRun, run_key, schedule_key, schedule_of_key, schedule_of_run_key,
    schedule_of_slot,
};
use ktrdr_protocol::subject::SubjectNames;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

use crate::followed_keys::{self, Followed, Follower, Heard};

/// Most schedules.
pub const MAX_SCHEDULES: usize = 1_000;

/// Most bytes of the bodies of all schedules together. Every backend has them in memory, and one answer
/// shows them all.
pub const MAX_BODIES: usize = 16 * 1024 * 1024;

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
}

impl Known {
    /// `None` when there is no such schedule.
    fn of(schedule: Heard<Arc<Schedule>>, run: Heard<ScheduleRun>) -> Option<Self> {
        Some(Self {
            schedule: schedule.value?,
            revision: schedule.revision,
            run: run.value.unwrap_or_default(),
            run_revision: run.revision,
        })
    }
}

/// What the bucket has at both keys of a schedule.
#[derive(Debug, Clone)]
struct Pair {
    schedule: Heard<Arc<Schedule>>,
    run: Heard<ScheduleRun>,
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
    /// Slots that were left out because the last operation had not ended.
    pub skipped: Counter,
    /// Slots that were refused.
    pub refused: Counter,
}

/// All schedules, as far as this backend has heard.
pub struct Schedules {
    connection: Connection,
    names: SubjectNames,
    schedules: Followed<ScheduleId, Arc<Schedule>>,
    runs: Followed<ScheduleId, ScheduleRun>,
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
            run: Heard::of(run.as_ref(), |value| read(id, value)),
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
    /// Those of `change`, and [`KeyError`].
    pub async fn change<E>(
        &self,
        id: &ScheduleId,
        mut change: impl FnMut(Option<&Known>) -> Result<Option<Schedule>, E>,
    ) -> Result<Result<(Option<Known>, u64), E>, KeyError> {
        loop {
            let Pair { schedule, run } = self.read_pair(id).await?;
            let revision = schedule.revision;
            let before = Known::of(schedule, run);
            let wanted = match change(before.as_ref()) {
                Ok(wanted) => wanted,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let key = schedule_key(id);
            let value = wanted.as_ref().and_then(to_bytes);
            let written = match &value {
                Some(value) => self.bucket().update(&key, value.clone(), revision).await,
                None => self.bucket().remove_revision(&key, revision).await,
            };
            match written {
                Ok(revision) => {
                    let value = wanted.map(Arc::new);
                    self.take_schedule(id, Heard { revision, value });
                    return Ok(Ok((before, revision)));
                }
                // Whoever was first has changed something, so this ends.
                Err(KeyError::Changed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what was decided in the place of this revision. `None` when another write came first.
    ///
    /// # Errors
    /// [`KeyError`] when NATS does not answer.
    pub async fn decide(
        &self,
        id: &ScheduleId,
        run: &ScheduleRun,
        revision: u64,
    ) -> Result<Option<u64>, KeyError> {
        let Some(value) = to_bytes(run) else {
            return Ok(None);
        };
        let key = run_key(id);
        match self.bucket().update(&key, value, revision).await {
            Ok(revision) => {
                let value = Some(run.clone());
                self.runs.take(id, Heard { revision, value });
                Ok(Some(revision))
            }
            Err(KeyError::Changed { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Forgets what was decided about the slots of a schedule, if it was deleted: one of the same id may
    /// have been made since.
    ///
    /// # Errors
    /// [`KeyError`] when NATS does not answer.
    pub async fn forget_run(&self, id: &ScheduleId) -> Result<(), KeyError> {
        let (bucket, key) = (self.bucket(), run_key(id));
        loop {
            let run = bucket.read_at_leader(&key).await?;
            // Also a schedule that only later versions can read is there.
            let schedule = bucket.read_at_leader(&schedule_key(id)).await?;
            let is_deleted = schedule.is_none_or(|schedule| schedule.value.is_none());
            let Some(run) = run.filter(|run| run.value.is_some() && is_deleted) else {
                return Ok(());
            };
            match bucket.remove_revision(&key, run.revision).await {
                Ok(revision) => {
                    let value = None;
                    self.runs.take(id, Heard { revision, value });
                    return Ok(());
                }
                // Whoever was first has decided about a slot, or has done the same.
                Err(KeyError::Changed { .. }) => {}
                Err(error) => return Err(error),
            }
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
            let heard = Heard::of(Some(&found), |value| read(&id, value));
            self.runs.take(&id, heard);
        }
    }

    /// What was decided comes first: without it, slots would be decided again.
    fn lost(&self) -> Vec<(String, Bytes)> {
        let all = self.all().into_iter();
        let entries = all.flat_map(|(id, known)| {
            let run = to_bytes(&known.run).map(|run| (run_key(&id), run));
            let schedule = to_bytes(&*known.schedule);
            let schedule = schedule.map(|schedule| (schedule_key(&id), schedule));
            [run, schedule]
        });
        entries.flatten().collect()
    }

    fn clear(&self) {
        self.schedules.clear();
        self.runs.clear();
    }
}

fn read<T: serde::de::DeserializeOwned>(id: &ScheduleId, value: &[u8]) -> Option<T> {
    serde_json::from_slice(value)
        .inspect_err(|error| {
            tracing::warn!(schedule = %id, %error, "an entry of the schedule cannot be read; it counts as missing");
        })
        .ok()
}

/// As JSON. These types can always be written.
fn to_bytes(value: &impl serde::Serialize) -> Option<Bytes> {
    serde_json::to_vec(value).ok().map(Bytes::from)
}

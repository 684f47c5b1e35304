//! Which worker types have paused queues, and changing that.
//!
//! The consumers themselves follow: [`Queues`] pauses and resumes those that exist at once and makes
//! new ones paused, and the duty brings the others in line.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use ktrdr_bus::key_values::{Found, KeyError, KeyValues};
use ktrdr_bus::queues;
use ktrdr_bus::topology::TopologyError;
use ktrdr_protocol::id::WorkerType;
use ktrdr_protocol::queue_pause::{QueuePause, pause_key};

use super::Queues;
use crate::followed_keys::{Followed, Heard};
use crate::projection::Projection;

/// Most pauses that are kept. There are fewer worker types.
const MAX_PAUSES: usize = 1_000;

/// How often a change is tried while other writes come first.
const TRIES: usize = 8;

/// Why queues could not be paused or resumed.
#[derive(Debug, thiserror::Error)]
pub enum PauseError {
    /// The wish could not be stored; nothing has changed.
    #[error("the pause cannot be stored")]
    NotStored(#[source] KeyError),
    /// Others changed it at the same time, again and again.
    #[error("others changed the pause {TRIES} times meanwhile")]
    Busy,
    /// The wish is stored, and not all consumers follow it yet. The duty does the rest.
    #[error("the pause is stored, but not all queues follow it yet")]
    NotFollowed(#[source] TopologyError),
}

/// The pauses, as far as this backend has heard. Whether one is over is judged by the clock of the stream,
/// as the server does.
pub struct Pauses {
    known: Followed<WorkerType, QueuePause>,
    projection: Arc<Projection>,
}

impl Pauses {
    /// Knows nothing yet.
    pub fn new(projection: Arc<Projection>) -> Self {
        Self {
            known: Followed::new(MAX_PAUSES),
            projection,
        }
    }

    /// The pause of a worker type; `None` when its queues go on, or when it is over.
    pub fn of(&self, worker_type: &WorkerType) -> Option<QueuePause> {
        let pause = self.known.get(worker_type)?;
        self.is_on(&pause).then_some(pause)
    }

    /// What holds up the operations of a worker type, as the beginning of a sentence.
    pub fn why(&self, worker_type: &WorkerType) -> Option<String> {
        Some(match self.of(worker_type)?.until {
            Some(until) => format!("the worker type {worker_type} is paused until {until}"),
            None => format!("the worker type {worker_type} is paused until somebody resumes it"),
        })
    }

    /// All worker types whose queues are paused now.
    pub fn all(&self) -> HashMap<WorkerType, QueuePause> {
        let all = self.known.all().into_iter();
        all.filter(|(_, pause)| self.is_on(pause)).collect()
    }

    fn is_on(&self, pause: &QueuePause) -> bool {
        !pause.is_over(self.projection.now())
    }

    /// Takes what was written at the key of a worker type. False when that is nothing new.
    pub(super) fn hear(&self, worker_type: &WorkerType, found: &Found) -> bool {
        self.known.take(worker_type, read(worker_type, Some(found)))
    }

    /// What is to be written into another bucket.
    pub(super) fn lost(&self) -> Vec<(String, Bytes)> {
        let paused = self.all().into_iter();
        let entries = paused.filter_map(|(worker_type, pause)| {
            let value = serde_json::to_vec(&pause).ok()?;
            Some((pause_key(&worker_type), value.into()))
        });
        entries.collect()
    }

    /// Forgets everything: the bucket is another one.
    pub(super) fn clear(&self) {
        self.known.clear();
    }
}

fn read(worker_type: &WorkerType, found: Option<&Found>) -> Heard<QueuePause> {
    Heard::of(found, |value| {
        serde_json::from_slice(value)
            .inspect_err(|error| {
                tracing::warn!(%worker_type, %error, "the pause of the queues cannot be read; they go on");
            })
            .ok()
    })
}

impl Queues {
    /// Pauses all queues of a worker type, or lets them go on with `None`. What runs goes on. Returns
    /// how many queues there are.
    ///
    /// # Errors
    /// [`PauseError`].
    pub async fn set_pause(
        &self,
        worker_type: &WorkerType,
        pause: Option<QueuePause>,
    ) -> Result<usize, PauseError> {
        self.store_pause(worker_type, pause).await?;

        let (jetstream, names) = (&self.connection.jetstream, &self.names);
        let listing = queues::list(jetstream, names).await;
        let listing = listing.map_err(PauseError::NotFollowed)?;
        let mut followed = 0;
        let mut failed = None;
        for found in listing
            .queues
            .iter()
            .filter(|found| found.worker_type == *worker_type)
        {
            let consumer = &found.info.name;
            let done = match pause {
                Some(pause) => queues::pause(jetstream, names, consumer, pause.end()).await,
                None if found.info.paused => queues::resume(jetstream, names, consumer).await,
                None => Ok(()),
            };
            match done {
                Ok(()) => followed += 1,
                // One that does not follow must not keep the others from it.
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
            if failed.is_some() && !self.connection.is_up() {
                break;
            }
        }
        failed.map_or(Ok(followed), |error| Err(PauseError::NotFollowed(error)))
    }

    /// The pause of a worker type as the bucket has it now; `None` when its queues go on.
    ///
    /// # Errors
    /// [`KeyError`] when NATS does not answer.
    pub async fn newest_pause(
        &self,
        worker_type: &WorkerType,
    ) -> Result<Option<QueuePause>, KeyError> {
        let found = self.read_pause(worker_type).await?;
        Ok(found.value.filter(|pause| self.lists.pauses.is_on(pause)))
    }

    async fn read_pause(&self, worker_type: &WorkerType) -> Result<Heard<QueuePause>, KeyError> {
        let bucket = self.pause_bucket();
        let found = bucket.read_at_leader(&pause_key(worker_type)).await?;
        let heard = read(worker_type, found.as_ref());
        self.lists.pauses.known.take(worker_type, heard.clone());
        Ok(heard)
    }

    /// Writes the wish behind the revision that it replaces.
    async fn store_pause(
        &self,
        worker_type: &WorkerType,
        pause: Option<QueuePause>,
    ) -> Result<(), PauseError> {
        let (key, bucket) = (pause_key(worker_type), self.pause_bucket());
        for _ in 0..TRIES {
            let found = self.read_pause(worker_type).await;
            let found = found.map_err(PauseError::NotStored)?;
            if found.value == pause {
                return Ok(());
            }

            let written = match pause.as_ref().map(serde_json::to_vec) {
                Some(Ok(value)) => bucket.update(&key, value.into(), found.revision).await,
                // It has two plain members.
                Some(Err(_)) => return Err(PauseError::Busy),
                None => bucket.remove_revision(&key, found.revision).await,
            };
            match written {
                Ok(revision) => {
                    let value = pause;
                    let heard = Heard { revision, value };
                    self.lists.pauses.known.take(worker_type, heard);
                    return Ok(());
                }
                Err(KeyError::Changed { .. }) => {}
                Err(error) => return Err(PauseError::NotStored(error)),
            }
        }
        Err(PauseError::Busy)
    }

    fn pause_bucket(&self) -> KeyValues {
        let bucket = self.names.worker_types_bucket();
        KeyValues::new(self.connection.jetstream.clone(), bucket)
    }
}

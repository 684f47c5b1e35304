//! The lists of queues in the bucket of worker types: what they say, and changing them. Beside them
//! stand the pauses ([`super::pauses`]), which arrive in the same way.
//!
//! Several backends change them at the same time. Each write names the revision that it replaces,
//! and the server refuses it when another one came first.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::jetstream::kv::{Store, UpdateErrorKind};
use bytes::Bytes;
use ktrdr_bus::key_values::{Found, KeyValues};
use ktrdr_bus::nats::Connection;
use ktrdr_protocol::id::{Queue, WorkerType};
use ktrdr_protocol::queue_list::{QueueList, queues_key, worker_type_of_queues_key};
use ktrdr_protocol::queue_pause::worker_type_of_pause_key;
use ktrdr_protocol::subject::SubjectNames;
use tokio::sync::OnceCell;

use super::pauses::Pauses;
use crate::followed_keys::{self, Followed, Follower, Heard};
use crate::projection::Projection;

/// Most lists that are kept. There are fewer worker types.
const MAX_LISTS: usize = 1_000;

/// How often a change is tried while other writes come first.
const TRIES: usize = 8;

/// Why a list could not be changed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// NATS did not answer or refused.
    #[error("the list cannot be read or written: {0}")]
    Nats(#[source] async_nats::Error),
    /// Other writes came first, again and again.
    #[error("others changed the list {TRIES} times meanwhile")]
    Busy,
}

/// A list with its revision; 0 when there was never one.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The revision to replace.
    pub revision: u64,
    /// The list.
    pub list: QueueList,
}

impl From<Heard<QueueList>> for Known {
    fn from(heard: Heard<QueueList>) -> Self {
        Self {
            revision: heard.revision,
            list: heard.value.unwrap_or_default(),
        }
    }
}

/// All lists, as far as this backend has heard.
pub struct Lists {
    connection: Connection,
    names: SubjectNames,
    bucket: OnceCell<Store>,
    known: Followed<WorkerType, QueueList>,
    /// The worker types whose queues are paused.
    pub pauses: Pauses,
    /// Whether somebody else has written a list or a pause since the last [`Self::take_news`].
    has_news: AtomicBool,
}

impl Lists {
    /// Knows nothing yet.
    pub fn new(connection: Connection, names: SubjectNames, projection: Arc<Projection>) -> Self {
        Self {
            connection,
            names,
            bucket: OnceCell::new(),
            known: Followed::new(MAX_LISTS),
            pauses: Pauses::new(projection),
            has_news: AtomicBool::new(false),
        }
    }

    /// Whether the queue is listed.
    pub fn names(&self, worker_type: &WorkerType, queue: &Queue) -> bool {
        let list = self.known.get(worker_type);
        list.is_some_and(|list| list.names(queue))
    }

    /// All of them, also empty ones of types whose list was removed.
    pub fn all(&self) -> HashMap<WorkerType, Known> {
        let heard = self.known.all_heard().into_iter();
        heard
            .map(|(worker_type, heard)| (worker_type, heard.into()))
            .collect()
    }

    /// Follows the bucket until the task is dropped.
    pub async fn follow(&self) {
        followed_keys::follow(&self.connection, &self.names, self).await;
    }

    /// Whether somebody else has written a list or a pause since the last call.
    pub fn take_news(&self) -> bool {
        self.has_news.swap(false, Ordering::Relaxed)
    }

    fn read(&self, worker_type: &WorkerType, found: Option<&Found>) -> Heard<QueueList> {
        Heard::of(found, |value| {
            let list: QueueList = serde_json::from_slice(value)
                .inspect_err(|error| {
                    tracing::warn!(%worker_type, %error, "the list of queues cannot be read; writing a new one");
                })
                .ok()?;
            Some(list.believed(&self.names, worker_type))
        })
    }

    /// Changes a list, and tries again while other writes come first.
    ///
    /// # Errors
    /// [`ListError`].
    pub async fn change(
        &self,
        worker_type: &WorkerType,
        change: impl Fn(&mut QueueList),
    ) -> Result<(), ListError> {
        let mut known = self.known.heard(worker_type).map(Known::from);
        for _ in 0..TRIES {
            let current = match known.take() {
                Some(known) => known,
                None => self.newest(worker_type).await?,
            };
            let mut list = current.list.clone();
            change(&mut list);
            if list == current.list || self.replace(worker_type, current.revision, list).await? {
                return Ok(());
            }
        }
        Err(ListError::Busy)
    }

    /// Writes a list in the place of this revision. False when another write came first.
    ///
    /// # Errors
    /// [`ListError`].
    pub async fn replace(
        &self,
        worker_type: &WorkerType,
        revision: u64,
        list: QueueList,
    ) -> Result<bool, ListError> {
        let written = serde_json::to_vec(&list).map_err(|error| ListError::Nats(error.into()))?;
        let bucket = self.bucket().await.map_err(ListError::Nats)?;
        let updated = bucket
            .update(queues_key(worker_type), written.into(), revision)
            .await;
        match updated {
            Ok(revision) => {
                let value = Some(list);
                self.known.take(worker_type, Heard { revision, value });
                Ok(true)
            }
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(false),
            Err(error) => Err(ListError::Nats(error.into())),
        }
    }

    /// The list as the bucket has it now.
    ///
    /// # Errors
    /// [`ListError`].
    pub async fn newest(&self, worker_type: &WorkerType) -> Result<Known, ListError> {
        let (key, bucket) = (queues_key(worker_type), self.names.worker_types_bucket());
        // What a copy of the bucket lacks that lags would be removed.
        let bucket = KeyValues::new(self.connection.jetstream.clone(), bucket);
        let found = bucket.read_at_leader(&key).await;
        let found = found.map_err(|error| ListError::Nats(error.into()))?;
        let heard = self.read(worker_type, found.as_ref());
        self.known.take(worker_type, heard.clone());
        Ok(heard.into())
    }

    async fn bucket(&self) -> Result<&Store, async_nats::Error> {
        let open = || async {
            let bucket = self.names.worker_types_bucket();
            self.connection.jetstream.get_key_value(bucket).await
        };
        Ok(self.bucket.get_or_try_init(open).await?)
    }
}

impl Follower for Lists {
    const KEYS: [&'static str; 2] = ["queues.*", "pause.*"];
    const WHAT: &'static str = "queues";

    fn hear(&self, key: &str, found: Found) {
        let name = |name: &str| WorkerType::new(name).ok();
        let is_new = if let Some(worker_type) = worker_type_of_pause_key(key).and_then(name) {
            self.pauses.hear(&worker_type, &found)
        } else if let Some(worker_type) = worker_type_of_queues_key(key).and_then(name) {
            let heard = self.read(&worker_type, Some(&found));
            self.known.take(&worker_type, heard)
        } else {
            false
        };
        if is_new {
            self.has_news.store(true, Ordering::Relaxed);
        }
    }

    /// The duty writes lists again.
    fn lost(&self) -> Vec<(String, Bytes)> {
        self.pauses.lost()
    }

    fn clear(&self) {
        self.known.clear();
        self.pauses.clear();
    }
}

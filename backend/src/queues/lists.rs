//! The lists of queues in the bucket of worker types: what they say, and changing them.
//!
//! Several backends change them at the same time. Each write names the revision that it replaces,
//! and the server refuses it when another one came first.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::kv::{Entry, EntryError, Operation, Store, UpdateErrorKind};
use futures::StreamExt;
use ktrdr_bus::nats::Connection;
use ktrdr_bus::stream_identity;
use ktrdr_protocol::id::{Queue, WorkerType};
use ktrdr_protocol::queue_list::{QueueList, queues_key, worker_type_of_queues_key};
use ktrdr_protocol::subject::SubjectNames;
use parking_lot::RwLock;
use tokio::sync::OnceCell;

/// The keys of all lists.
const ALL_LISTS: &str = "queues.*";

/// Most lists that are kept. There are fewer worker types.
const MAX_LISTS: usize = 1_000;

/// How often a change is tried while other writes come first.
const TRIES: usize = 8;

/// Pause before an interrupted watch of the bucket is tried again.
const PAUSE: Duration = Duration::from_millis(500);

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

impl From<EntryError> for ListError {
    fn from(error: EntryError) -> Self {
        Self::Nats(error.into())
    }
}

/// A list with its revision; 0 when there was never one.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// The revision to replace.
    pub revision: u64,
    /// The list.
    pub list: QueueList,
}

/// All lists, as far as this backend has heard.
pub struct Lists {
    connection: Connection,
    names: SubjectNames,
    bucket: OnceCell<Store>,
    known: RwLock<HashMap<WorkerType, Known>>,
    /// Whether somebody else has written a list since the last [`Self::take_news`].
    has_news: AtomicBool,
}

impl Lists {
    /// Knows nothing yet.
    pub fn new(connection: Connection, names: SubjectNames) -> Self {
        Self {
            connection,
            names,
            bucket: OnceCell::new(),
            known: RwLock::default(),
            has_news: AtomicBool::new(false),
        }
    }

    /// Whether the queue is listed.
    pub fn names(&self, worker_type: &WorkerType, queue: &Queue) -> bool {
        let known = self.known.read();
        known
            .get(worker_type)
            .is_some_and(|known| known.list.names(queue))
    }

    /// All of them.
    pub fn all(&self) -> HashMap<WorkerType, Known> {
        self.known.read().clone()
    }

    /// Follows the bucket until the task is dropped.
    pub async fn follow(&self) {
        loop {
            let watching = Box::pin(self.watch());
            if let Some(Err(error)) = self.connection.while_up(watching).await {
                tracing::warn!(%error, "reading the lists of queues was interrupted; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn watch(&self) -> Result<(), async_nats::Error> {
        let bucket = self.bucket().await?;
        let (jetstream, stream) = (&self.connection.jetstream, bucket.stream_name.as_str());
        let identity = stream_identity::identity(jetstream, stream).await?;
        // The bucket may be another one than before, with lower revisions.
        self.known.write().clear();

        let mut updates = bucket.watch_with_history(ALL_LISTS).await?;
        let follow = async {
            while let Some(update) = updates.next().await {
                self.apply(&update?);
            }
            Ok(())
        };
        tokio::select! {
            followed = follow => followed,
            () = stream_identity::replaced(jetstream, stream, identity) => Ok(()),
        }
    }

    fn apply(&self, update: &Entry) {
        let worker_type = worker_type_of_queues_key(&update.key);
        let Some(worker_type) = worker_type.and_then(|name| WorkerType::new(name).ok()) else {
            return;
        };
        let found = self.read(&worker_type, update);
        if self.remember(&worker_type, found) {
            self.has_news.store(true, Ordering::Relaxed);
        }
    }

    /// Whether somebody else has written a list since the last call.
    pub fn take_news(&self) -> bool {
        self.has_news.swap(false, Ordering::Relaxed)
    }

    fn read(&self, worker_type: &WorkerType, entry: &Entry) -> Known {
        let list = if entry.operation == Operation::Put {
            serde_json::from_slice::<QueueList>(&entry.value).unwrap_or_else(|error| {
                tracing::warn!(%worker_type, %error, "the list of queues cannot be read; writing a new one");
                QueueList::default()
            })
        } else {
            QueueList::default()
        };
        Known {
            revision: entry.revision,
            list: list.believed(&self.names, worker_type),
        }
    }

    /// Keeps what was found. False when something newer was known, or the same.
    fn remember(&self, worker_type: &WorkerType, found: Known) -> bool {
        let mut known = self.known.write();
        let has_room = known.len() < MAX_LISTS || known.contains_key(worker_type);
        let is_newer = known
            .get(worker_type)
            .is_none_or(|known| known.revision < found.revision);
        if has_room && is_newer {
            known.insert(worker_type.clone(), found);
        }
        has_room && is_newer
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
        let mut known = self.known.read().get(worker_type).cloned();
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
                self.remember(worker_type, Known { revision, list });
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
        let bucket = self.bucket().await.map_err(ListError::Nats)?;
        let entry = bucket.entry(queues_key(worker_type)).await?;
        let found = entry.map_or_else(Known::default, |entry| self.read(worker_type, &entry));
        self.remember(worker_type, found.clone());
        Ok(found)
    }

    async fn bucket(&self) -> Result<&Store, async_nats::Error> {
        let open = || async {
            let bucket = self.names.worker_types_bucket();
            self.connection.jetstream.get_key_value(bucket).await
        };
        Ok(self.bucket.get_or_try_init(open).await?)
    }
}

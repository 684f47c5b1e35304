//! The queues of all worker types: making their consumers, and listing them for the workers.
//!
//! The problem: a start must find a consumer for its queue, and must not wait for that each time.
//! Consumers are few, so unused ones must go away again, while other backends publish starts. And a
//! start that was published is never lost.
//!
//! How it is solved: requests ask for queues of a closed set ([`ktrdr_protocol::queue_class`]). The
//! first start of a queue makes its consumer and lists it; later ones find it in memory. A start
//! may all the same be published while another backend removes the consumer. The start request is
//! in the stream then, every backend reads it there, and the duty [`crate::duties`] makes the
//! consumer again for every queue with an operation that has not ended. So nothing depends on who
//! was first.
//!
//! A consumer that is made again delivers from the oldest operation of its queue that has not
//! ended ([`Queues::first_needed`]). Otherwise each return of a queue would hand out all requests
//! that the stream retains.
//!
//! Rejected: a lock between starts and removals; it would cost each start a round trip.
//!
//! | module | holds |
//! |---|---|
//! | [`lists`] | the lists of queues in the bucket of worker types |
//! | [`pauses`] | which worker types have paused queues |
//! | [`room`] | how many consumers there are, and may be |

pub mod lists;
pub mod pauses;
pub mod room;

use ktrdr_bus::nats::Connection;
use ktrdr_bus::queues;
use ktrdr_bus::topology::TopologyError;
use ktrdr_protocol::id::{Queue, WorkerType};
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::requirements::Requirements;
use ktrdr_protocol::subject::SubjectNames;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;

use self::lists::Lists;
use self::room::{Demand, NoRoom, Room};
use crate::projection::Projection;
use crate::settings_in_force::SettingsInForce;

/// Why a queue cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// There is no room for another consumer.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The consumer could not be made.
    #[error(transparent)]
    Topology(#[from] TopologyError),
}

/// Makes queues and knows which exist.
pub struct Queues {
    connection: Connection,
    names: SubjectNames,
    settings: Arc<SettingsInForce>,
    projection: Arc<Projection>,
    /// Queues whose consumer is known to exist, and since which connection and stream: a broker
    /// that came back, or a new stream, may have lost it.
    made: Mutex<HashMap<(WorkerType, Queue), (u64, u64)>>,
    /// Where the consumers begin that this backend has seen.
    begins: Mutex<HashMap<(WorkerType, Queue), Begin>>,
    /// Held while a consumer is made or removed: the server mixes them up when it does both to one
    /// consumer at the same time. Other backends still may, so what comes of it is mended, too.
    pub changing: tokio::sync::Mutex<()>,
    /// The lists of queues.
    pub lists: Lists,
    /// The number of consumers.
    pub room: Room,
}

/// Where a consumer begins in which stream.
#[derive(Debug, Clone, Copy)]
struct Begin {
    generation: u64,
    from: Option<u64>,
}

impl Queues {
    /// Makes queues with the lease in force over this connection.
    pub fn new(
        connection: Connection,
        names: SubjectNames,
        settings: Arc<SettingsInForce>,
        projection: Arc<Projection>,
    ) -> Self {
        Self {
            lists: Lists::new(connection.clone(), names.clone(), projection.clone()),
            connection,
            names,
            settings,
            projection,
            made: Mutex::default(),
            begins: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            room: Room::default(),
        }
    }

    /// Which connection and stream a consumer belongs to.
    pub fn epoch(&self) -> (u64, u64) {
        let connection = self.connection.link.borrow().epoch;
        (connection, self.projection.generation())
    }

    /// Makes the queue for a start, unless it is known to exist.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn ensure(&self, worker_type: &WorkerType, queue: &Queue) -> Result<(), QueueError> {
        let demand = if is_any(queue) {
            Demand::Certain
        } else {
            Demand::Possible
        };
        self.make(worker_type, queue, demand).await
    }

    /// Makes the queue also when it was known to exist and is not listed: it was removed, or is of
    /// an earlier version.
    ///
    /// # Errors
    /// [`QueueError`].
    pub async fn repair(
        &self,
        worker_type: &WorkerType,
        queue: &Queue,
        demand: Demand,
    ) -> Result<(), QueueError> {
        if !self.lists.names(worker_type, queue) {
            self.forget(worker_type, queue);
        }
        self.make(worker_type, queue, demand).await
    }

    /// Lets the next start of this queue look whether its consumer exists.
    pub fn forget(&self, worker_type: &WorkerType, queue: &Queue) {
        let key = (worker_type.clone(), queue.clone());
        self.made.lock().remove(&key);
    }

    /// Lets the next start of this queue make another consumer: this one is removed.
    pub fn note_removed(&self, worker_type: &WorkerType, queue: &Queue) {
        self.forget(worker_type, queue);
        let key = (worker_type.clone(), queue.clone());
        self.begins.lock().remove(&key);
    }

    async fn make(
        &self,
        worker_type: &WorkerType,
        queue: &Queue,
        demand: Demand,
    ) -> Result<(), QueueError> {
        let key = (worker_type.clone(), queue.clone());
        let is_made = |epoch| self.made.lock().get(&key) == Some(&epoch);
        if is_made(self.epoch()) {
            return Ok(());
        }

        let _changing = self.changing.lock().await;
        let epoch = self.epoch();
        if is_made(epoch) {
            return Ok(());
        }
        let is_new = !self.lists.names(worker_type, queue);
        if is_new {
            self.room.check(demand)?;
        }

        let generation = epoch.1;
        let seen = self.begins.lock().get(&key).copied();
        let from = match seen {
            Some(begin) if begin.generation == generation => begin.from,
            _ if is_any(queue) => None,
            _ => self.first_needed(worker_type, queue).await?,
        };
        let (jetstream, names) = (&self.connection.jetstream, &self.names);
        let in_force = self.settings.get().lease;
        // By the leader's word: this backend may not have heard yet of a pause that another one
        // has confirmed.
        let pause = self.newest_pause(worker_type).await;
        let pause = pause.map_err(|source| TopologyError::Nats {
            what: format!("the pause of the queues of {worker_type}"),
            source: source.into(),
        })?;
        let found =
            queues::ensure(jetstream, names, worker_type, queue, in_force, from, pause).await?;
        // One that came meanwhile may have missed the new consumer.
        let now = self.lists.pauses.of(worker_type);
        if let Some(pause) = now.filter(|now| Some(*now) != pause) {
            let consumer = names.consumer(worker_type, queue);
            queues::pause(jetstream, names, &consumer, pause.end()).await?;
        }
        // A consumer whose lease is still to be shortened; workers must keep to the shorter one.
        let lease = found.lease.min(in_force);
        if is_new {
            self.room.add();
        }

        // Workers follow the list, so the consumer comes first. A list that cannot be written now
        // is written by the duty.
        let listed = self
            .lists
            .change(worker_type, |list| {
                list.set(names, worker_type, queue, lease);
            })
            .await;
        if let Err(error) = listed {
            tracing::warn!(%worker_type, %queue, %error, "the queue could not be listed for workers; trying again");
        }
        let begin = Begin {
            generation,
            from: found.from,
        };
        self.begins.lock().insert(key.clone(), begin);
        self.made.lock().insert(key, epoch);
        Ok(())
    }

    /// The sequence from which a consumer that is made now must deliver; `None` for all.
    ///
    /// Start requests before it are of operations that have ended, as far as this backend has read.
    /// Everything that it has not read yet comes after it. That holds only for the stream that the
    /// projection has read, so another one is delivered from its beginning.
    async fn first_needed(
        &self,
        worker_type: &WorkerType,
        queue: &Queue,
    ) -> Result<Option<u64>, TopologyError> {
        let stream = self
            .connection
            .jetstream
            .get_stream(self.names.stream())
            .await
            .map_err(|source| TopologyError::Nats {
                what: format!("stream {}", self.names.stream()),
                source: source.into(),
            })?;
        let created = stream.cached_info().created.unix_timestamp_nanos();
        let origin = Origin::Queued(queue.clone());
        Ok(self.projection.first_needed(created, worker_type, &origin))
    }
}

/// Whether it is the queue without requirements, which a worker type always has.
pub fn is_any(queue: &Queue) -> bool {
    Requirements::from_queue(queue.as_str()).is_some_and(|requirements| requirements.is_any())
}

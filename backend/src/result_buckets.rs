//! The object stores of large results: one for each worker type, and the one that workers of version
//! 0.1.0 share.

use std::collections::{BTreeSet, HashMap};

use async_nats::jetstream::context::ObjectStoreError;
use async_nats::jetstream::object_store::ObjectStore;
use ktrdr_bus::nats::Connection;
use ktrdr_bus::stream_settings::StreamSettings;
use ktrdr_bus::topology::{self, TopologyError};
use ktrdr_protocol::id::WorkerType;
use ktrdr_protocol::subject::SubjectNames;
use parking_lot::Mutex;

/// The buckets that were needed so far.
#[derive(Default)]
pub struct ResultBuckets {
    opened: Mutex<HashMap<String, ObjectStore>>,
    /// The worker types whose bucket was found, and over which connection: a server that came back
    /// may have lost them.
    provided: Mutex<(u64, BTreeSet<WorkerType>)>,
}

impl ResultBuckets {
    /// Creates the bucket of a worker type, unless it was done before.
    ///
    /// # Errors
    /// [`TopologyError`].
    pub async fn provide(
        &self,
        connection: &Connection,
        names: &SubjectNames,
        settings: &StreamSettings,
        worker_type: &WorkerType,
    ) -> Result<(), TopologyError> {
        let epoch = connection.link.borrow().epoch;
        {
            let mut provided = self.provided.lock();
            if provided.0 != epoch {
                *provided = (epoch, BTreeSet::new());
            }
            if provided.1.contains(worker_type) {
                return Ok(());
            }
        }
        topology::ensure_results_of(&connection.jetstream, names, settings, worker_type).await?;
        self.provided.lock().1.insert(worker_type.clone());
        Ok(())
    }

    /// A bucket; asks the server for it the first time.
    ///
    /// # Errors
    /// When there is none, or NATS does not answer.
    pub async fn open(
        &self,
        connection: &Connection,
        bucket: &str,
    ) -> Result<ObjectStore, ObjectStoreError> {
        let known = self.opened.lock().get(bucket).cloned();
        if let Some(store) = known {
            return Ok(store);
        }

        let store = connection.jetstream.get_object_store(bucket).await?;
        let mut opened = self.opened.lock();
        opened.insert(bucket.to_owned(), store.clone());
        Ok(store)
    }
}

//! The object stores of large results: one for each worker type, and the one that workers of version
//! 0.1.0 share.

use std::collections::HashMap;

use async_nats::jetstream::context::ObjectStoreError;
use async_nats::jetstream::object_store::ObjectStore;
use ktrdr_bus::nats::Connection;
use parking_lot::Mutex;

/// The buckets that were needed so far.
#[derive(Default)]
pub struct ResultBuckets {
    opened: Mutex<HashMap<String, ObjectStore>>,
}

impl ResultBuckets {
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

//! The catalogue: the worker types, as the workers publish them into a KV bucket. It says which
//! domain in the REST paths is which worker type, and holds the compiled schemas that start
//! requests are checked against. A new worker type appears here without a rebuild.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::kv::{Entry, Operation};
use futures::StreamExt;
use ktrdr_bus::nats::Connection;
use ktrdr_bus::telemetry::short;
use ktrdr_http::schema::Schema;
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_protocol::worker::WorkerTypeEntry;
use parking_lot::RwLock;

/// Pause before an interrupted watch of the bucket is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Path segments of the REST interface itself, which no domain may use.
const RESERVED_DOMAINS: [&str; 7] = [
    "operations",
    "workers",
    "worker-types",
    "health",
    "ready",
    "events",
    "stats",
];

/// One worker type.
#[derive(Debug)]
pub struct CatalogueEntry {
    /// What its workers published.
    pub published: WorkerTypeEntry,
    /// The compiled request schema. `None` when it cannot be compiled: then only the worker checks
    /// requests.
    pub schema: Option<Schema>,
}

/// All worker types.
#[derive(Debug, Default)]
pub struct Catalogue {
    entries: RwLock<BTreeMap<String, Arc<CatalogueEntry>>>,
    loaded: AtomicBool,
}

/// Why an entry of the bucket is not a worker type.
#[derive(Debug, thiserror::Error)]
enum EntryError {
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("it is the entry of {0}")]
    OtherKey(String),
    #[error("its domain {0:?} cannot be part of a path")]
    Domain(String),
}

impl CatalogueEntry {
    /// Compiles the request schema of a published worker type.
    pub fn new(published: WorkerTypeEntry) -> Self {
        let schema = Schema::compile(&published.request_schema)
            .inspect_err(|error| {
                tracing::warn!(worker_type = %published.worker_type, %error, "the request schema cannot be used; start requests are not checked");
            })
            .ok();
        Self { published, schema }
    }
}

impl Catalogue {
    /// The worker type with this domain. When two types claim it, the first by name has it.
    pub fn by_domain(&self, domain: &str) -> Option<Arc<CatalogueEntry>> {
        self.entries
            .read()
            .values()
            .find(|entry| entry.published.domain == domain)
            .cloned()
    }

    /// A worker type by its name.
    pub fn by_type(&self, worker_type: &str) -> Option<Arc<CatalogueEntry>> {
        self.entries.read().get(worker_type).cloned()
    }

    /// All worker types, by name.
    pub fn all(&self) -> Vec<Arc<CatalogueEntry>> {
        self.entries.read().values().cloned().collect()
    }

    /// Every domain, in order.
    pub fn domains(&self) -> Vec<String> {
        let mut domains: Vec<String> = self
            .entries
            .read()
            .values()
            .map(|entry| entry.published.domain.clone())
            .collect();
        domains.sort();
        domains.dedup();
        domains
    }

    /// Whether everything that the bucket held when watching began has been read.
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::SeqCst)
    }

    /// Follows the bucket until the task is dropped.
    pub async fn follow(&self, connection: &Connection, names: &SubjectNames) {
        loop {
            let watching = Box::pin(self.watch(connection, names));
            if let Some(Err(error)) = connection.while_up(watching).await {
                tracing::warn!(%error, "reading the worker types was interrupted; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn watch(
        &self,
        connection: &Connection,
        names: &SubjectNames,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let bucket = connection
            .jetstream
            .get_key_value(names.worker_types_bucket())
            .await?;
        // Asked before watching: a watcher of an empty bucket delivers nothing that says so.
        let is_empty = bucket.status().await?.values() == 0;
        let mut updates = bucket.watch_with_history(">").await?;
        if is_empty {
            self.entries.write().clear();
            self.loaded.store(true, Ordering::SeqCst);
        }

        while let Some(update) = updates.next().await {
            let update = update?;
            self.apply(&update);
            if update.delta == 0 {
                self.loaded.store(true, Ordering::SeqCst);
            }
        }
        Ok(())
    }

    fn apply(&self, update: &Entry) {
        match update.operation {
            Operation::Put => self.put(&update.key, &update.value),
            Operation::Delete | Operation::Purge => {
                if self.entries.write().remove(&update.key).is_some() {
                    tracing::info!(worker_type = update.key, "worker type removed");
                }
            }
        }
    }

    fn put(&self, key: &str, value: &[u8]) {
        let published = match read(key, value) {
            Ok(published) => published,
            Err(error) => {
                tracing::warn!(key, %error, "skipping a worker type");
                return;
            }
        };
        let mut entries = self.entries.write();
        if entries
            .get(key)
            .is_some_and(|known| known.published == published)
        {
            return;
        }

        let claims_the_same = |other: &&Arc<CatalogueEntry>| {
            other.published.domain == published.domain
                && other.published.worker_type.as_str() != key
        };
        if let Some(other) = entries.values().find(claims_the_same) {
            tracing::warn!(domain = published.domain, one = %other.published.worker_type, other = key, "two worker types claim one domain");
        }
        tracing::info!(
            worker_type = key,
            domain = published.domain,
            version = published.version,
            "worker type"
        );
        entries.insert(key.to_owned(), Arc::new(CatalogueEntry::new(published)));
    }
}

/// Reads the entry of the bucket at `key`.
fn read(key: &str, value: &[u8]) -> Result<WorkerTypeEntry, EntryError> {
    let published: WorkerTypeEntry =
        serde_json::from_slice(value).map_err(|error| EntryError::Unreadable(short(&error)))?;
    if published.worker_type.as_str() != key {
        return Err(EntryError::OtherKey(published.worker_type.to_string()));
    }
    let domain = &published.domain;
    if !ktrdr_protocol::id::is_name(domain) || RESERVED_DOMAINS.contains(&domain.as_str()) {
        return Err(EntryError::Domain(domain.clone()));
    }
    Ok(published)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn put(catalogue: &Catalogue, worker_type: &str, domain: &str) {
        let entry = json!({
            "worker_type": worker_type, "domain": domain, "description": "", "version": "1", "result_schema": {},
            "request_schema": {
                "type": "object", "required": ["source_file"], "additionalProperties": false,
                "properties": {"source_file": {"type": "string"}, "operations": {"type": "array", "items": {"type": "string"}}}
            }
        });
        catalogue.put(worker_type, entry.to_string().as_bytes());
    }

    #[test]
    fn violations_name_the_place() {
        let catalogue = Catalogue::default();
        put(&catalogue, "data_processing", "data-processing");
        let schema = catalogue
            .by_domain("data-processing")
            .unwrap()
            .schema
            .clone()
            .unwrap();
        assert_eq!(
            schema.violations("", &json!({"source_file": "a", "operations": ["clean"]})),
            []
        );
        let found = schema.violations("", &json!({"operations": ["clean", 7], "x": 1}));
        let mut paths: Vec<&str> = found
            .iter()
            .map(|violation| violation.path.as_str())
            .collect();
        paths.sort_unstable();
        assert_eq!(paths, ["", "", "/operations/1"], "{found:?}");
        assert!(
            found
                .iter()
                .any(|violation| violation.message.contains("source_file")),
            "{found:?}"
        );
    }

    #[test]
    fn what_cannot_be_a_type_is_skipped() {
        let catalogue = Catalogue::default();
        put(&catalogue, "a", "operations");
        put(&catalogue, "b", "not a path");
        catalogue.put("c", b"{");
        catalogue.put("d", json!({"worker_type": "e"}).to_string().as_bytes());
        assert!(catalogue.all().is_empty());
        put(&catalogue, "f", "fine");
        assert_eq!(catalogue.domains(), ["fine"]);
    }
}

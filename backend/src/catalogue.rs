//! The worker types, as the workers publish them into a KV bucket: which domain in the REST paths is which type, and the
//! compiled schemas that start requests are checked against. A new worker type appears here with no rebuild.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::kv::Operation;
use futures::StreamExt;
use ktrdr_bus::nats::Connection;
use ktrdr_bus::telemetry::short;
use ktrdr_http::schema::Schema;
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_protocol::worker::WorkerTypeEntry;
use parking_lot::RwLock;

/// Pause before the bucket is watched again.
const PAUSE: Duration = Duration::from_millis(500);

/// Paths of the API's own, which a domain would hide or be hidden by.
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
    /// As it was published.
    pub published: WorkerTypeEntry,
    /// Its request schema; `None` when it cannot be compiled: the worker then decides alone.
    pub schema: Option<Schema>,
}

/// All worker types.
#[derive(Debug)]
pub struct Catalogue {
    entries: RwLock<BTreeMap<String, Arc<CatalogueEntry>>>,
    loaded: AtomicBool,
}

impl CatalogueEntry {
    /// Compiles its schema.
    pub fn new(published: WorkerTypeEntry) -> Self {
        let schema = Schema::compile(&published.request_schema)
            .inspect_err(|error| {
                tracing::warn!(worker_type = %published.worker_type, %error, "the request schema cannot be used; requests go unchecked");
            })
            .ok();
        Self { published, schema }
    }
}

impl Default for Catalogue {
    fn default() -> Self {
        Self {
            entries: RwLock::default(),
            loaded: AtomicBool::new(false),
        }
    }
}

impl Catalogue {
    /// The type behind a domain. When two types claim it, the first by name has it.
    pub fn by_domain(&self, domain: &str) -> Option<Arc<CatalogueEntry>> {
        self.entries
            .read()
            .values()
            .find(|entry| entry.published.domain == domain)
            .cloned()
    }

    /// A type by its name.
    pub fn by_type(&self, worker_type: &str) -> Option<Arc<CatalogueEntry>> {
        self.entries.read().get(worker_type).cloned()
    }

    /// All types, by name.
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

    /// Whether everything that is in the bucket has been read.
    pub fn is_loaded(&self) -> bool {
        self.loaded.load(Ordering::SeqCst)
    }

    /// Follows the bucket until the task is dropped.
    pub async fn follow(&self, connection: &Connection, names: &SubjectNames) {
        loop {
            connection.up().await;
            if let Err(error) = self.watch(connection, names).await {
                tracing::warn!(%error, "reading the worker types was interrupted; going on");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn watch(
        &self,
        connection: &Connection,
        names: &SubjectNames,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let mut link = connection.link.clone();
        link.mark_unchanged();
        let bucket = connection
            .jetstream
            .get_key_value(names.worker_types_bucket())
            .await?;
        // Asked before watching: an empty bucket gives the watcher nothing that says "that was all".
        let empty = bucket.status().await?.values() == 0;
        let mut updates = bucket.watch_with_history(">").await?;
        if empty {
            self.entries.write().clear();
            self.loaded.store(true, Ordering::SeqCst);
        }
        loop {
            // Both arms are cancel safe: an entry that was not returned stays in the watcher.
            let update = tokio::select! {
                update = updates.next() => match update {
                    Some(update) => update?,
                    None => return Ok(()),
                },
                changed = link.changed() => {
                    changed?;
                    return Ok(());
                }
            };
            match update.operation {
                Operation::Put => self.put(&update.key, &update.value),
                Operation::Delete | Operation::Purge => {
                    if self.entries.write().remove(&update.key).is_some() {
                        tracing::info!(worker_type = update.key, "worker type removed");
                    }
                }
            }
            if update.delta == 0 {
                self.loaded.store(true, Ordering::SeqCst);
            }
        }
    }

    fn put(&self, key: &str, value: &[u8]) {
        let entry: WorkerTypeEntry = match serde_json::from_slice(value) {
            Ok(entry) => entry,
            Err(error) => {
                tracing::warn!(
                    key,
                    error = short(&error),
                    "skipping a worker type that cannot be read"
                );
                return;
            }
        };
        if entry.worker_type.as_str() != key {
            tracing::warn!(key, worker_type = %entry.worker_type, "skipping a worker type under another one's key");
            return;
        }
        if !ktrdr_protocol::id::is_name(&entry.domain)
            || RESERVED_DOMAINS.contains(&entry.domain.as_str())
        {
            tracing::warn!(
                key,
                domain = entry.domain,
                "skipping a worker type whose domain cannot be part of a path"
            );
            return;
        }
        let mut entries = self.entries.write();
        if entries
            .get(key)
            .is_some_and(|known| known.published == entry)
        {
            return;
        }
        if let Some(other) = entries.values().find(|other| {
            other.published.domain == entry.domain && other.published.worker_type.as_str() != key
        }) {
            tracing::warn!(domain = entry.domain, one = %other.published.worker_type, other = key, "two worker types claim one domain");
        }
        tracing::info!(
            worker_type = key,
            domain = entry.domain,
            version = entry.version,
            "worker type"
        );
        entries.insert(key.to_owned(), Arc::new(CatalogueEntry::new(entry)));
    }
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

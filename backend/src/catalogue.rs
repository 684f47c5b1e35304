//! The catalogue: the worker types, as the workers publish them into a KV bucket. It says which
//! domain in the REST paths is which worker type, and holds the compiled schemas that start
//! requests are checked against. A new worker type appears here without a rebuild.
//!
//! Nothing in an entry is believed without bounds: [`ktrdr_http::schema`] has those of schemas, and a
//! domain stays with the worker type that had it first. Backends record that in the same bucket, at
//! the key [`domain_key`], with a write that only the first of them can do. So all backends agree,
//! also after a restart, and although a worker type's own entry is written again with each version.

mod restore;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::kv::{Entry, Operation, Store, Watch};
use futures::StreamExt;
use ktrdr_bus::nats::Connection;
use ktrdr_bus::stream_identity;
use ktrdr_bus::telemetry::short;
use ktrdr_http::schema::cost::{MAX_BYTES, length};
use ktrdr_http::schema::{Schema, UnusableSchema};
use ktrdr_protocol::id::WorkerType;
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_protocol::worker::{WorkerTypeEntry, domain_key, domain_of_key, is_domain};
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tokio::sync::{Notify, OnceCell};

use crate::error::ApiError;

/// Pause before an interrupted watch of the bucket is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Most worker types.
const MAX_TYPES: usize = 200;

/// Most records of the owners of domains; nothing removes one, because a domain may come back.
const MAX_CLAIMS: usize = 2 * MAX_TYPES;

/// Longest description of a worker type that is kept, in characters.
const MAX_DESCRIPTION: usize = 4096;

/// Longest version of a worker type that is kept, in characters.
const MAX_VERSION: usize = 128;

/// How long the record of a domain's owner may take to be written. A backend that may not write
/// there goes on without: the owner is then the oldest entry.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(1);

/// One worker type.
#[derive(Debug, Clone)]
pub struct CatalogueEntry {
    /// What its workers published, without what is too large.
    pub published: WorkerTypeEntry,
    /// The compiled request schema, or why there is none. Compiled beside the catalogue, which does
    /// not wait for it.
    schema: Arc<OnceCell<Result<Schema, UnusableSchema>>>,
    /// The worker type that has the domain, when it is another one.
    pub domain_owner: Option<WorkerType>,
    /// The revision of the bucket at which it was published.
    revision: u64,
    /// How many bytes its schemas have as text.
    schema_bytes: usize,
}

impl CatalogueEntry {
    /// The schema that start requests are checked against, once it is compiled.
    ///
    /// # Errors
    /// 503 `schema_unusable`: what cannot be checked is not started.
    pub async fn usable_schema(&self) -> Result<Schema, ApiError> {
        self.compiled().await.clone().map_err(|reason| {
            ApiError::schema_unusable(self.published.worker_type.as_str(), &reason)
        })
    }

    /// How many bytes it has in a document, about.
    pub fn size(&self) -> usize {
        const FIELDS: usize = 512;

        FIELDS + self.published.description.len() + self.schema_bytes
    }

    /// Why the schema cannot be used, if that is known.
    pub fn schema_error(&self) -> Option<&UnusableSchema> {
        self.schema.get()?.as_ref().err()
    }

    async fn compiled(&self) -> &Result<Schema, UnusableSchema> {
        let compile = || Schema::compile_apart(self.published.request_schema.clone());
        self.schema.get_or_init(compile).await
    }
}

/// All worker types.
#[derive(Debug, Default)]
pub struct Catalogue {
    contents: RwLock<Contents>,
    loaded: AtomicBool,
    /// The identity of the bucket that was read last.
    bucket: Mutex<Option<i128>>,
    /// Wakes the duty that looks after the queues: there may be a new worker type.
    pub changed: Notify,
}

#[derive(Debug, Default)]
struct Contents {
    entries: BTreeMap<String, Arc<CatalogueEntry>>,
    /// Recorded owners by domain.
    claims: BTreeMap<String, Claim>,
    /// The worker type that has each domain. Follows from the other two.
    owners: HashMap<String, WorkerType>,
    /// Whether the limit of worker types was logged.
    warned_of_limit: bool,
}

/// The record that a worker type has a domain.
#[derive(Debug, Clone)]
struct Claim {
    worker_type: String,
    revision: u64,
}

/// Why an entry of the bucket is not a worker type.
#[derive(Debug, thiserror::Error)]
enum EntryError {
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("it is the entry of {0}")]
    OtherKey(String),
    #[error("its domain {0:?} cannot be part of a path, or is reserved")]
    Domain(String),
}

impl Contents {
    /// Whether another entry fits.
    fn has_room(&mut self, key: &str) -> bool {
        if self.entries.len() < MAX_TYPES || self.entries.contains_key(key) {
            return true;
        }
        if !self.warned_of_limit {
            self.warned_of_limit = true;
            tracing::warn!(
                key,
                "there are {MAX_TYPES} worker types already; this one and all further ones are left out. Delete the entries of types that are gone"
            );
        }
        false
    }

    /// Decides again which worker type has which domain: the one on record if it still claims the
    /// domain, otherwise the one whose entry is the oldest.
    fn settle(&mut self) {
        let mut owners: HashMap<String, (u64, WorkerType)> = HashMap::new();
        for (key, entry) in &self.entries {
            let domain = &entry.published.domain;
            let is_recorded = self
                .claims
                .get(domain)
                .is_some_and(|claim| claim.worker_type == *key);
            let age = if is_recorded { 0 } else { entry.revision };
            let is_first = owners.get(domain).is_none_or(|(other, _)| age < *other);
            if is_first {
                let owner = (age, entry.published.worker_type.clone());
                owners.insert(domain.clone(), owner);
            }
        }
        self.owners = owners
            .into_iter()
            .map(|(domain, (_, owner))| (domain, owner))
            .collect();

        for entry in self.entries.values_mut() {
            let published = &entry.published;
            let owner = self
                .owners
                .get(&published.domain)
                .filter(|owner| **owner != published.worker_type);
            if entry.domain_owner.as_ref() == owner {
                continue;
            }
            match owner {
                Some(owner) => {
                    tracing::warn!(worker_type = %published.worker_type, domain = published.domain, %owner, "the domain belongs to another worker type; this one has no start route. Give it another domain");
                }
                None => {
                    tracing::info!(worker_type = %published.worker_type, domain = published.domain, "the domain belongs to this worker type now");
                }
            }
            let owner = owner.cloned();
            Arc::make_mut(entry).domain_owner = owner;
        }
    }

    /// The owners that are not on record, each with the revision of the record to replace.
    fn unrecorded(&self) -> Vec<(String, WorkerType, Option<u64>)> {
        let mut room = MAX_CLAIMS.saturating_sub(self.claims.len());
        let mut found = Vec::new();
        for (domain, owner) in &self.owners {
            match self.claims.get(domain) {
                Some(claim) if claim.worker_type == owner.as_str() => {}
                Some(claim) => found.push((domain.clone(), owner.clone(), Some(claim.revision))),
                None if room > 0 => {
                    room -= 1;
                    found.push((domain.clone(), owner.clone(), None));
                }
                None => {}
            }
        }
        found
    }
}

impl Catalogue {
    /// The worker type that has this domain.
    pub fn by_domain(&self, domain: &str) -> Option<Arc<CatalogueEntry>> {
        let contents = self.contents.read();
        let owner = contents.owners.get(domain)?;
        contents.entries.get(owner.as_str()).cloned()
    }

    /// A worker type by its name.
    pub fn by_type(&self, worker_type: &str) -> Option<Arc<CatalogueEntry>> {
        self.contents.read().entries.get(worker_type).cloned()
    }

    /// All worker types, by name.
    pub fn all(&self) -> Vec<Arc<CatalogueEntry>> {
        self.contents.read().entries.values().cloned().collect()
    }

    /// The domains of the worker types that `is_shown` names, in order.
    pub fn domains(&self, is_shown: impl Fn(&WorkerType) -> bool) -> Vec<String> {
        let contents = self.contents.read();
        let shown = contents.owners.iter().filter(|(_, owner)| is_shown(owner));
        let mut domains: Vec<String> = shown.map(|(domain, _)| domain.clone()).collect();
        domains.sort();
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
        let (jetstream, stream) = (&connection.jetstream, bucket.stream_name.as_str());
        let identity = stream_identity::identity(jetstream, stream).await?;
        let is_empty = bucket.status().await?.values() == 0;
        let updates = bucket.watch_with_history(">").await?;
        let known = self.bucket.lock().replace(identity);
        if known.is_some_and(|known| known != identity) {
            self.restore(&bucket).await;
        } else if is_empty {
            *self.contents.write() = Contents::default();
        }
        if is_empty {
            self.loaded.store(true, Ordering::SeqCst);
        }
        tokio::select! {
            followed = self.apply_all(&bucket, updates) => followed,
            () = stream_identity::replaced(jetstream, stream, identity) => Ok(()),
        }
    }

    async fn apply_all(
        &self,
        bucket: &Store,
        mut updates: Watch,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        // What this connection has tried to record: another backend may have been faster, and a
        // backend without the permission must not try for ever.
        let mut tried = BTreeSet::new();
        while let Some(update) = updates.next().await {
            let update = update?;
            self.apply(&update);
            if update.delta == 0 {
                self.contents.write().settle();
                self.loaded.store(true, Ordering::SeqCst);
                self.record_owners(bucket, &mut tried).await;
            }
        }
        Ok(())
    }

    /// Writes down who has which domain. Only the first writer succeeds, and everybody hears of it by
    /// the watch.
    async fn record_owners(&self, bucket: &Store, tried: &mut BTreeSet<(String, u64, WorkerType)>) {
        let unrecorded = self.contents.read().unrecorded();
        for (domain, owner, replaces) in unrecorded {
            if !tried.insert((domain.clone(), replaces.unwrap_or(0), owner.clone())) {
                continue;
            }
            let (key, value) = (domain_key(&domain), owner.as_str().to_owned().into());
            let written = async {
                match replaces {
                    Some(revision) => bucket.update(&key, value, revision).await.map(drop).is_ok(),
                    None => bucket.create(&key, value).await.map(drop).is_ok(),
                }
            };
            let is_written = tokio::time::timeout(CLAIM_TIMEOUT, written).await;
            tracing::debug!(domain, %owner, ?is_written, "recorded the owner of a domain");
        }
    }

    fn apply(&self, update: &Entry) {
        let is_put = update.operation == Operation::Put;
        if let Some(domain) = domain_of_key(&update.key) {
            return self.apply_claim(domain, is_put.then_some(&*update.value), update.revision);
        }
        if update.key.contains('.') {
            // No worker type, but something else that backends record, also those of later versions.
            return;
        }
        if is_put {
            self.put(&update.key, &update.value, update.revision);
            return;
        }

        let mut contents = self.contents.write();
        if contents.entries.remove(&update.key).is_some() {
            contents.settle();
            tracing::info!(worker_type = update.key, "worker type removed");
        }
    }

    /// Takes the record of a domain's owner; `None` when it was deleted.
    fn apply_claim(&self, domain: &str, value: Option<&[u8]>, revision: u64) {
        let owner = value
            .and_then(|value| std::str::from_utf8(value).ok())
            .filter(|owner| ktrdr_protocol::id::is_name(owner));
        let mut contents = self.contents.write();
        match owner {
            Some(_)
                if contents.claims.len() >= MAX_CLAIMS && !contents.claims.contains_key(domain) =>
            {
                return;
            }
            Some(owner) if is_domain(domain) => {
                let claim = Claim {
                    worker_type: owner.to_owned(),
                    revision,
                };
                contents.claims.insert(domain.to_owned(), claim);
            }
            _ => {
                contents.claims.remove(domain);
            }
        }
        if self.is_loaded() {
            contents.settle();
        }
    }

    fn put(&self, key: &str, value: &[u8], revision: u64) {
        if !self.contents.write().has_room(key) {
            return;
        }
        let (published, refused) = match read(key, value) {
            Ok(read) => read,
            Err(error) => {
                tracing::warn!(key, %error, "skipping a worker type");
                return;
            }
        };
        let known = self.by_type(key);
        let schema = match (&known, refused) {
            (_, Some(reason)) => Arc::new(OnceCell::new_with(Some(Err(reason)))),
            (Some(known), None)
                if known.published.request_schema == published.request_schema
                    && known.schema_error() != Some(&UnusableSchema::Slow) =>
            {
                known.schema.clone()
            }
            _ => Arc::default(),
        };

        let is_news = known.is_none_or(|known| known.published != published);
        if is_news {
            tracing::info!(
                worker_type = key,
                domain = published.domain,
                version = published.version,
                "worker type"
            );
        }
        let schema_bytes = length(&published.request_schema) + length(&published.result_schema);
        let mut contents = self.contents.write();
        let entry = CatalogueEntry {
            schema_bytes,
            domain_owner: contents
                .entries
                .get(key)
                .and_then(|known| known.domain_owner.clone()),
            published,
            schema,
            revision,
        };
        let entry = Arc::new(entry);
        contents.entries.insert(key.to_owned(), entry.clone());
        // While the bucket is being read, the record of an owner may still come.
        if self.is_loaded() {
            contents.settle();
        }
        drop(contents);

        if is_news {
            self.changed.notify_one();
            tokio::spawn(async move {
                if let Err(error) = entry.compiled().await {
                    tracing::warn!(worker_type = %entry.published.worker_type, %error, "the request schema cannot be used; every start of this worker type is refused");
                }
            });
        }
    }
}

/// Reads the entry of the bucket at `key`. What is too large is left out, and a request schema that
/// is missing for this reason is named as the reason to refuse starts.
fn read(key: &str, value: &[u8]) -> Result<(WorkerTypeEntry, Option<UnusableSchema>), EntryError> {
    let mut published: WorkerTypeEntry =
        serde_json::from_slice(value).map_err(|error| EntryError::Unreadable(short(&error)))?;
    if published.worker_type.as_str() != key {
        return Err(EntryError::OtherKey(short(&published.worker_type)));
    }
    if !is_domain(&published.domain) {
        return Err(EntryError::Domain(short(&published.domain)));
    }

    let bytes = length(&published.request_schema);
    let refused = (bytes > MAX_BYTES).then(|| {
        published.request_schema = Value::Object(serde_json::Map::new());
        UnusableSchema::TooLarge { bytes }
    });
    if length(&published.result_schema) > MAX_BYTES {
        tracing::warn!(
            worker_type = key,
            "the result schema is too large and is not shown"
        );
        published.result_schema = Value::Object(serde_json::Map::new());
    }
    for (text, limit) in [
        (&mut published.description, MAX_DESCRIPTION),
        (&mut published.version, MAX_VERSION),
    ] {
        if let Some((end, _)) = text.char_indices().nth(limit) {
            text.truncate(end);
        }
    }
    Ok((published, refused))
}

#[cfg(test)]
mod tests;

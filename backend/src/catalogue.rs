//! The catalogue: the worker types, as the workers publish them into a KV bucket. It says which
//! domain in the REST paths is which worker type, and holds the compiled schemas that start
//! requests are checked against. A new worker type appears here without a rebuild.
//!
//! Nothing in an entry is believed without bounds: [`ktrdr_http::schema`] has those of schemas, and a
//! domain stays with the worker type that had it first. Backends record that in the same bucket, at
//! the key [`domain_key`], with a write that only the first of them can do. So all backends agree,
//! also after a restart, and although a worker type's own entry is written again with each version.

mod forget;
pub(crate) mod published;
mod restore;
#[cfg(test)]
mod tests;
mod versions;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::jetstream::kv::{Entry, Operation, Store, Watch};
use futures::StreamExt;
use ktrdr_bus::nats::Connection;
use ktrdr_bus::stream_identity;
use ktrdr_bus::telemetry::Repeated;
use ktrdr_http::schema::{CompiledSchemas, LazySchema, Schema, UnusableSchema};
use ktrdr_protocol::id::WorkerType;
use ktrdr_protocol::rest::summary::Summary;
use ktrdr_protocol::schema_digest::SchemaDigest;
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_protocol::worker::{
    WorkerTypeEntry, domain_key, domain_of_key, is_domain, worker_type_of_version_key,
};
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use self::published::{Read, read};
use self::versions::{Alive, Versions};
use crate::error::ApiError;
use crate::summaries::Summaries;

pub use self::versions::HELD_INTERVALS;

/// Pause before an interrupted watch of the bucket is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// Most worker types.
const MAX_TYPES: usize = 200;

/// Most records of the owners of domains; nothing removes one, because a domain may come back.
const MAX_CLAIMS: usize = 2 * MAX_TYPES;

/// How long the record of a domain's owner may take to be written. A backend that may not write
/// there goes on without: the owner is then the oldest entry.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(1);

/// Lines a minute about worker types that come, change or go.
const CHANGE_LINES: u32 = 20;

/// Lines about worker types that come, change or go.
static CHANGED: Repeated = Repeated::per_minute(CHANGE_LINES);

/// Lines about entries that are no worker type.
static SKIPPED: Repeated = Repeated::new();

/// Lines about domains that two worker types claim.
static DOMAIN_TAKEN: Repeated = Repeated::per_minute(CHANGE_LINES);

/// Lines about request schemas that cannot be used.
static UNUSABLE: Repeated = Repeated::per_minute(CHANGE_LINES);

/// One worker type.
#[derive(Debug, Clone)]
pub struct CatalogueEntry {
    /// What its workers published, without what is too large.
    pub published: WorkerTypeEntry,
    /// The request schema as it is compiled when it is needed, or why it cannot be. Compiled beside the
    /// catalogue, which does not wait for it.
    schema: Arc<LazySchema>,
    /// The compiled request schemas of all worker types.
    compiled: Arc<CompiledSchemas>,
    /// How operations of the type are summarised.
    summary: Summary,
    /// The worker type that has the domain, when it is another one.
    pub domain_owner: Option<WorkerType>,
    /// The revision of the bucket at which it was published.
    revision: u64,
}

impl CatalogueEntry {
    /// The schema that start requests are checked against, once it is compiled.
    ///
    /// # Errors
    /// 503 `schema_unusable`: what cannot be checked is not started.
    pub async fn usable_schema(&self) -> Result<Schema, ApiError> {
        self.compiled().await.map_err(|reason| {
            ApiError::schema_unusable(self.published.worker_type.as_str(), &reason)
        })
    }

    /// How many bytes it has in a document, about.
    pub fn size(&self) -> usize {
        const FIELDS: usize = 512;

        let published = &self.published;
        let schemas = [&published.request_schema, &published.result_schema];
        let schemas: usize = schemas.iter().map(|schema| schema.as_str().len()).sum();
        FIELDS + published.description.len() + schemas
    }

    /// Why the schema cannot be used, if that is known.
    pub fn schema_error(&self) -> Option<&UnusableSchema> {
        self.schema.error()
    }

    async fn compiled(&self) -> Result<Schema, UnusableSchema> {
        let text = || self.published.request_schema.clone();
        self.compiled.get(&self.schema, text).await
    }
}

/// All worker types.
#[derive(Debug, Default)]
pub struct Catalogue {
    contents: RwLock<Contents>,
    loaded: AtomicBool,
    /// The identity of the bucket that was read last.
    bucket: Mutex<Option<i128>>,
    /// The revision of the last change that was read.
    heard: watch::Sender<u64>,
    /// Wakes the duty that looks after the queues: there may be a new worker type.
    pub changed: Notify,
    /// How the operations of each type are summarised.
    summaries: Arc<Summaries>,
    /// The compiled request schemas.
    compiled: Arc<CompiledSchemas>,
}

#[derive(Debug, Default)]
struct Contents {
    /// The entry of each type that counts.
    entries: BTreeMap<String, Arc<CatalogueEntry>>,
    /// Everything that was published of each type.
    versions: BTreeMap<String, Versions>,
    alive: Alive,
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

impl Contents {
    /// Whether another entry fits.
    fn has_room(&mut self, key: &str) -> bool {
        if self.versions.len() < MAX_TYPES || self.versions.contains_key(key) {
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
                    if let Some(count) = DOMAIN_TAKEN.note() {
                        tracing::warn!(worker_type = %published.worker_type, domain = published.domain, %owner, count, "the domain belongs to another worker type; this one has no start route. Give it another domain");
                    }
                }
                None => {
                    if let Some(count) = DOMAIN_TAKEN.note() {
                        tracing::info!(worker_type = %published.worker_type, domain = published.domain, count, "the domain belongs to this worker type now");
                    }
                }
            }
            let owner = owner.cloned();
            Arc::make_mut(entry).domain_owner = owner;
        }
    }

    /// Decides again which version of a type counts. Returns the entry if it says something new.
    fn choose(&mut self, key: &str) -> Option<Arc<CatalogueEntry>> {
        let chosen = self.versions.get(key).and_then(|of| of.chosen(&self.alive));
        let Some(chosen) = chosen else {
            if self.entries.remove(key).is_some()
                && let Some(count) = CHANGED.note()
            {
                tracing::info!(worker_type = key, count, "worker type removed");
            }
            return None;
        };
        let known = self.entries.get(key);
        if known.is_some_and(|known| {
            known.revision == chosen.revision && known.published == chosen.published
        }) {
            return None;
        }

        let is_news = known.is_none_or(|known| known.published != chosen.published);
        let mut entry = CatalogueEntry::clone(chosen);
        entry.domain_owner = known.and_then(|known| known.domain_owner.clone());
        let entry = Arc::new(entry);
        self.entries.insert(key.to_owned(), entry.clone());
        is_news.then_some(entry)
    }

    /// The compiled form of a request schema, if it was published before.
    fn known_schema(&self, published: &WorkerTypeEntry) -> Option<Arc<LazySchema>> {
        let of_type = self.versions.get(published.worker_type.as_str())?;
        let mut same = of_type.all().filter(|known| {
            known.published.request_schema == published.request_schema
                && !matches!(
                    known.schema_error(),
                    Some(UnusableSchema::Slow | UnusableSchema::TooLarge { .. })
                )
        });
        same.next().map(|known| known.schema.clone())
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
    /// Knows nothing yet. `summaries` will hear of each schema.
    pub fn new(summaries: Arc<Summaries>) -> Self {
        Self {
            summaries,
            ..Self::default()
        }
    }

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
            self.heard.send_replace(update.revision);
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
        if let Some(worker_type) = worker_type_of_version_key(&update.key) {
            let value = is_put.then_some(&*update.value);
            return self.apply_entry(worker_type, Some(&update.key), value, update.revision);
        }
        if update.key.contains('.') {
            // No worker type, but something else that backends record, also those of later versions.
            return;
        }
        let value = is_put.then_some(&*update.value);
        self.apply_entry(&update.key, None, value, update.revision);
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

    /// Takes an entry of a worker type: that at its own key, or the one at the key of a version.
    /// `None` when it was deleted.
    fn apply_entry(&self, key: &str, version: Option<&str>, value: Option<&[u8]>, revision: u64) {
        let read = match value.map(|value| read(key, value)).transpose() {
            Ok(read) => read,
            Err(error) => {
                if let Some(count) = SKIPPED.note() {
                    tracing::warn!(key, %error, count, "skipping a worker type");
                }
                return;
            }
        };

        let mut contents = self.contents.write();
        if read.is_some() && !contents.has_room(key) {
            return;
        }
        let entry = read.map(|read| {
            let Read {
                published,
                refused,
                summary,
            } = read;
            let schema = match refused {
                Some(reason) => Arc::new(LazySchema::unusable(reason)),
                None => contents.known_schema(&published).unwrap_or_default(),
            };
            Arc::new(CatalogueEntry {
                published,
                schema,
                compiled: self.compiled.clone(),
                summary,
                domain_owner: None,
                revision,
            })
        });
        let of_type = contents.versions.entry(key.to_owned()).or_default();
        match (version, entry) {
            (None, entry) => of_type.plain = entry,
            (Some(version), Some(entry)) => of_type.set(version, entry),
            (Some(version), None) => of_type.remove(version),
        }
        if of_type.all().next().is_none() {
            contents.versions.remove(key);
        }

        let news = contents.choose(key);
        // While the bucket is being read, the record of an owner may still come.
        if self.is_loaded() {
            contents.settle();
        }
        drop(contents);
        self.tell(news);
    }

    /// Takes the versions of all workers that are listed now, each with its worker type. A version
    /// counts for `held` after its last worker was listed.
    pub fn note_alive(
        &self,
        listed: impl IntoIterator<Item = (WorkerType, Option<SchemaDigest>)>,
        now: Instant,
        held: Duration,
    ) {
        let mut contents = self.contents.write();
        contents.alive.note(listed, now, held);
        let several = |versions: &Versions| versions.all().nth(1).is_some();
        let types = contents.versions.iter();
        let types: Vec<String> = types
            .filter(|(_, versions)| several(versions))
            .map(|(key, _)| key.clone())
            .collect();
        let news: Vec<_> = types.iter().map(|key| contents.choose(key)).collect();
        if self.is_loaded() && news.iter().any(Option::is_some) {
            contents.settle();
        }
        drop(contents);
        for news in news {
            self.tell(news);
        }
    }

    /// Says that a worker type has come or changed, and compiles its schema.
    fn tell(&self, news: Option<Arc<CatalogueEntry>>) {
        let Some(entry) = news else {
            return;
        };
        let published = &entry.published;
        self.summaries
            .set(&published.worker_type, entry.summary.clone());
        if let Some(count) = CHANGED.note() {
            tracing::info!(
                worker_type = %published.worker_type,
                domain = published.domain,
                version = published.version,
                schema = published.schema_digest.map(tracing::field::display),
                count,
                "worker type"
            );
        }
        self.changed.notify_one();
        tokio::spawn(async move {
            if let Err(error) = entry.compiled().await
                && let Some(count) = UNUSABLE.note()
            {
                tracing::warn!(worker_type = %entry.published.worker_type, %error, count, "the request schema cannot be used; every start of this worker type is refused");
            }
        });
    }
}

//! The versions of one worker type, and which of them counts.
//!
//! The problem: workers of two versions may run at the same time, in any order of their connections
//! to NATS. All backends should check start requests against the same version, and against none
//! that nobody runs any more.
//!
//! How it is solved: the first worker of a version writes an entry that nobody changes, so entries
//! have an order of their own. The newest one counts that a worker has, as heartbeats tell. A
//! worker that was heard a short while ago counts, too: it may be starting again. So the first
//! worker of a new version decides at once, and after a step back the older version counts when the
//! last worker of the newer one has been gone for [`HELD_INTERVALS`] heartbeats.
//!
//! A worker of the release before writes only the entry at the key of its type. That entry counts
//! while no worker of any version is there, and only such workers are.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use ktrdr_protocol::id::WorkerType;
use ktrdr_protocol::schema_digest::SchemaDigest;
use tokio::time::Instant;

use super::CatalogueEntry;

/// Most versions of a worker type that are known; the newest stay.
const MAX_VERSIONS: usize = 16;

/// How many heartbeat intervals a version counts after its last worker was listed.
pub const HELD_INTERVALS: u32 = 3;

/// Everything that workers have published of one worker type.
#[derive(Debug, Default)]
pub(super) struct Versions {
    /// The entry at the type's own key. Who deletes it removes the type.
    pub(super) plain: Option<Arc<CatalogueEntry>>,
    /// Each version, by the revision at which it came and its key.
    by_age: BTreeMap<(u64, String), Arc<CatalogueEntry>>,
    /// Older ones, by key, each with its revision and digest. They count no more, and are to be removed. All
    /// of them: one that is not known here stays in the bucket. The bucket bounds how many there are.
    surplus: BTreeMap<String, (u64, Option<SchemaDigest>)>,
}

impl Versions {
    /// Takes a version.
    pub(super) fn set(&mut self, key: &str, entry: Arc<CatalogueEntry>) {
        self.remove(key);
        self.by_age.insert((entry.revision, key.to_owned()), entry);
        while self.by_age.len() > MAX_VERSIONS
            && let Some(((revision, key), entry)) = self.by_age.pop_first()
        {
            let digest = entry.published.schema_digest;
            self.surplus.insert(key, (revision, digest));
        }
    }

    /// The keys of old versions that no worker has, each with its revision.
    pub(super) fn to_remove<'a>(
        &'a self,
        worker_type: &'a WorkerType,
        alive: &'a Alive,
    ) -> impl Iterator<Item = (String, u64)> + 'a {
        let surplus = self.surplus.iter();
        surplus
            .filter(|(_, (_, digest))| !alive.has(worker_type, *digest))
            .map(|(key, (revision, _))| (key.clone(), *revision))
    }

    /// Forgets a version that was deleted.
    pub(super) fn remove(&mut self, key: &str) {
        self.by_age.retain(|(_, known), _| known != key);
        self.surplus.remove(key);
    }

    /// All entries, the newest version first and the plain one last.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<CatalogueEntry>> {
        self.by_age.values().rev().chain(&self.plain)
    }

    /// All entries with their keys in the bucket.
    pub(super) fn by_key<'a>(
        &'a self,
        worker_type: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a Arc<CatalogueEntry>)> {
        let versions = self.by_age.iter();
        let versions = versions.map(|((_, key), entry)| (key.as_str(), entry));
        versions.chain(self.plain.iter().map(move |plain| (worker_type, plain)))
    }

    /// The entry that counts; `None` when the type was removed.
    pub(super) fn chosen(&self, alive: &Alive) -> Option<&Arc<CatalogueEntry>> {
        self.plain.as_ref()?;
        let is_alive = |entry: &&Arc<CatalogueEntry>| {
            let published = &entry.published;
            alive.has(&published.worker_type, published.schema_digest)
        };
        self.all().find(is_alive).or_else(|| self.all().next())
    }
}

/// The versions that living workers have. A worker of the release before has none.
#[derive(Debug, Default)]
pub(super) struct Alive {
    /// When workers were listed first.
    since: Option<Instant>,
    /// When each was listed last.
    listed: HashMap<(WorkerType, Option<SchemaDigest>), Instant>,
    /// Whether those that were not listed yet may still come.
    is_early: bool,
}

impl Alive {
    /// Takes the versions of all workers that are listed now.
    pub(super) fn note(
        &mut self,
        listed: impl IntoIterator<Item = (WorkerType, Option<SchemaDigest>)>,
        now: Instant,
        held: Duration,
    ) {
        let since = *self.since.get_or_insert(now);
        self.is_early = now.duration_since(since) < held;
        self.listed
            .extend(listed.into_iter().map(|version| (version, now)));
        self.listed
            .retain(|_, heard| now.duration_since(*heard) < held);
    }

    fn has(&self, worker_type: &WorkerType, digest: Option<SchemaDigest>) -> bool {
        let is_listed = || self.listed.contains_key(&(worker_type.clone(), digest));
        self.since.is_none() || self.is_early || is_listed()
    }
}

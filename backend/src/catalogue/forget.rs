//! Forgetting a worker type that nobody serves: its entry, its versions, and what says that it has a
//! domain.
//!
//! The problem: backends hold worker types as the bucket tells, and a worker of the type may register
//! at the same moment.
//!
//! How it is solved: everything is removed at the revision at which this backend knows it, the entry
//! first: what somebody has written meanwhile stays. All backends hear of it as of any other change. A
//! worker that was overlooked sees that its entry is gone and writes it again.

use std::time::Duration;

use async_nats::jetstream::context::Context;
use ktrdr_bus::key_values::{KeyError, KeyValues};
use ktrdr_protocol::id::WorkerType;
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_protocol::worker::domain_key;

use super::Catalogue;

/// How long to wait until this backend has heard of its own removals.
const READ_YOUR_WRITES: Duration = Duration::from_secs(5);

/// What the bucket holds of a worker type, each with its revision.
#[derive(Debug)]
pub struct Held {
    /// The keys of its entry, if there is one, and of its versions.
    entries: Vec<(String, u64)>,
    /// The domains that are its own by the record.
    domains: Vec<(String, u64)>,
}

impl Catalogue {
    /// Removes old versions that no worker has and that count no more: each build of a worker whose schema
    /// has changed leaves one in the bucket. A worker that comes back writes its own again.
    ///
    /// # Errors
    /// [`KeyError`] when NATS does not answer.
    pub async fn remove_old_versions(
        &self,
        jetstream: Context,
        names: &SubjectNames,
    ) -> Result<(), KeyError> {
        let bucket = KeyValues::new(jetstream, names.worker_types_bucket());
        for (key, revision) in self.old_versions() {
            match bucket.remove_revision(&key, revision).await {
                Ok(_) => tracing::debug!(key, "removed an old version of a worker type"),
                // Another backend was faster, or a worker has come back.
                Err(KeyError::Changed { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn old_versions(&self) -> Vec<(String, u64)> {
        let contents = self.contents.read();
        let types = contents.versions.iter();
        let old = types.filter_map(|(worker_type, versions)| {
            let worker_type = WorkerType::new(worker_type).ok()?;
            let old: Vec<_> = versions.to_remove(&worker_type, &contents.alive).collect();
            Some(old)
        });
        old.flatten().collect()
    }

    /// What the bucket holds of a worker type; `None` when that is nothing.
    pub fn held(&self, worker_type: &str) -> Option<Held> {
        let contents = self.contents.read();
        let versions = contents.versions.get(worker_type);
        let mut entries: Vec<_> = versions
            .into_iter()
            .flat_map(|versions| versions.by_key(worker_type))
            .map(|(key, entry)| (key.to_owned(), entry.revision))
            .collect();
        // The entry first: with it, the type is forgotten.
        entries.sort_by_key(|(key, _)| key != worker_type);
        let claims = contents.claims.iter();
        let domains: Vec<_> = claims
            .filter(|(_, claim)| claim.worker_type == worker_type)
            .map(|(domain, claim)| (domain.clone(), claim.revision))
            .collect();

        let is_there = !entries.is_empty() || !domains.is_empty();
        is_there.then_some(Held { entries, domains })
    }

    /// Removes what is held, and returns the domains that are free now. Waits until this backend has
    /// heard of it.
    ///
    /// # Errors
    /// [`KeyError`] when the first removal fails, for example because somebody has written the entry
    /// meanwhile. What cannot be removed after it does no harm.
    pub async fn forget(
        &self,
        jetstream: Context,
        names: &SubjectNames,
        held: Held,
    ) -> Result<Vec<String>, KeyError> {
        let bucket = KeyValues::new(jetstream, names.worker_types_bucket());
        let mut last = 0;
        for (key, revision) in held.entries {
            match bucket.remove_revision(&key, revision).await {
                Ok(removed) => last = removed,
                Err(error) if last == 0 => return Err(error),
                Err(error) => tracing::debug!(key, %error, "an entry was not removed"),
            }
        }

        let mut free = Vec::new();
        for (domain, revision) in held.domains {
            // Another type may have it already.
            match bucket.remove_revision(&domain_key(&domain), revision).await {
                Ok(removed) => {
                    last = removed;
                    free.push(domain);
                }
                Err(error) if last == 0 => return Err(error),
                Err(error) => tracing::debug!(domain, %error, "the domain was not freed"),
            }
        }

        let mut heard = self.heard.subscribe();
        let heard = heard.wait_for(|revision| *revision >= last);
        // It is removed in any case.
        let _ = tokio::time::timeout(READ_YOUR_WRITES, heard).await;
        Ok(free)
    }
}

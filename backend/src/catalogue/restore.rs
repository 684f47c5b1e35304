//! Writes the worker types into a bucket that was lost and made again.
//!
//! Workers register their type when they connect, and look from time to time whether it is still
//! there. Until then nothing could be started. A backend that ran meanwhile knows the entries, so it
//! writes those that are missing. What a worker or another backend has written first stays.

use async_nats::jetstream::kv::Store;
use ktrdr_http::schema::UnusableSchema;
use ktrdr_protocol::worker::domain_key;

use super::Catalogue;

impl Catalogue {
    /// Writes all known entries and owners of domains that the bucket does not have.
    pub(super) async fn restore(&self, bucket: &Store) {
        let missing = self.in_old_order();
        if missing.is_empty() {
            return;
        }

        let mut restored = 0;
        for (key, value) in missing {
            restored += usize::from(bucket.create(&key, value.into()).await.is_ok());
        }
        tracing::warn!(
            restored,
            "the bucket of worker types was lost; wrote down again what was in it"
        );
    }

    /// The owners of domains, then the entries of all versions, oldest first: the order decides who
    /// has a domain, and which version is the newest.
    pub(super) fn in_old_order(&self) -> Vec<(String, Vec<u8>)> {
        let contents = self.contents.read();
        let owners = contents.claims.iter().map(|(domain, claim)| {
            let owner = claim.worker_type.clone().into_bytes();
            (domain_key(domain), owner)
        });

        let versions = contents.versions.iter();
        let mut entries: Vec<_> = versions
            .flat_map(|(worker_type, versions)| versions.by_key(worker_type))
            // Without its schema an entry would allow everything.
            .filter(|(_, entry)| {
                let error = entry.schema_error();
                !matches!(error, Some(UnusableSchema::TooLarge { .. }))
            })
            .collect();
        entries.sort_by_key(|(_, entry)| entry.revision);
        let entries = entries.into_iter().filter_map(|(key, entry)| {
            let value = serde_json::to_vec(&entry.published).ok()?;
            Some((key.to_owned(), value))
        });
        owners.chain(entries).collect()
    }
}

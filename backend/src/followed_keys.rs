//! Keys of the bucket of worker types that every backend follows: lists of queues, pauses, schedules.
//!
//! The problem: news of a key come in two ways, by the watch and by what this backend reads and writes
//! itself, and in any order. A bucket may be lost and made again, with lower revisions.
//!
//! How it is solved: [`Followed`] keeps the newest revision of each key, also of one that was removed.
//! [`follow`] watches the keys. When the bucket is another one, it first writes into it what the one before
//! held, until all of it is written, and only then forgets the old revisions.

use std::collections::BTreeMap;
use std::time::Duration;

use async_nats::jetstream::kv::{Entry, Operation};
use bytes::Bytes;
use futures::StreamExt;
use ktrdr_bus::key_values::{Found, KeyError, KeyValues};
use ktrdr_bus::nats::Connection;
use ktrdr_bus::stream_identity;
use ktrdr_bus::telemetry::Repeated;
use ktrdr_protocol::subject::SubjectNames;
use parking_lot::RwLock;

/// Pause before an interrupted watch of the bucket is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// One key, as far as it was heard.
#[derive(Debug, Clone)]
pub struct Heard<V> {
    /// Its revision; 0 when nothing was ever written.
    pub revision: u64,
    /// The value; `None` when there is none, or when it cannot be read.
    pub value: Option<V>,
}

impl<V> Default for Heard<V> {
    fn default() -> Self {
        Self {
            revision: 0,
            value: None,
        }
    }
}

impl<V> Heard<V> {
    /// What was read at a key; nothing when nothing was ever written. `read` makes the value of the text.
    pub fn of(found: Option<&Found>, read: impl FnOnce(&Bytes) -> Option<V>) -> Self {
        Self {
            revision: found.map_or(0, |found| found.revision),
            value: found.and_then(|found| found.value.as_ref()).and_then(read),
        }
    }
}

/// What keys of one kind say, as far as this backend has heard.
#[derive(Debug)]
pub struct Followed<K, V> {
    known: RwLock<BTreeMap<K, Heard<V>>>,
    most: usize,
}

impl<K: Ord + Clone, V: Clone> Followed<K, V> {
    /// Knows nothing yet, and keeps at most so many values.
    pub fn new(most: usize) -> Self {
        Self {
            known: RwLock::default(),
            most,
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<V> {
        self.known.read().get(key)?.value.clone()
    }

    /// What was heard of a key; `None` when nothing was.
    pub fn heard(&self, key: &K) -> Option<Heard<V>> {
        self.known.read().get(key).cloned()
    }

    /// All values by key.
    pub fn all(&self) -> Vec<(K, V)> {
        let known = self.known.read();
        let values = known
            .iter()
            .filter_map(|(key, heard)| Some((key.clone(), heard.value.clone()?)));
        values.collect()
    }

    /// What was heard of all keys, also of those that were removed.
    pub fn all_heard(&self) -> BTreeMap<K, Heard<V>> {
        self.known.read().clone()
    }

    /// How many values there are.
    pub fn count(&self) -> usize {
        let known = self.known.read();
        known.values().filter(|heard| heard.value.is_some()).count()
    }

    /// Takes what was heard. False when it is nothing new, or when there is no room for it.
    pub fn take(&self, key: &K, heard: Heard<V>) -> bool {
        let mut known = self.known.write();
        let before = known.get(key);
        if before.map_or(0, |before| before.revision) >= heard.revision {
            return false;
        }

        // Keys that were removed do not take the room of others.
        let (is_value, was_value) = (heard.value.is_some(), before.map(|one| one.value.is_some()));
        let alike = known
            .iter()
            .filter(|(_, one)| one.value.is_some() == is_value);
        if was_value != Some(is_value) && alike.clone().count() >= self.most {
            let oldest = alike.min_by_key(|(_, one)| one.revision);
            match oldest.map(|(key, _)| key.clone()) {
                Some(oldest) if !is_value => known.remove(&oldest),
                _ => return false,
            };
        }
        known.insert(key.clone(), heard);
        true
    }

    /// Forgets everything: the bucket is another one.
    pub fn clear(&self) {
        self.known.write().clear();
    }
}

/// Who follows keys of the bucket.
pub trait Follower {
    /// The keys, with `*` for a part of any text.
    const KEYS: [&'static str; 2];

    /// What they are, for the log.
    const WHAT: &'static str;

    /// Takes what was written at a key.
    fn hear(&self, key: &str, found: Found);

    /// What is to be written into another bucket, in which it is missing, in this order.
    fn lost(&self) -> Vec<(String, Bytes)>;

    /// Forgets everything: the bucket is another one.
    fn clear(&self);
}

/// Follows the bucket until the task is dropped.
pub async fn follow<F: Follower>(connection: &Connection, names: &SubjectNames, follower: &F) {
    // The identity of the bucket that was read last.
    let mut identity = None;
    let interruptions = Repeated::new();
    loop {
        let watching = Box::pin(watch(connection, names, follower, &mut identity));
        if let Some(Err(error)) = connection.while_up(watching).await {
            if let Some(count) = interruptions.note() {
                tracing::warn!(what = F::WHAT, %error, count, "following keys of the bucket of worker types was interrupted; trying again");
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn watch<F: Follower>(
    connection: &Connection,
    names: &SubjectNames,
    follower: &F,
    known: &mut Option<i128>,
) -> Result<(), async_nats::Error> {
    let jetstream = &connection.jetstream;
    let bucket = jetstream.get_key_value(names.worker_types_bucket()).await?;
    let stream = bucket.stream_name.as_str();
    let identity = stream_identity::identity(jetstream, stream).await?;
    if known.is_some_and(|known| known != identity) {
        restore(connection, names, follower).await?;
        follower.clear();
    }
    *known = Some(identity);

    let mut updates = bucket.watch_many_with_history(F::KEYS).await?;
    let hear_all = async {
        while let Some(update) = updates.next().await {
            let update = update?;
            follower.hear(&update.key, found(&update));
        }
        Ok(())
    };
    tokio::select! {
        heard = hear_all => heard,
        () = stream_identity::replaced(jetstream, stream, identity) => Ok(()),
    }
}

fn found(update: &Entry) -> Found {
    Found {
        revision: update.revision,
        value: (update.operation == Operation::Put).then(|| update.value.clone()),
    }
}

/// Writes what the bucket before held. What was ever written at a key stays: another backend was faster,
/// and somebody may have changed it since.
///
/// # Errors
/// [`KeyError`]: not all of it is written.
async fn restore<F: Follower>(
    connection: &Connection,
    names: &SubjectNames,
    follower: &F,
) -> Result<(), KeyError> {
    let bucket = KeyValues::new(connection.jetstream.clone(), names.worker_types_bucket());
    let mut restored = 0;
    for (key, value) in follower.lost() {
        match bucket.update(&key, value, 0).await {
            Ok(_) => restored += 1,
            Err(KeyError::Changed { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    if restored > 0 {
        tracing::warn!(
            what = F::WHAT,
            restored,
            "the bucket of worker types was lost; wrote down again what was in it"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(revision: u64, value: Option<&'static str>) -> Heard<&'static str> {
        Heard { revision, value }
    }

    #[test]
    fn the_newest_revision_counts_in_whatever_order_it_is_heard() {
        let followed = Followed::new(10);

        assert!(followed.take(&"a", heard(5, None)));
        assert!(!followed.take(&"a", heard(3, Some("old"))));
        assert_eq!(followed.get(&"a"), None);
        assert!(followed.take(&"a", heard(6, Some("new"))));
        assert!(!followed.take(&"a", heard(6, Some("again"))));
        assert_eq!(followed.all(), [("a", "new")]);
    }

    #[test]
    fn removed_keys_take_no_room_and_are_forgotten_in_the_end() {
        let followed = Followed::new(3);
        for revision in 0..30 {
            followed.take(
                &(revision / 2),
                heard(revision + 1, (revision % 2 == 0).then_some("x")),
            );
        }
        for key in [100, 101, 102] {
            assert!(followed.take(&key, heard(key, Some("y"))));
        }

        assert_eq!(followed.count(), 3);
        assert_eq!(followed.all_heard().len(), 6);
        assert!(!followed.take(&103, heard(103, Some("no room"))));
        assert!(followed.take(&100, heard(104, Some("changed"))));
    }
}

//! What the model knows of keys and their holders.

use std::time::Duration;

use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::keys::{Key, KeyDigest, KeyEntry, KeyKind, limit_in_force};
use ktrdr_protocol::rest::operation::PermitWait;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use tokio::time::Instant;

use super::Model;
use crate::projection::permits::OldEntries;
use crate::projection::record::Record;

/// The keys of one worker type.
#[derive(Debug)]
pub struct KeyFigures {
    /// The worker type.
    pub worker_type: WorkerType,
    /// Operations with a unique key that have not ended.
    pub unique: u64,
    /// Concurrency keys that somebody holds.
    pub held: u64,
    /// Operations that wait for a permit.
    pub waiting: u64,
    /// For how long operations have waited for a permit of a key while none of its holders has reported
    /// anything new; the longest of all keys.
    pub stuck: Duration,
}

/// An unknown holder: an operation that the entry of a key names, and that is not in the stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnknownHolder {
    /// The worker type of the key.
    pub worker_type: WorkerType,
    /// The concurrency key.
    pub key: Key,
    /// The operation.
    pub id: OperationId,
}

impl Model {
    /// Applies the entry of a key. Only that of a concurrency key says who holds it.
    pub fn key_entry(
        &mut self,
        sequence: u64,
        worker_type: &WorkerType,
        (kind, digest): (KeyKind, KeyDigest),
        entry: Option<KeyEntry>,
    ) {
        self.keys.note_entry(worker_type, kind, digest, sequence);
        let Some(entry) = entry else {
            return;
        };
        let Self {
            keys,
            numbers,
            records,
            base,
            ..
        } = self;
        keys.set_holders(worker_type, entry, |id| {
            let number = *numbers.get(id)?;
            let position = number.checked_sub(*base)? as usize;
            let record = records.get(position)?.as_ref()?;
            let has_ended = record.state.status.is_terminal();
            (record.queue.worker_type == *worker_type).then_some((number, has_ended))
        });
    }

    /// The permit that an operation waits for.
    pub(super) fn waits_for_permit(&self, record: &Record, number: u32) -> Option<PermitWait> {
        if !self.keys.waiting().contains(number) {
            return None;
        }
        let limited = record.concurrency()?;
        Some(PermitWait {
            key: limited.key.clone(),
            limit: limit_in_force(limited.limit),
            held: self.keys.held(&record.queue.worker_type, &limited.key),
        })
    }

    /// The keys of each worker type that ever had an operation. Looks at each holder of the concurrency
    /// keys for which operations wait.
    pub fn key_figures(&self, now: Timestamp, instant: Instant) -> Vec<KeyFigures> {
        let held = self.keys.held_by_type();
        let figures = self.type_numbers.iter().map(|(worker_type, number)| {
            let among = |some| self.index.of_type_among(*number, some);
            KeyFigures {
                worker_type: worker_type.clone(),
                unique: among(self.keys.unique()),
                held: held.get(worker_type).copied().unwrap_or_default(),
                waiting: among(self.keys.waiting()),
                stuck: Duration::ZERO,
            }
        });
        let mut figures: Vec<_> = figures.collect();

        for awaited in self.keys.awaited() {
            let holders = awaited.holders.iter();
            let quiet =
                holders.filter_map(|id| self.quiet_for(awaited.worker_type, id, now, instant));
            let waits = self.record(awaited.oldest);
            let waits = waits.map_or(Duration::ZERO, |record| now.after(record.created_at));
            let stuck = quiet.min().map_or(waits, |quiet| quiet.min(waits));
            let of_type = |found: &&mut KeyFigures| found.worker_type == *awaited.worker_type;
            if let Some(found) = figures.iter_mut().find(of_type) {
                found.stuck = found.stuck.max(stuck);
            }
        }
        figures
    }

    /// For how long a holder has reported nothing new; `None` when it is not known.
    fn quiet_for(
        &self,
        worker_type: &WorkerType,
        id: &OperationId,
        now: Timestamp,
        instant: Instant,
    ) -> Option<Duration> {
        let (_, position) = self.find(worker_type.as_str(), id.as_str()).ok()?;
        let record = self.records.get(position)?.as_ref()?;
        Some(match record.state.status {
            Status::Running => record.quiet_for(now, instant),
            _ => now.after(record.updated_at),
        })
    }

    /// The unknown holders of concurrency keys for which operations wait.
    pub fn unknown_holders(&self) -> Vec<UnknownHolder> {
        let mut found = Vec::new();
        for awaited in self.keys.awaited() {
            let Some(waits) = self.record(awaited.oldest) else {
                continue;
            };
            let Some(limited) = waits.concurrency() else {
                continue;
            };
            for id in awaited.holders {
                if self
                    .find(awaited.worker_type.as_str(), id.as_str())
                    .is_err()
                {
                    found.push(UnknownHolder {
                        worker_type: awaited.worker_type.clone(),
                        key: limited.key.clone(),
                        id: id.clone(),
                    });
                }
            }
        }
        found
    }

    /// Takes its permit back from an unknown holder, unless it is known by now.
    pub fn release_unknown(&mut self, holder: &UnknownHolder) {
        let UnknownHolder {
            worker_type,
            key,
            id,
        } = holder;
        if self.find(worker_type.as_str(), id.as_str()).is_err() {
            self.keys.release(worker_type, key, id);
        }
    }

    /// Keys with many old entries, at most so many.
    pub fn keys_with_many_old(&self, most: usize) -> Vec<OldEntries> {
        self.keys.with_many_old(most)
    }

    /// Notes that these old entries were removed.
    pub fn note_purged(&mut self, purged: &OldEntries) {
        self.keys.note_purged(purged);
    }
}

//! Keys, as the stream shows them: which operations wait for a permit, and which keys have many old
//! entries. It does no I/O and takes no locks.
//!
//! The problem: a worker that finds no permit records nothing, so no event says why an operation waits.
//!
//! How it is solved: the entries of concurrency keys are in the stream that a backend reads anyway, and
//! so are the ends of the holders. An operation waits for a permit when it stands in its queue, holds
//! none, and as many others as its own limit allows hold one. That is what a worker decides, too.
//!
//! Rejected: to let workers tell it. They would have to write something for each request that they hand
//! back.

use std::collections::{BTreeMap, HashMap, HashSet};

use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::keys::{Concurrency, Key, KeyDigest, KeyEntry, KeyKind};
use roaring::RoaringBitmap;

use super::record::Record;

/// Entries before the last one, from which on they are removed.
const MANY_OLD: u32 = 64;

/// Keys that are remembered although their last entry has left the stream, at most twice as many and
/// these.
const MAX_IDLE: usize = 1000;

/// Names a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct KeyId {
    worker_type: u32,
    kind: KeyKind,
    digest: KeyDigest,
}

/// The entries of one key in the stream.
#[derive(Debug, Clone, Copy, Default)]
struct Entries {
    /// Sequence of the last one.
    last: u64,
    /// How many are before it, since they were removed the last time.
    old: u32,
}

/// A concurrency key that somebody holds or waits for.
#[derive(Debug)]
struct Limited {
    key: Key,
    /// Those of the last entry that have not ended.
    holders: HashSet<OperationId>,
    /// The numbers of the operations that stand in their queue, by their limit.
    queued: BTreeMap<u32, RoaringBitmap>,
}

/// A key with many old entries.
#[derive(Debug, Clone)]
pub struct OldEntries {
    /// Its worker type.
    pub worker_type: WorkerType,
    /// What it is for.
    pub kind: KeyKind,
    /// Names it.
    pub digest: KeyDigest,
    /// Sequence of the last entry.
    pub last: u64,
    /// How many are before it.
    pub old: u32,
}

/// A concurrency key for which operations wait.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Its worker type.
    pub worker_type: &'a WorkerType,
    /// The key.
    pub key: &'a Key,
    /// Who holds a permit.
    pub holders: &'a HashSet<OperationId>,
    /// The number of the oldest operation that waits.
    pub oldest: u32,
}

/// All keys.
#[derive(Debug, Default)]
pub struct Keys {
    type_numbers: HashMap<WorkerType, u32>,
    types: Vec<WorkerType>,
    entries: HashMap<KeyId, Entries>,
    /// The keys with many old entries.
    crowded: HashSet<KeyId>,
    limited: HashMap<KeyId, Limited>,
    /// The operations that wait for a permit.
    waiting: RoaringBitmap,
    /// The operations with a unique key that have not ended.
    unique: RoaringBitmap,
    /// How many keys there were after the last look for those that have left the stream.
    kept: usize,
}

impl Keys {
    fn id(&mut self, worker_type: &WorkerType, kind: KeyKind, digest: KeyDigest) -> KeyId {
        let known = self.type_numbers.get(worker_type).copied();
        let worker_type = known.unwrap_or_else(|| {
            let next = self.types.len() as u32;
            self.type_numbers.insert(worker_type.clone(), next);
            self.types.push(worker_type.clone());
            next
        });
        KeyId {
            worker_type,
            kind,
            digest,
        }
    }

    fn worker_type(&self, id: KeyId) -> Option<&WorkerType> {
        self.types.get(id.worker_type as usize)
    }

    /// Notes the entry at `sequence`.
    pub fn note_entry(
        &mut self,
        worker_type: &WorkerType,
        kind: KeyKind,
        digest: KeyDigest,
        sequence: u64,
    ) {
        let id = self.id(worker_type, kind, digest);
        let entries = self.entries.entry(id).or_default();
        entries.old += u32::from(entries.last > 0);
        entries.last = sequence;
        if entries.old >= MANY_OLD {
            self.crowded.insert(id);
        }
    }

    /// Takes over who holds a concurrency key. `find` returns the number of an operation, and whether it
    /// has ended.
    pub fn set_holders(
        &mut self,
        worker_type: &WorkerType,
        entry: KeyEntry,
        find: impl Fn(&OperationId) -> Option<(u32, bool)>,
    ) {
        let digest = KeyDigest::of(&entry.key);
        let id = self.id(worker_type, KeyKind::Concurrency, digest);
        let limited = self
            .limited
            .entry(id)
            .or_insert_with(|| Limited::new(entry.key));
        let has_ended = |holder: &OperationId| find(holder).is_some_and(|(_, ended)| ended);
        let holders = entry.holders.into_iter();
        limited.holders = holders.filter(|holder| !has_ended(holder)).collect();

        let held = limited.held();
        for (limit, queued) in &limited.queued {
            match held >= *limit {
                true => self.waiting |= queued,
                false => self.waiting -= queued,
            }
        }
        if !limited.queued.is_empty() {
            let holders = limited.holders.iter();
            for (number, _) in holders.filter_map(&find) {
                self.waiting.remove(number);
            }
        }
        self.drop_idle(id);
    }

    /// Takes over what an operation does now. `was_queued` says whether it stood in its queue before.
    pub fn note_operation(&mut self, number: u32, record: &Record, was_queued: bool) {
        let has_ended = record.state.status.is_terminal();
        if record.unique().is_some() {
            match has_ended {
                true => self.unique.remove(number),
                false => self.unique.insert(number),
            };
        }
        let is_queued = record.is_queued();
        let Some(limited) = record.concurrency() else {
            return;
        };
        if is_queued != was_queued {
            self.queue(number, record, limited, is_queued);
        }
        if has_ended {
            self.release(record, limited);
        }
    }

    /// Forgets an operation.
    pub fn forget(&mut self, number: u32, record: &Record) {
        if record.unique().is_some() {
            self.unique.remove(number);
        }
        if let Some(limited) = record.concurrency() {
            self.queue(number, record, limited, false);
            self.release(record, limited);
        }
    }

    fn queue(&mut self, number: u32, record: &Record, limited: &Concurrency, is_queued: bool) {
        let worker_type = &record.queue.worker_type;
        let id = self.id(
            worker_type,
            KeyKind::Concurrency,
            KeyDigest::of(&limited.key),
        );
        let limit = limit_of(limited);
        if is_queued {
            let key = || Limited::new(limited.key.clone());
            let key = self.limited.entry(id).or_insert_with(key);
            key.queued.entry(limit).or_default().insert(number);
            if key.held() >= limit && !key.holders.contains(&record.id) {
                self.waiting.insert(number);
            }
        } else {
            self.waiting.remove(number);
            if let Some(key) = self.limited.get_mut(&id)
                && let Some(queued) = key.queued.get_mut(&limit)
            {
                queued.remove(number);
                if queued.is_empty() {
                    key.queued.remove(&limit);
                }
            }
        }
        self.drop_idle(id);
    }

    /// Takes the permit of an operation back.
    fn release(&mut self, record: &Record, limited: &Concurrency) {
        let worker_type = &record.queue.worker_type;
        let id = self.id(
            worker_type,
            KeyKind::Concurrency,
            KeyDigest::of(&limited.key),
        );
        if let Some(key) = self.limited.get_mut(&id)
            && key.holders.remove(&record.id)
        {
            // For all other limits nothing has changed.
            if let Some(queued) = key.queued.get(&(key.held() + 1)) {
                self.waiting -= queued;
            }
            self.drop_idle(id);
        }
    }

    fn drop_idle(&mut self, id: KeyId) {
        let is_idle = |key: &Limited| key.holders.is_empty() && key.queued.is_empty();
        if self.limited.get(&id).is_some_and(is_idle) {
            self.limited.remove(&id);
        }
    }

    /// Forgets all numbers of operations, because they get new ones.
    pub fn forget_numbers(&mut self) {
        self.waiting.clear();
        self.unique.clear();
        for key in self.limited.values_mut() {
            key.queued.clear();
        }
    }

    /// Forgets keys whose entries have left the stream, once there are many.
    pub fn forget_before(&mut self, first_sequence: u64) {
        if self.entries.len() > MAX_IDLE + 2 * self.kept {
            self.entries
                .retain(|_, entries| entries.last >= first_sequence);
            let entries = &self.entries;
            self.crowded.retain(|id| entries.contains_key(id));
            self.kept = self.entries.len();
        }
    }

    /// The operations that wait for a permit.
    pub fn waiting(&self) -> &RoaringBitmap {
        &self.waiting
    }

    /// The operations with a unique key that have not ended.
    pub fn unique(&self) -> &RoaringBitmap {
        &self.unique
    }

    /// How many operations hold a permit of a key.
    pub fn held(&self, worker_type: &WorkerType, key: &Key) -> u32 {
        let Some(worker_type) = self.type_numbers.get(worker_type) else {
            return 0;
        };
        let id = KeyId {
            worker_type: *worker_type,
            kind: KeyKind::Concurrency,
            digest: KeyDigest::of(key),
        };
        self.limited.get(&id).map_or(0, Limited::held)
    }

    /// How many concurrency keys of each worker type somebody holds.
    pub fn held_by_type(&self) -> HashMap<&WorkerType, u64> {
        let mut held = HashMap::new();
        for (id, key) in &self.limited {
            if let Some(worker_type) = self.worker_type(*id) {
                *held.entry(worker_type).or_default() += u64::from(!key.holders.is_empty());
            }
        }
        held
    }

    /// The concurrency keys for which operations wait.
    pub fn wanted(&self) -> impl Iterator<Item = Wanted<'_>> {
        self.limited.iter().filter_map(|(id, key)| {
            let held = key.held();
            let full = key.queued.range(..=held).map(|(_, queued)| queued);
            let oldest = full.filter_map(|queued| (queued & &self.waiting).min());
            Some(Wanted {
                worker_type: self.worker_type(*id)?,
                key: &key.key,
                holders: &key.holders,
                oldest: oldest.min()?,
            })
        })
    }

    /// Keys with many old entries, at most so many.
    pub fn crowded(&self, most: usize) -> Vec<OldEntries> {
        let found = self.crowded.iter().filter_map(|id| {
            let entries = self.entries.get(id)?;
            Some(OldEntries {
                worker_type: self.worker_type(*id)?.clone(),
                kind: id.kind,
                digest: id.digest,
                last: entries.last,
                old: entries.old,
            })
        });
        found.take(most).collect()
    }

    /// Notes that these old entries were removed.
    pub fn note_purged(&mut self, purged: &OldEntries) {
        let id = self.id(&purged.worker_type, purged.kind, purged.digest);
        if let Some(entries) = self.entries.get_mut(&id) {
            // More may have come meanwhile.
            entries.old = entries.old.saturating_sub(purged.old);
            if entries.old < MANY_OLD {
                self.crowded.remove(&id);
            }
        }
    }
}

impl Limited {
    fn new(key: Key) -> Self {
        Self {
            key,
            holders: HashSet::new(),
            queued: BTreeMap::new(),
        }
    }

    fn held(&self) -> u32 {
        self.holders.len() as u32
    }
}

/// A message may hold any number; workers take 0 for 1.
fn limit_of(limited: &Concurrency) -> u32 {
    limited.limit.max(1)
}

#[cfg(test)]
mod tests;

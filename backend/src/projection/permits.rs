//! Keys, as the stream shows them: which operations wait for a permit, and which keys have many old
//! entries. It does no I/O and takes no locks.
//!
//! The problem: a worker that finds no permit records nothing, so no event says why an operation waits.
//!
//! How it is solved: the entries of concurrency keys are in the stream that a backend reads anyway, and
//! so are the ends of the holders. An operation waits for a permit when it stands in its queue, holds
//! none, and as many others as its own limit allows hold one. That is what a worker decides, too.
//!
//! A worker may write entries of its type as it likes. So only so many holders and keys are remembered,
//! and a type that makes more of them than that does not push out those of another.
//!
//! Rejected: to let workers tell it. They would have to write something for each request that they hand
//! back.

use std::collections::{BTreeMap, HashMap, HashSet};

use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::keys::{Concurrency, Key, KeyDigest, KeyEntry, KeyKind, limit_in_force};
use roaring::RoaringBitmap;

use super::record::Record;

/// Entries before the last one, from which on they are removed.
const MANY_OLD: u32 = 64;

/// Keys that are remembered although their last entry has left the stream, at most twice as many and
/// these.
const MAX_IDLE: usize = 1000;

/// Holders that are remembered, at most: of one worker type, and of all.
const MAX_HOLDERS_OF_TYPE: usize = 50_000;
const MAX_HOLDERS: usize = 250_000;

/// Keys of a worker type whose entries are counted, at most.
const MAX_KEYS_OF_TYPE: usize = 100_000;

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
#[derive(Debug, Default)]
struct Limited {
    /// Those of the last entry that have not ended.
    holders: HashSet<OperationId>,
    /// The numbers of the operations that stand in their queue, by their limit.
    queued: BTreeMap<u32, RoaringBitmap>,
}

/// A worker type, and how much is remembered of it.
#[derive(Debug)]
struct TypeOfKeys {
    name: WorkerType,
    /// All holders of its concurrency keys.
    holders: usize,
    /// Keys whose entries are counted.
    keys: usize,
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
pub struct AwaitedKey<'a> {
    /// Its worker type.
    pub worker_type: &'a WorkerType,
    /// Who holds a permit.
    pub holders: &'a HashSet<OperationId>,
    /// The number of the oldest operation that waits.
    pub oldest: u32,
}

/// All keys.
#[derive(Debug, Default)]
pub struct Keys {
    type_numbers: HashMap<WorkerType, u32>,
    types: Vec<TypeOfKeys>,
    entries: HashMap<KeyId, Entries>,
    /// The keys with many old entries.
    with_many_old: HashSet<KeyId>,
    limited: HashMap<KeyId, Limited>,
    /// All holders that are remembered.
    holders: usize,
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
            self.types.push(TypeOfKeys {
                name: worker_type.clone(),
                holders: 0,
                keys: 0,
            });
            next
        });
        KeyId {
            worker_type,
            kind,
            digest,
        }
    }

    /// The id of a concurrency key of a worker type that has keys.
    fn limited_id(&self, worker_type: &WorkerType, key: &Key) -> Option<KeyId> {
        Some(KeyId {
            worker_type: *self.type_numbers.get(worker_type)?,
            kind: KeyKind::Concurrency,
            digest: KeyDigest::of(key),
        })
    }

    fn worker_type(&self, id: KeyId) -> Option<&WorkerType> {
        let found = self.types.get(id.worker_type as usize)?;
        Some(&found.name)
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
            self.with_many_old.insert(id);
        }
        if entries.old == 0
            && let Some(of_type) = self.types.get_mut(id.worker_type as usize)
        {
            of_type.keys += 1;
            if of_type.keys > MAX_KEYS_OF_TYPE {
                self.forget_older_half(id.worker_type);
            }
        }
    }

    /// Forgets those keys of a worker type whose last entry is older than that of the others.
    fn forget_older_half(&mut self, worker_type: u32) {
        let of_type = self.entries.iter();
        let of_type = of_type.filter(|(id, _)| id.worker_type == worker_type);
        let mut lasts: Vec<u64> = of_type.map(|(_, entries)| entries.last).collect();
        if lasts.is_empty() {
            return;
        }
        let middle = lasts.len() / 2;
        let (_, middle, _) = lasts.select_nth_unstable(middle);
        let first = *middle;
        self.keep_entries(|id, entries| id.worker_type != worker_type || entries.last >= first);
    }

    fn keep_entries(&mut self, keep: impl Fn(&KeyId, &Entries) -> bool) {
        self.entries.retain(|id, entries| keep(id, entries));
        let entries = &self.entries;
        self.with_many_old.retain(|id| entries.contains_key(id));

        for of_type in &mut self.types {
            of_type.keys = 0;
        }
        for id in self.entries.keys() {
            if let Some(of_type) = self.types.get_mut(id.worker_type as usize) {
                of_type.keys += 1;
            }
        }
    }

    /// Takes over who holds a concurrency key. `find` returns the number of an operation, and whether it
    /// has ended. An entry with more holders than there is room for counts as one without.
    pub fn set_holders(
        &mut self,
        worker_type: &WorkerType,
        entry: KeyEntry,
        find: impl Fn(&OperationId) -> Option<(u32, bool)>,
    ) {
        let digest = KeyDigest::of(&entry.key);
        let id = self.id(worker_type, KeyKind::Concurrency, digest);
        let has_ended = |holder: &OperationId| find(holder).is_some_and(|(_, ended)| ended);
        let holders = entry.holders.into_iter();
        let mut holders: HashSet<_> = holders.filter(|holder| !has_ended(holder)).collect();

        let before = self.limited.get(&id).map_or(0, |key| key.holders.len());
        self.count_holders(id, before, 0);
        if !self.has_room_for(id, holders.len()) {
            holders = HashSet::new();
        }
        self.count_holders(id, 0, holders.len());
        let limited = self.limited.entry(id).or_default();
        limited.holders = holders;

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

    fn has_room_for(&self, id: KeyId, holders: usize) -> bool {
        let of_type = self.types.get(id.worker_type as usize);
        let of_type = of_type.map_or(0, |of_type| of_type.holders);
        of_type + holders <= MAX_HOLDERS_OF_TYPE && self.holders + holders <= MAX_HOLDERS
    }

    fn count_holders(&mut self, id: KeyId, gone: usize, new: usize) {
        self.holders = (self.holders + new).saturating_sub(gone);
        if let Some(of_type) = self.types.get_mut(id.worker_type as usize) {
            of_type.holders = (of_type.holders + new).saturating_sub(gone);
        }
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
            self.release(&record.queue.worker_type, &limited.key, &record.id);
        }
    }

    /// Forgets an operation.
    pub fn forget(&mut self, number: u32, record: &Record) {
        if record.unique().is_some() {
            self.unique.remove(number);
        }
        if let Some(limited) = record.concurrency() {
            self.queue(number, record, limited, false);
            self.release(&record.queue.worker_type, &limited.key, &record.id);
        }
    }

    fn queue(&mut self, number: u32, record: &Record, limited: &Concurrency, is_queued: bool) {
        let worker_type = &record.queue.worker_type;
        let digest = KeyDigest::of(&limited.key);
        let id = self.id(worker_type, KeyKind::Concurrency, digest);
        let limit = limit_in_force(limited.limit);
        if is_queued {
            let key = self.limited.entry(id).or_default();
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
    pub fn release(&mut self, worker_type: &WorkerType, key: &Key, holder: &OperationId) {
        let Some(id) = self.limited_id(worker_type, key) else {
            return;
        };
        if let Some(key) = self.limited.get_mut(&id)
            && key.holders.remove(holder)
        {
            // For all other limits nothing has changed.
            if let Some(queued) = key.queued.get(&(key.held() + 1)) {
                self.waiting -= queued;
            }
            self.count_holders(id, 1, 0);
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
            self.keep_entries(|_, entries| entries.last >= first_sequence);
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
        let id = self.limited_id(worker_type, key);
        let limited = id.and_then(|id| self.limited.get(&id));
        limited.map_or(0, Limited::held)
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
    pub fn awaited(&self) -> impl Iterator<Item = AwaitedKey<'_>> {
        self.limited.iter().filter_map(|(id, key)| {
            let held = key.held();
            let full = key.queued.range(..=held).map(|(_, queued)| queued);
            let oldest = full.filter_map(|queued| (queued & &self.waiting).min());
            Some(AwaitedKey {
                worker_type: self.worker_type(*id)?,
                holders: &key.holders,
                oldest: oldest.min()?,
            })
        })
    }

    /// Keys with many old entries, at most so many.
    pub fn with_many_old(&self, most: usize) -> Vec<OldEntries> {
        let found = self.with_many_old.iter().filter_map(|id| {
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
                self.with_many_old.remove(&id);
            }
        }
    }
}

impl Limited {
    fn held(&self) -> u32 {
        self.holders.len() as u32
    }
}

#[cfg(test)]
mod tests;

//! Permits of operations with a concurrency key: taken before `started` is appended.
//!
//! [`ktrdr_protocol::keys`] has the problem and the rule; this module does the I/O around it. At the
//! limit, the request is handed back with a delay, and nothing is recorded.
//!
//! Thousands of requests may wait for one key, and each of them comes back again and again. So the
//! holders that were seen open are remembered for a moment: what cannot get a permit then costs nothing
//! but its delivery. A queue delivers what was handed back before what is new, so a worker hands back at
//! most about 200 requests a second, and more only when 12,000 wait: other operations of the queue keep
//! their turn.
//!
//! Rejected: to keep the slot and wait here. Operations with other keys, or without any, could not use
//! it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use ktrdr_bus::oplog::ReadLogError;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::keys::{Concurrency, Key, KeyKind, Permit, limit_in_force, permit};
use parking_lot::Mutex;
use tokio::sync::MutexGuard;
use tokio::time::Instant;

use crate::attempt::claim::ClaimError;
use crate::worker::core::Core;

/// How often the entry of a key is read again, when others were faster. After that, the request waits
/// like one at the limit.
const TRIES: usize = 16;

/// Logs that are read at a time.
const READS: usize = 8;

/// How long it is believed that a key has no permit left.
const REMEMBERED: Duration = Duration::from_millis(500);

/// Shortest and longest delay of a request at the limit, in milliseconds.
const DELAY: std::ops::Range<u64> = 1_000..5_000;

/// Time between two requests at the limit that come back.
const SPACING: Duration = Duration::from_millis(5);

/// The longest delay, however many requests wait.
const LONGEST: Duration = Duration::from_secs(60);

/// Keys that are remembered, at most.
const MAX_KEYS: usize = 1024;

/// What this worker knows of concurrency keys.
#[derive(Debug, Default)]
pub(crate) struct Permits {
    keys: Mutex<HashMap<Key, Arc<SeenKey>>>,
    /// When the request comes back that was handed back last, leaving jitter aside.
    last_due: Mutex<Option<Instant>>,
}

/// One key. Its operations are claimed here one at a time: side by side they would only refuse each
/// other's entries.
#[derive(Debug, Default)]
struct SeenKey {
    turn: tokio::sync::Mutex<()>,
    full: Mutex<Option<Full>>,
}

/// Holders that were open.
#[derive(Debug)]
struct Full {
    holders: Vec<OperationId>,
    seen: Instant,
}

impl Permits {
    fn key(&self, key: &Key) -> Arc<SeenKey> {
        let mut keys = self.keys.lock();
        if keys.len() >= MAX_KEYS && !keys.contains_key(key) {
            keys.retain(|_, seen| Arc::strong_count(seen) > 1);
        }
        Arc::clone(keys.entry(key.clone()).or_default())
    }

    /// An operation with this key has ended here, so there may be a permit.
    pub(crate) fn has_changed(&self, key: &Key) {
        if let Some(seen) = self.keys.lock().get(key) {
            seen.full.lock().take();
        }
    }

    /// After how long a request at the limit comes back. `random` is in 0..1.
    fn delay(&self, now: Instant, random: f64) -> Duration {
        let mut last = self.last_due.lock();
        let due = last.map_or(now, |last| last.max(now)) + SPACING;
        let due = due.min(now + LONGEST);
        *last = Some(due);
        let range = (DELAY.end - DELAY.start) as f64;
        let jittered = Duration::from_millis(DELAY.start + (range * random) as u64);
        jittered.max(due - now)
    }
}

impl SeenKey {
    /// Waits for the turn of one operation, but only for a part of its lease: nothing extends that
    /// meanwhile.
    async fn turn(&self, lease: Duration) -> Option<MutexGuard<'_, ()>> {
        tokio::time::timeout(lease / 3, self.turn.lock()).await.ok()
    }

    /// Whether so many others were open a moment ago. A holder itself is never kept waiting by that.
    fn is_full(&self, id: &OperationId, limit: u32) -> bool {
        let full = self.full.lock();
        full.as_ref().is_some_and(|full| {
            full.seen.elapsed() < REMEMBERED
                && full.holders.len() >= limit_in_force(limit) as usize
                && !full.holders.contains(id)
        })
    }
}

/// Takes a permit for an operation, unless it holds one. `Some`: none is left, or too many others ask for
/// one, and its request is to be handed back for so long.
///
/// # Errors
/// [`ClaimError`] when NATS does not answer in time. The operation may hold a permit then.
pub(crate) async fn take(
    core: &Core,
    id: &OperationId,
    limited: &Concurrency,
    lease: Duration,
) -> Result<Option<Duration>, ClaimError> {
    let Concurrency { key, limit } = limited;
    let seen = core.permits.key(key);
    let is_taken = match seen.turn(lease).await {
        Some(_turn) if !seen.is_full(id, *limit) => {
            take_in_turn(core, id, limited, &seen, lease).await?
        }
        _ => false,
    };
    if is_taken {
        return Ok(None);
    }
    core.counters.permit_waits.inc();
    Ok(Some(core.permits.delay(Instant::now(), fastrand::f64())))
}

async fn take_in_turn(
    core: &Core,
    id: &OperationId,
    limited: &Concurrency,
    seen: &SeenKey,
    patience: Duration,
) -> Result<bool, ClaimError> {
    let Concurrency { key, limit } = limited;
    let worker_type = &core.worker_type;
    let mut ended = HashSet::new();
    let mut least = 0;

    for _ in 0..TRIES {
        let read = core
            .oplog
            .read_key_from(worker_type, KeyKind::Concurrency, key, least);
        let last = read.await?;
        let mut decided = permit(&last.entry, id, *limit, |holder| ended.contains(holder));
        if decided == Permit::Full {
            // Only now: below the limit it does not matter which of the holders have ended.
            find_ended(core, &last.entry.holders, &mut ended).await?;
            decided = permit(&last.entry, id, *limit, |holder| ended.contains(holder));
        }

        match decided {
            Permit::Held => return Ok(true),
            Permit::Full => {
                let open = last.entry.holders.into_iter();
                let full = Full {
                    holders: open.filter(|holder| !ended.contains(holder)).collect(),
                    seen: Instant::now(),
                };
                *seen.full.lock() = Some(full);
                return Ok(false);
            }
            Permit::Take(next) => {
                let replaced = core.oplog.replace_key(
                    worker_type,
                    KeyKind::Concurrency,
                    &next,
                    last.sequence,
                    patience,
                );
                match replaced.await.map_err(ClaimError::Append)? {
                    Ok(_) => return Ok(true),
                    Err(sequence) => least = sequence,
                }
            }
        }
    }
    Ok(false)
}

/// Adds the holders that have ended. One that runs here has not.
async fn find_ended(
    core: &Core,
    holders: &[OperationId],
    ended: &mut HashSet<OperationId>,
) -> Result<(), ReadLogError> {
    let runs_here = |id: &OperationId| {
        let attempt = core.running.find(id);
        attempt.is_some_and(|attempt| attempt.attempt() > 0 && attempt.lost().is_none())
    };
    let unknown: Vec<_> = holders
        .iter()
        .filter(|id| !ended.contains(*id) && !runs_here(id))
        .cloned()
        .collect();

    let reads = unknown.into_iter().map(|id| async move {
        let log = core.oplog.read(&core.worker_type, &id).await?;
        Ok::<_, ReadLogError>(log.state.status.is_terminal().then_some(id))
    });
    let found: Vec<_> = stream::iter(reads)
        .buffer_unordered(READS)
        .try_collect()
        .await?;
    ended.extend(found.into_iter().flatten());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn few_requests_come_back_within_seconds_and_many_keep_their_distance() {
        let permits = Permits::default();
        let now = Instant::now();

        let first = permits.delay(now, 0.0);
        assert_eq!(first, Duration::from_secs(1));
        assert_eq!(permits.delay(now, 0.5), Duration::from_secs(3));
        for _ in 0..9_998 {
            permits.delay(now, 0.999);
        }
        assert_eq!(permits.delay(now, 0.0), SPACING * 10_001);
        for _ in 0..9_999 {
            permits.delay(now, 0.0);
        }
        assert_eq!(permits.delay(now, 0.0), LONGEST);
        // Later, the distance counts from then.
        let later = now + LONGEST;
        assert_eq!(permits.delay(later, 0.0), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_waited_for_only_a_part_of_the_lease() {
        let seen = SeenKey::default();
        let lease = Duration::from_secs(30);
        let first = seen.turn(lease).await;
        let begun = Instant::now();

        let second = seen.turn(lease).await;

        assert!(first.is_some() && second.is_none());
        assert_eq!(begun.elapsed(), lease / 3);
        drop(first);
        assert!(seen.turn(lease).await.is_some());
    }

    #[tokio::test]
    async fn a_holder_is_not_kept_waiting_by_what_is_remembered() {
        let id = |text: &str| OperationId::new(text).unwrap();
        let seen = SeenKey::default();
        assert!(!seen.is_full(&id("b"), 1));

        *seen.full.lock() = Some(Full {
            holders: vec![id("a")],
            seen: Instant::now(),
        });

        assert!(seen.is_full(&id("b"), 1));
        assert!(!seen.is_full(&id("a"), 1));
        assert!(!seen.is_full(&id("b"), 2));
    }
}

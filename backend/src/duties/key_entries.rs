//! Looks after the entries of keys: removes old ones, and permits of operations that are gone.
//!
//! Each start with a unique key and each claim with a concurrency key writes an entry, and only the last
//! one counts. The others would stay as long as the stream keeps messages, and an entry of a thousand
//! holders has 39 KB. So this duty removes them once there are many. The last one stays, and with it the
//! sequence that the next one must name. All backends do this, and what one has removed, others find
//! removed.
//!
//! A holder counts until its log has ended. If the stream has dropped the start request of one that was
//! open, nobody will ever end it: backends know it no more, so they neither put it back nor close it. It
//! would keep its permit for ever. A backend that has read the entry has read every start request before
//! it, so it knows that the operation is not there. When no worker reports it for two leases, it leaves
//! the entry. (An open operation whose request alone is gone is known; [`super::put_back`] ends it.)

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ktrdr_bus::oplog::OpLog;
use ktrdr_bus::telemetry::{Repeated, chain};
use ktrdr_protocol::keys::KeyKind;
use tokio::time::Instant;

use crate::projection::model::UnknownHolder;
use crate::state::AppState;

/// Pause between two rounds, at most.
const INTERVAL: Duration = Duration::from_secs(5);

/// Keys whose old entries one round removes, at most.
const MOST_AT_A_TIME: usize = 1_000;

/// Leases for which no worker must have reported a holder that is not in the stream.
const PATIENCE_IN_LEASES: u32 = 2;

/// Heartbeat intervals that this backend must have listened for before it believes that nobody runs an
/// operation.
const LISTENED_INTERVALS: u32 = 3;

/// How long an entry is repeated that NATS does not confirm.
const PATIENCE: Duration = Duration::from_secs(5);

/// Lines about what did not work.
static FAILED: Repeated = Repeated::new();

/// Works until the task is dropped.
pub async fn run(state: &AppState) {
    let log = OpLog::new(state.connection.jetstream.clone(), state.names.clone());
    let mut unknown = UnknownHolders::default();
    loop {
        tokio::time::sleep(state.settings.get().lease.min(INTERVAL)).await;
        let can_tell = state.connection.is_up()
            && state.is_loaded()
            && state.projection.reader.trouble().is_none();
        if !can_tell {
            unknown.0.clear();
            continue;
        }

        remove_old(state, &log).await;
        unknown.look(state, &log).await;
    }
}

/// Removes the entries before the last one of keys that have many.
async fn remove_old(state: &AppState, log: &OpLog) {
    for old in state.projection.keys_with_many_old(MOST_AT_A_TIME) {
        let removed = log.purge_old_entries(&old.worker_type, old.kind, old.digest, old.last);
        match removed.await {
            Ok(()) => state.projection.note_purged(&old),
            // The next round tries again. One key must not keep the others waiting.
            Err(error) => note_failure(&*error),
        }
        if !state.connection.is_up() {
            return;
        }
    }
}

/// Unknown holders, and since when they are unknown.
#[derive(Default)]
struct UnknownHolders(HashMap<UnknownHolder, Instant>);

impl UnknownHolders {
    async fn look(&mut self, state: &AppState, log: &OpLog) {
        let now = Instant::now();
        let found: HashSet<UnknownHolder> =
            state.projection.unknown_holders().into_iter().collect();
        self.0.retain(|known, _| found.contains(known));
        if found.is_empty() {
            return;
        }

        let needed = state.config.protocol.heartbeat_interval * LISTENED_INTERVALS;
        let hears_workers = state.registry.listening_for(now) > needed;
        let patience = state.settings.get().lease * PATIENCE_IN_LEASES;
        for holder in found {
            let UnknownHolder {
                worker_type,
                key,
                id,
            } = &holder;
            if !hears_workers || state.registry.runs(worker_type, id, now) {
                self.0.remove(&holder);
                continue;
            }
            let since = *self.0.entry(holder.clone()).or_insert(now);
            if now.duration_since(since) < patience {
                continue;
            }

            let key = (KeyKind::Concurrency, key);
            let left = log.leave_key(worker_type, key, id, u64::MAX, PATIENCE);
            match left.await {
                Ok(was_named) => {
                    // Another backend has logged it.
                    if was_named {
                        tracing::warn!(
                            operation_id = %id, %worker_type,
                            "an operation held a permit of a concurrency key, is not in the stream, and no worker runs it: it holds none any more"
                        );
                    }
                    // Of an only holder, the stream tells nothing.
                    state.projection.release_unknown(&holder);
                    self.0.remove(&holder);
                }
                Err(error) => note_failure(&*error),
            }
            if !state.connection.is_up() {
                return;
            }
        }
    }
}

fn note_failure(error: &(dyn std::error::Error + 'static)) {
    if let Some(count) = FAILED.note() {
        tracing::warn!(
            error = chain(error),
            count,
            "entries of keys could not be looked after; trying again"
        );
    }
}

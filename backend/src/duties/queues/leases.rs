//! Gives the consumers of queues the lease that is in force.
//!
//! The problem: the server applies a consumer's new lease at once, also to requests that workers
//! hold. A worker extends a lease after a third of the one that it knows. So a lease that is simply
//! shortened takes operations from healthy workers.
//!
//! How it is solved: a lease is shortened in two steps. First the list of queues names the shorter
//! one, and workers extend by it what they hold. The consumer follows when the list has named it
//! for as long as the longer lease: every worker has read the list by then, or has lost its lease
//! anyway. A lease becomes longer in the other order: first the consumer, then the list. So the
//! list never names a longer lease than the consumer has.
//!
//! Each backend measures the time by itself and from the beginning, so one that was just started only
//! waits longer. All of them set the same value.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ktrdr_bus::queues::{self, Listing, QueueConsumer};
use ktrdr_bus::topology::TopologyError;
use ktrdr_protocol::id::WorkerType;
use tokio::time::Instant;

use crate::queues::lists::Known;
use crate::state::AppState;

/// Beyond the longer lease: for the way to workers and back.
const MARGIN: Duration = Duration::from_secs(1);

/// The consumers whose lease is to be shortened.
#[derive(Default)]
pub struct LeaseWatch(HashMap<String, Shortening>);

#[derive(Debug, Clone, Copy)]
struct Shortening {
    to: Duration,
    due: Instant,
}

impl LeaseWatch {
    /// When the next consumer may be changed.
    pub fn due(&self) -> Option<Instant> {
        self.0.values().map(|shortening| shortening.due).min()
    }

    /// Lengthens leases at once, and shortens those that workers have known for long enough.
    /// `listed` are the lists as they were before this round. A consumer that cannot be changed holds up
    /// no other; `failed` hears of it.
    pub async fn round(
        &mut self,
        state: &AppState,
        listing: &Listing,
        listed: &HashMap<WorkerType, Known>,
        failed: impl Fn(&TopologyError),
    ) {
        let (now, wanted) = (Instant::now(), state.settings.get().lease);
        let names: HashSet<&String> = listing
            .queues
            .iter()
            .map(|found| &found.info.name)
            .collect();
        self.0.retain(|name, _| names.contains(name));

        for found in &listing.queues {
            let (name, lease) = (&found.info.name, found.info.config.ack_wait);
            let may_change = if lease > wanted {
                self.is_known_to_workers(found, listed, wanted, now)
            } else {
                lease < wanted
            };
            if may_change {
                let (jetstream, names) = (&state.connection.jetstream, &state.names);
                let set = queues::set_lease(jetstream, names, &found.info, wanted).await;
                if let Err(error) = set {
                    failed(&error);
                    if !state.connection.is_up() {
                        return;
                    }
                    continue;
                }
            }
            if may_change || lease == wanted {
                self.0.remove(name);
            }
        }
    }

    /// Whether the list has named the shorter lease for as long as the longer one.
    fn is_known_to_workers(
        &mut self,
        found: &QueueConsumer,
        listed: &HashMap<WorkerType, Known>,
        wanted: Duration,
        now: Instant,
    ) -> bool {
        let name = &found.info.name;
        let list = listed.get(&found.worker_type).map(|known| &known.list);
        let named = list.and_then(|list| list.lease(&found.queue));
        if named.is_none_or(|named| named > wanted) {
            self.0.remove(name);
            return false;
        }

        let due = now + found.info.config.ack_wait + MARGIN;
        let shortening = self
            .0
            .entry(name.clone())
            .or_insert(Shortening { to: wanted, due });
        if shortening.to != wanted {
            *shortening = Shortening { to: wanted, due };
        }
        now >= shortening.due
    }
}

//! Reads messages from the bus, and counts those that are refused.
//!
//! Everybody who may publish on some subject can publish anything there. A message is believed only
//! if it can be read and agrees with its subject. A refused message is counted. One line a minute
//! tells of all that have the same kind, so that a flood of them does not fill the log.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use ktrdr_bus::telemetry::{Repeated, short};
use ktrdr_http::metrics::register;
use ktrdr_protocol::subject::{Addressed, SubjectNames};
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde::de::DeserializeOwned;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    kind: &'static str,
}

/// The messages that this backend refused, by kind. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct RefusedMessages {
    counts: Family<Labels, Counter>,
    /// Lines about each kind. There are a handful of kinds.
    lines: Arc<Mutex<BTreeMap<&'static str, Repeated>>>,
}

impl RefusedMessages {
    /// Reads a message, and returns it with the worker type in its subject. `None` when it cannot
    /// be read or contradicts its subject; it is counted then.
    pub fn read<'a, M: Addressed + DeserializeOwned>(
        &self,
        names: &SubjectNames,
        subject: &'a str,
        payload: &Bytes,
    ) -> Option<(&'a str, M)> {
        let message: M = match serde_json::from_slice(payload) {
            Ok(message) => message,
            Err(error) => {
                self.note(M::TOPIC, subject, &short(&error));
                return None;
            }
        };
        match names.check(subject, &message) {
            Ok(worker_type) => Some((worker_type, message)),
            Err(error) => {
                self.note(M::TOPIC, subject, &error.to_string());
                None
            }
        }
    }

    /// Counts a message that is refused.
    pub fn note(&self, kind: &'static str, subject: &str, why: &str) {
        self.counts.get_or_create(&Labels { kind }).inc();

        let due = self.lines.lock().entry(kind).or_default().note();
        if let Some(count) = due {
            tracing::warn!(kind, subject, why, count, "refusing messages");
        }
    }

    /// Tells of messages that were refused since the last line about them. Called at intervals.
    pub fn summarise(&self) {
        for (kind, lines) in &*self.lines.lock() {
            if let Some(count) = lines.summary() {
                tracing::warn!(kind, count, "refused messages");
            }
        }
    }

    /// Adds the count to the page.
    pub fn register(&self, page: &mut Registry) {
        register(
            page,
            "ktrdr_refused_messages_total",
            "Messages that could not be read, or contradict their subject or what is stored.",
            self.counts.clone(),
        );
    }
}

/// Operations that [`LoggedOnce`] remembers at a time.
const MAX_REMEMBERED: usize = 1000;

/// Remembers for which operations something was logged: clients may ask again and again.
#[derive(Debug, Default)]
pub struct LoggedOnce(Mutex<HashSet<String>>);

impl LoggedOnce {
    /// Whether this is the first time for this operation.
    pub fn is_first(&self, id: &str) -> bool {
        let mut known = self.0.lock();
        if known.len() >= MAX_REMEMBERED && !known.contains(id) {
            known.clear();
        }
        known.insert(id.to_owned())
    }
}

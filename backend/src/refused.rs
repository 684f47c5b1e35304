//! Reads messages from the bus, and counts those that are refused.
//!
//! Everybody who may publish on some subject can publish anything there. A message is believed only
//! if it can be read and agrees with its subject. A refused message is counted; only the 1st, 2nd,
//! 4th, 8th … of its kind is logged, so that a flood of them does not fill the log.

use std::collections::HashSet;

use bytes::Bytes;
use ktrdr_bus::telemetry::short;
use ktrdr_http::metrics::register;
use ktrdr_protocol::id::OperationId;
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
pub struct RefusedMessages(Family<Labels, Counter>);

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
        let count = self.0.get_or_create_owned(&Labels { kind }).inc() + 1;
        if count.is_power_of_two() {
            tracing::warn!(kind, subject, why, count, "refused a message");
        }
    }

    /// Adds the count to the page.
    pub fn register(&self, page: &mut Registry) {
        register(
            page,
            "ktrdr_refused_messages_total",
            "Messages that could not be read, or contradict their subject or what is stored.",
            self.0.clone(),
        );
    }
}

/// Operations that [`LoggedOnce`] remembers at a time.
const MAX_REMEMBERED: usize = 1000;

/// Remembers for which operations something was logged: clients may ask again and again.
#[derive(Debug, Default)]
pub struct LoggedOnce(Mutex<HashSet<OperationId>>);

impl LoggedOnce {
    /// Whether this is the first time for this operation.
    pub fn is_first(&self, id: &OperationId) -> bool {
        let mut known = self.0.lock();
        if known.len() >= MAX_REMEMBERED && !known.contains(id) {
            known.clear();
        }
        known.insert(id.clone())
    }
}

//! What the server refuses for lack of a permission.
//!
//! The problem: nats-server answers a publish that it does not permit with an error that belongs to
//! no request. The request itself only times out, and says nothing of the cause.
//!
//! How it is solved: the connection collects these errors here. The first of each subject is logged,
//! `/ready` names them, and whoever waits for an answer can look whether it will never come.
//!
//! A new connection begins without any: the permissions may have been changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::permissions::Action;

/// Most subjects that are kept and logged. Many operations can be refused, each on a subject of its
/// own.
const MAX_SUBJECTS: usize = 16;

/// The refusals of one connection. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Refusals(Arc<Mutex<Refused>>);

#[derive(Debug, Default)]
struct Refused {
    count: u64,
    /// The number of the last refusal of each.
    last: BTreeMap<(Action, String), u64>,
}

impl Refusals {
    /// Takes an error that the server reports. Returns false when it is about something else.
    pub(crate) fn note(&self, error: &str) -> bool {
        let Some((action, subject)) = parse(error) else {
            return false;
        };
        let mut refused = self.0.lock();
        refused.count += 1;
        let count = refused.count;
        let key = (action, subject);
        if let Some(last) = refused.last.get_mut(&key) {
            *last = count;
        } else if refused.last.len() < MAX_SUBJECTS {
            tracing::error!(
                subject = key.1,
                "the NATS user of this program may not {action} here: give it the permissions of docs/security.md"
            );
            refused.last.insert(key, count);
        }
        true
    }

    /// Forgets all of them.
    pub(crate) fn clear(&self) {
        self.0.lock().last.clear();
    }

    /// What was refused, as `publish ktrdr.op.dummy.a`.
    pub fn all(&self) -> Vec<String> {
        let refused = self.0.lock();
        let text = |(action, subject): &(Action, String)| format!("{action} {subject}");
        refused.last.keys().map(text).collect()
    }

    /// How many there were until now.
    pub fn count(&self) -> u64 {
        self.0.lock().count
    }

    /// A subject for which `is_wanted` holds and that was refused after there were `count` of them.
    pub fn since(&self, count: u64, is_wanted: impl Fn(&str) -> bool) -> Option<String> {
        let refused = self.0.lock();
        let found = refused
            .last
            .iter()
            .find(|((_, subject), last)| **last > count && is_wanted(subject));
        found.map(|((_, subject), _)| subject.clone())
    }
}

/// Reads `Permissions Violation for Publish to "…"` and `… for Subscription to "…"`, with or without
/// more behind it.
fn parse(error: &str) -> Option<(Action, String)> {
    let kinds = [
        ("Permissions Violation for Publish to \"", Action::Publish),
        (
            "Permissions Violation for Subscription to \"",
            Action::Subscribe,
        ),
    ];
    kinds.into_iter().find_map(|(text, action)| {
        let (_, rest) = error.split_once(text)?;
        let (subject, _) = rest.split_once('"')?;
        Some((action, subject.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_kept_once_and_found_again() {
        let refusals = Refusals::default();
        assert!(!refusals.note("Slow Consumer Detected"));
        assert_eq!(refusals.count(), 0);

        refusals.note("Permissions Violation for Publish to \"$O.B.C.x\"");
        let before = refusals.count();
        refusals.note("Permissions Violation for Subscription to \"a.*\" using queue \"q\"");

        assert_eq!(refusals.all(), ["publish $O.B.C.x", "subscribe a.*"]);
        assert_eq!(refusals.since(before, |s| s.starts_with("$O.")), None);
        refusals.note("Permissions Violation for Publish to \"$O.B.C.x\"");
        assert_eq!(
            refusals.since(before, |s| s.starts_with("$O.")).as_deref(),
            Some("$O.B.C.x")
        );

        refusals.clear();
        assert_eq!(refusals.all(), Vec::<String>::new());
    }

    #[test]
    fn a_flood_of_subjects_is_bounded() {
        let refusals = Refusals::default();
        for n in 0..1000 {
            refusals.note(&format!("Permissions Violation for Publish to \"op.{n}\""));
        }

        assert_eq!(refusals.all().len(), MAX_SUBJECTS);
        assert_eq!(refusals.count(), 1000);
    }
}

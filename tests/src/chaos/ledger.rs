//! The client's ledger: which starts were acknowledged, and which were refused.

use std::collections::{BTreeMap, BTreeSet};

/// What the client was told about one acknowledged start.
#[derive(Debug, Clone, Default)]
pub struct AcknowledgedStart {
    /// The kind of operation.
    pub kind: &'static str,
    /// How often it was sent.
    pub tries: u32,
    /// The status in the answer to an accepted cancel.
    pub cancel: Option<String>,
}

/// The ledger.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Acknowledged starts by operation id.
    pub acknowledged: BTreeMap<String, AcknowledgedStart>,
    /// Ids whose every start got an answer that promises that nothing was stored.
    pub refused: BTreeSet<String>,
    /// Ids that were given up with an unknown outcome.
    pub open: BTreeSet<String>,
    /// Starts without an id whose answer never arrived.
    pub unseen: u32,
    /// Answers other than acknowledgements, by error code.
    pub refusals: BTreeMap<String, u32>,
    /// Answers that must never be given.
    pub problems: Vec<String>,
    /// Start requests that were sent again.
    pub retried: u32,
    /// Starts sent through both backends at the same time.
    pub through_two: u32,
    /// Reads that were checked right after an acknowledgement (read your writes).
    pub reads: u32,
}

impl Ledger {
    /// Notes an answer other than an acknowledgement.
    pub fn refusal(&mut self, code: &str) {
        *self.refusals.entry(code.to_owned()).or_default() += 1;
    }
}

//! The client's own book: what was promised to it, and what it was told had not happened.

use std::collections::{BTreeMap, BTreeSet};

/// What the client was told about one acknowledged start.
#[derive(Debug, Clone, Default)]
pub struct Promise {
    /// The kind of operation.
    pub kind: &'static str,
    /// How often it was sent.
    pub tries: u32,
    /// The status in the answer to a cancel that was accepted.
    pub cancel: Option<String>,
}

/// The book.
#[derive(Debug, Default)]
pub struct Ledger {
    /// Acknowledged starts by operation id.
    pub acknowledged: BTreeMap<String, Promise>,
    /// Ids whose every start was refused by an answer that says that nothing was stored.
    pub refused: BTreeSet<String>,
    /// Ids that were given up without knowing.
    pub open: BTreeSet<String>,
    /// Starts without an id whose answer was never seen.
    pub unseen: u32,
    /// Answers that were no acknowledgement, by code.
    pub refusals: BTreeMap<String, u32>,
    /// Answers that nobody should ever get.
    pub troubles: Vec<String>,
    /// Start requests that were sent again.
    pub retried: u32,
    /// Starts sent through both backends at the same time.
    pub twins: u32,
    /// Reads that were checked right after an acknowledgement.
    pub reads: u32,
}

impl Ledger {
    /// Notes an answer that was no acknowledgement.
    pub fn refusal(&mut self, code: &str) {
        *self.refusals.entry(code.to_owned()).or_default() += 1;
    }
}

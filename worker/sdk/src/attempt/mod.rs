//! One attempt: from a start request to the acknowledgement.

pub(crate) mod claim;
pub(crate) mod execute;
pub(crate) mod guard;
pub(crate) mod outcome;
pub(crate) mod ownership;
pub(crate) mod results;
pub(crate) mod retry;
pub(crate) mod supervise;

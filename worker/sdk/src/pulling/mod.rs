//! Getting start requests: which queues are served, one pull per free slot, and the lease on each
//! request.

pub(crate) mod inbox;
pub(crate) mod lease;
pub(crate) mod levels;
pub(crate) mod puller;
pub(crate) mod queue_pulls;
pub(crate) mod queues;

//! The worker type in the catalogue, heartbeats, which tell backends about a worker, and the requests
//! that backends send to it.

pub(crate) mod heartbeat;
pub(crate) mod service;
pub(crate) mod worker_type;

//! Heartbeats, which tell backends about a worker, and the requests that backends send to it.

pub(crate) mod heartbeat;
pub(crate) mod service;

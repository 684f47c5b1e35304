//! What a worker tells backends about itself, and what it hears from them.

pub(crate) mod cancels;
pub(crate) mod heartbeat;
pub(crate) mod service;

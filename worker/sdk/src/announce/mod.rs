//! What a worker tells backends about itself, and what backends ask of it.

pub(crate) mod heartbeat;
pub(crate) mod service;

//! One worker from start to stop: its settings, its parts, what it runs, and what it has run.

pub(crate) mod builder;
pub(crate) mod capabilities;
pub(crate) mod config;
pub(crate) mod core;
pub(crate) mod history;
pub(crate) mod lifecycle;
pub(crate) mod metrics;
pub(crate) mod running;

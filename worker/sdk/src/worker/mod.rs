//! One worker from start to stop: settings, parts, running and past operations, metrics.

pub(crate) mod builder;
pub(crate) mod capabilities;
pub(crate) mod config;
pub(crate) mod core;
pub(crate) mod error;
pub(crate) mod history;
pub(crate) mod lifecycle;
pub(crate) mod lost_slots;
pub(crate) mod metrics;
pub(crate) mod points;
pub(crate) mod running;

//! What the REST interfaces of backend and workers share: start bodies, schema checks, metrics.
//!
//! | module | holds |
//! |---|---|
//! | [`start_body`] | reading the body of a start request and checking all of it |
//! | [`schema`] | checking a value against a JSON Schema, with violations a person can mend |
//! | [`metrics`] | counters and histograms, and the page that Prometheus scrapes |

pub mod metrics;
pub mod schema;
pub mod start_body;

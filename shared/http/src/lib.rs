//! What the REST interfaces of backend and workers share.
//!
//! | module | holds |
//! |---|---|
//! | [`error`] | answers that are not a success |
//! | [`answer`] | answers that are rendered text |
//! | [`openapi`] | the OpenAPI document, from the routes and the types of their handlers |
//! | [`start_body`] | reads the body of a start request and checks all of it |
//! | [`schema`] | checks a value against a JSON Schema, with violations that a person can correct |
//! | [`metrics`] | what both programs need to offer Prometheus metrics |

pub mod answer;
pub mod error;
pub mod metrics;
pub mod openapi;
pub mod schema;
pub mod start_body;

//! Code that the REST interfaces of backend and workers share: reading start bodies, errors,
//! OpenAPI, Prometheus metrics.
//!
//! The documents and error codes themselves are in `ktrdr_protocol::rest`, so a client does not
//! depend on an HTTP server.
//!
//! | module | holds |
//! |---|---|
//! | [`error`] | error answers, with the codes of `ktrdr_protocol::rest::ErrorCode` |
//! | [`answer`] | answers that are rendered text, and how much of them may be on its way |
//! | [`body`] | reads bodies of requests, and bounds all of them together |
//! | [`browsers`] | what web pages may do: checks of requests, headers of answers |
//! | [`tokens`] | who may do what: the file of tokens, and the check of requests |
//! | [`openapi`] | the OpenAPI document, made from the routes and the types of their handlers |
//! | [`server`] | the server loop, with its limits and timeouts |
//! | [`tls`] | certificate and key of the server loop, read again when they change |
//! | [`start_body`] | checks all of the body of a start request |
//! | [`schema`] | checks a value against a JSON Schema, with violations that a person can correct |
//! | [`metrics`] | helpers for Prometheus metrics |

pub mod answer;
pub mod body;
pub mod browsers;
pub mod error;
#[cfg(test)]
mod fuzz;
pub mod metrics;
pub mod openapi;
pub mod schema;
pub mod server;
pub mod start_body;
pub mod tls;
pub mod tokens;

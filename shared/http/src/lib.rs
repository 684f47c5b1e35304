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
//! | [`metric_points`] | metric points as JSON or as a table |
//! | [`query`] | query parameters, and the refusal of unknown ones |
//! | [`repeated`] | whether a repeated start asks for the same as the first one |
//! | [`start_body`] | checks all of the body of a start request |
//! | [`many`] | reads the bodies of requests about many operations |
//! | [`schema`] | checks a value against a JSON Schema, with violations that a person can correct |
//! | [`metrics`] | helpers for Prometheus metrics |

pub mod answer;
pub mod body;
pub mod browsers;
pub mod error;
#[cfg(test)]
mod fuzz;
pub mod json_body;
pub mod many;
pub mod metric_points;
pub mod metrics;
pub mod openapi;
pub mod query;
pub mod repeated;
pub mod schema;
pub mod server;
pub mod start_body;
pub mod tls;
pub mod tokens;

//! Everything that two programs must agree on: names, messages, the state machine, the claim rules,
//! and the documents of the REST interfaces.
//!
//! Nothing here does I/O. The crate depends on no runtime, no NATS client and no HTTP server, so a
//! client, an SDK or a tool can depend on it alone.
//!
//! | module | holds |
//! |---|---|
//! | [`id`] | names that become one token of a subject: operation, worker, worker type, queue |
//! | [`if_valid`] | fields that must not make their message unreadable |
//! | [`json`] | the length of a value as JSON |
//! | [`keys`] | who holds a unique key or a concurrency key |
//! | [`labels`] | the labels of an operation |
//! | [`time`] | timestamps of messages and documents (RFC 3339, UTC, milliseconds) |
//! | [`token_name`] | the name of a token of the REST interfaces |
//! | [`subject`] | every subject, stream, consumer and bucket name |
//! | [`schema_digest`] | names a version of a worker type's request schema |
//! | [`schema_text`] | a JSON Schema that is stored and passed on, as its text |
//! | [`signed_start`] | what a backend signs of a start request |
//! | [`schedule`] | operations that start by the clock |
//! | [`start_request`] | the start request, which makes an operation exist |
//! | [`execution`] | execution options: requirements, time limit, attempts, retry delay, priority, times, keys |
//! | [`origin`] | how an operation came to a worker: from a queue, or directly |
//! | [`cancel`] | the cancel intent |
//! | [`checkpoint`] | what a later attempt continues from |
//! | [`progress`] | how far an operation is |
//! | [`metric`] | metric points and their batches |
//! | [`log_line`] | what engines say about an operation while they run it |
//! | [`event`] | the life-cycle events on an operation's subject |
//! | [`state`] | the state machine: which event may follow which |
//! | [`claim`] | what a worker does with a start request, decided from the operation's log |
//! | [`requirements`] | requirements, the queue with their name, and which worker meets them |
//! | [`queue_class`] | the closed set of queues: the smallest one that covers requirements |
//! | [`priority`] | how soon an operation is started, compared with others |
//! | [`queue_name`] | the names of queues: class, priority, delayed or not |
//! | [`queue_list`] | the list of a worker type's queues, which workers follow |
//! | [`queue_pause`] | the wish that no operation of a worker type starts for a while |
//! | [`worker`] | capabilities, heartbeat, worker record, worker-type catalogue entry |
//! | [`rest`] | the documents and error codes of both REST interfaces |
//! | [`trace`] | the trace context that an operation carries |
//! | [`asyncapi`] | the AsyncAPI document of all this |

pub mod asyncapi;
pub mod cancel;
pub mod checkpoint;
pub mod claim;
pub mod event;
pub mod execution;
#[cfg(test)]
mod fuzz;
pub mod id;
pub mod if_valid;
pub mod json;
pub mod keys;
pub mod labels;
pub mod log_line;
pub mod metric;
pub mod origin;
pub mod priority;
pub mod progress;
pub mod queue_class;
pub mod queue_list;
pub mod queue_name;
pub mod queue_pause;
pub mod requirements;
pub mod rest;
pub mod schedule;
pub mod schema_digest;
pub mod schema_text;
pub mod signed_start;
pub mod start_request;
pub mod state;
pub mod subject;
pub mod time;
pub mod token_name;
pub mod trace;
pub mod worker;

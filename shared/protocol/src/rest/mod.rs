//! The documents of both REST interfaces, backend and worker.
//!
//! One type describes one document. The handlers return these types, the OpenAPI documents take
//! their schemas from the handlers' return types, and `ktrdr-client` reads the same types. So what
//! is sent, what is described and what a client expects cannot differ.
//!
//! Documents that show large or frequent data borrow it (`Cow`): a backend writes an operation
//! without copying it, and a client gets the same type with `'static` data. Separate types for
//! writing and for reading were rejected, because their fields would have to be kept equal by hand.
//!
//! | module | holds |
//! |---|---|
//! | [`error`] | the error codes, and the one error document |
//! | [`query`] | query parameters |
//! | [`operation`] | one operation, and a page of operations |
//! | [`shortened`] | parameters as a list shows them |
//! | [`summary`] | what an operation is about, in one line |
//! | [`start`] | the answer to a start, a retry and a resume |
//! | [`many`] | many starts, cancels and retries in one request |
//! | [`cancel`] | the answer to a cancel |
//! | [`checkpoint`] | whether a resume would begin with a checkpoint |
//! | [`result`] | the result of an operation |
//! | [`metrics`] | metric points, and the cursor that continues a page of them |
//! | [`logs`] | log lines |
//! | [`history`] | all messages about one operation |
//! | [`worker`] | one worker |
//! | [`worker_type`] | the catalogue of worker types, and their queues |
//! | [`queues`] | all queues, and pausing them |
//! | [`schedules`] | schedules |
//! | [`stats`] | the figures of an overview |
//! | [`health`] | health of a backend and of a worker, readiness of a backend |

pub mod cancel;
pub mod checkpoint;
pub mod error;
pub mod health;
pub mod history;
pub mod logs;
pub mod many;
pub mod metrics;
pub mod operation;
pub mod query;
pub mod queues;
pub mod result;
pub mod schedules;
pub mod shortened;
pub mod start;
pub mod stats;
pub mod summary;
pub mod worker;
pub mod worker_type;

pub use self::error::{ErrorCode, Problem, Violation};
pub use self::operation::OperationDocument;

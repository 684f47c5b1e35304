//! Starts KTRDR operations over a backend's REST interface and waits for their results.
//!
//! ```no_run
//! use ktrdr_client::Client;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize)]
//! struct Cleaning {
//!     source_file: String,
//!     operations: Vec<String>,
//! }
//!
//! #[derive(Deserialize)]
//! struct Cleaned {
//!     rows_processed: u64,
//! }
//!
//! # async fn example() -> Result<(), ktrdr_client::Error> {
//! let client = Client::new("http://127.0.0.1:8000")?;
//! let cleaning = Cleaning {
//!     source_file: "messy/titanic.csv".to_owned(),
//!     operations: vec!["validate".to_owned()],
//! };
//! let cleaned: Cleaned = client.run("data-processing", &cleaning).await?;
//! println!("{} rows", cleaned.rows_processed);
//! # Ok(())
//! # }
//! ```
//!
//! # Repeated requests
//!
//! The client repeats a request when the backend is not reachable or overloaded, or answers that NATS is not
//! reachable ([`ErrorCode::is_passing`]), and when a proxy answers with 429, 502, 503 or 504, until
//! [`Client::give_up_after`] has passed. It waits as long as `Retry-After` says. A certificate that it does not
//! believe is an error at once. That is safe: the client chooses the id of an
//! operation before it sends the start, so a start that arrives twice starts one operation.
//!
//! # Tokens
//!
//! A backend that others reach has a file of tokens. Get one from whoever runs it, and give it to
//! [`Client::token`]. Without a valid token every call fails with [`ErrorCode::Unauthorized`];
//! [`ErrorCode::Forbidden`] says that the token does not allow the call.
//!
//! # HTTPS
//!
//! With the feature `tls`, [`Client::new`] takes an `https` address, and `Client::with_authority` one
//! whose certificate comes from an authority of your own. TLS is rustls with ring. Without the feature,
//! pass a `reqwest::Client` of your own to [`Client::with_http`]. With it, a `reqwest::Client` that your
//! program makes by itself wants a rustls provider, for example by
//! `rustls::crypto::ring::default_provider().install_default()`.
//!
//! # Beside starting and waiting
//!
//! | what | methods |
//! |---|---|
//! | many operations at once | [`Client::start_many`], [`Client::cancel_all`], [`Client::retry_all`] |
//! | operations that start by the clock | [`Client::put_schedule`], [`Client::schedules`], [`Client::run_schedule`], … |
//! | queues | [`Client::queues`], [`Client::pause_queues`], [`Client::resume_queues`] |
//! | workers | [`Client::workers`], [`Client::drain`], [`Client::undrain`] |

mod client;
mod control;
mod error;
mod many;
mod schedules;
mod start;
#[cfg(feature = "tls")]
mod tls;
mod tries;

pub use self::client::Client;
pub use self::error::{Error, Refusal, StartManyError};
pub use self::start::Start;

pub use ktrdr_protocol::event::Failure;
pub use ktrdr_protocol::execution::ExecutionOptions;
pub use ktrdr_protocol::id::{InvalidName, OperationId, ScheduleId, WorkerId, WorkerType};
pub use ktrdr_protocol::labels::{Label, Labels};
pub use ktrdr_protocol::log_line::{LogLevel, LogLine};
pub use ktrdr_protocol::priority::Priority;
pub use ktrdr_protocol::requirements::Requirements;
pub use ktrdr_protocol::rest::cancel::CancelResponse;
pub use ktrdr_protocol::rest::logs::LogsPage;
pub use ktrdr_protocol::rest::many::{
    ByFilter, ByFilterResponse, DoneByFilter, ManyStarted, OneByFilter, OneStarted,
};
pub use ktrdr_protocol::rest::operation::{OperationPage, PermitWait};
pub use ktrdr_protocol::rest::query::{
    Include, ListOperations, ListOrder, ListWorkers, OperationFilter, ReadLogs,
};
pub use ktrdr_protocol::rest::queues::{PausedQueues, QueueOverview};
pub use ktrdr_protocol::rest::schedules::{PutSchedule, ScheduleDocument};
pub use ktrdr_protocol::rest::start::StartResponse;
pub use ktrdr_protocol::rest::stats::Stats;
pub use ktrdr_protocol::rest::worker::{DrainedWorker, WorkerDocument};
pub use ktrdr_protocol::rest::worker_type::WorkerTypeDocument;
pub use ktrdr_protocol::rest::{ErrorCode, OperationDocument, Violation};
pub use ktrdr_protocol::schedule::{CatchUp, LastError, LastRun, Overlap};
pub use ktrdr_protocol::schema_text::SchemaText;
pub use ktrdr_protocol::state::Status;
pub use ktrdr_protocol::time::Timestamp;

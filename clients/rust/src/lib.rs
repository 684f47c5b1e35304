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
//! The client repeats a request when the backend is not reachable or answers that NATS is not,
//! until [`Client::give_up_after`] has passed. That is safe: the client chooses the id of an
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
//! This crate enables no TLS feature of `reqwest`. For an `https` address, depend on `reqwest` with
//! the TLS feature of your choice, and pass its client to [`Client::with_http`].

mod client;
mod error;
mod start;

pub use self::client::Client;
pub use self::error::{Error, Refusal};
pub use self::start::Start;

pub use ktrdr_protocol::event::Failure;
pub use ktrdr_protocol::execution::ExecutionOptions;
pub use ktrdr_protocol::id::OperationId;
pub use ktrdr_protocol::requirements::Requirements;
pub use ktrdr_protocol::rest::cancel::CancelResponse;
pub use ktrdr_protocol::rest::operation::OperationPage;
pub use ktrdr_protocol::rest::query::{ListOperations, ListWorkers};
pub use ktrdr_protocol::rest::start::StartResponse;
pub use ktrdr_protocol::rest::worker::WorkerDocument;
pub use ktrdr_protocol::rest::{ErrorCode, OperationDocument, Violation};
pub use ktrdr_protocol::state::Status;

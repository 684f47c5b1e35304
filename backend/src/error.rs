//! Answers that are not a success; backend and worker share them.

pub use ktrdr_http::error::{ApiError, Cause};
pub use ktrdr_protocol::rest::ErrorCode;

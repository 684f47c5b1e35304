//! Error answers, which backend and worker share. They are in [`ktrdr_http::error`].

pub use ktrdr_http::error::{ApiError, Cause};
pub use ktrdr_protocol::rest::ErrorCode;

//! The steps that every request passes, one per file.

pub mod loaded;
pub mod log_request;
pub mod panic;
pub mod request_id;
pub mod served;

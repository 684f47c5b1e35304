//! What happens to every request, one concern per file.

pub mod loaded;
pub mod log_request;
pub mod panic;
pub mod request_id;
pub mod served;

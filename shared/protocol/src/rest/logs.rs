//! Log lines of an operation.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::OperationId;
use crate::log_line::LogLine;

/// Log lines, oldest first.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LogsResponse<'a> {
    /// Always true.
    pub success: bool,
    /// The lines.
    pub data: LogsPage<'a>,
}

/// One page of log lines.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct LogsPage<'a> {
    /// The id of the operation.
    pub operation_id: Cow<'a, OperationId>,
    /// The lines, oldest first.
    pub lines: Vec<LogLine>,
    /// Continues after this page: reading on with it misses nothing and repeats nothing.
    pub cursor: String,
    /// Whether there may be more lines now. With a level, a page may have few lines or none, and more
    /// behind it.
    pub has_more: bool,
}

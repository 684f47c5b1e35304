//! Whether a resume would begin with a checkpoint.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::OperationId;

/// Whether a resume of an operation would begin with a checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointResponse<'a> {
    /// Always true.
    pub success: bool,
    /// Where the checkpoint is.
    pub data: CheckpointPlace<'a>,
}

/// Whose checkpoint a resume of an operation would begin with.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct CheckpointPlace<'a> {
    /// The id of the operation.
    pub operation_id: Cow<'a, OperationId>,
    /// The operation that saved the checkpoint: this one, or one that it repeats. `null` when there
    /// is none: then a resume starts from the beginning, as a retry does.
    pub resumes_from: Option<Cow<'a, OperationId>>,
}

//! The result of an operation.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::id::OperationId;
use crate::state::Status;

/// The result of a completed operation.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct ResultResponse<'a> {
    /// Always true.
    pub success: bool,
    /// The id of the operation.
    pub operation_id: Cow<'a, OperationId>,
    /// Always `completed`.
    pub status: Status,
    /// The result, as the worker type's result schema describes it.
    #[schemars(with = "Value")]
    pub data: Cow<'a, RawValue>,
}

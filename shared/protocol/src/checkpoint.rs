//! Checkpoints: what an engine stored so that a later attempt can continue from it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::time::Timestamp;

/// The entry of an operation in the bucket `KTRDR_CHECKPOINTS`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Checkpoint {
    /// The number of the attempt that saved it. An earlier attempt does not replace it.
    pub attempt: u32,
    /// When it was saved, by the worker's clock.
    pub at: Timestamp,
    /// The engine's state: any JSON value.
    #[schemars(with = "serde_json::Value")]
    pub state: Box<RawValue>,
}

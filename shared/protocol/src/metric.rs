//! Metric points: values that an engine measured while it ran, for example the loss of each epoch.
//!
//! An engine may measure thousands of values, so points travel in batches, in a stream of their
//! own. That stream may drop the oldest batches when it is full; the operation log never does.
//! Metrics of the programs themselves are another thing: "Prometheus metrics" in the glossary.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{OperationId, WorkerId};
use crate::time::Timestamp;

/// One measured value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MetricPoint {
    /// When it was measured.
    pub timestamp: Timestamp,
    /// The name of the series, for example `rows_processed` or `val_loss`.
    pub name: String,
    /// The value. `null` for infinity and NaN, which JSON cannot express.
    pub value: Option<f64>,
    /// What it was measured at, for example the number of an epoch. Absent when the engine did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<f64>,
    /// The number of the attempt that measured it, because a later attempt may measure the same
    /// again. Absent within a [`MetricBatch`], which has it once for all points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
}

/// A batch of points on `metrics.<worker_type>.<operation_id>`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MetricBatch {
    /// Which operation.
    pub operation_id: OperationId,
    /// The worker that measured.
    pub worker_id: WorkerId,
    /// The number of the attempt.
    pub attempt: u32,
    /// The points, in the order in which they were measured.
    pub points: Vec<MetricPoint>,
}

impl MetricBatch {
    /// The points, each with the number of the attempt.
    pub fn into_points(self) -> impl Iterator<Item = MetricPoint> {
        let attempt = Some(self.attempt);
        self.points
            .into_iter()
            .map(move |point| MetricPoint { attempt, ..point })
    }
}

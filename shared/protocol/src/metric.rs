//! Metric points: values that an engine measured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{OperationId, WorkerId};
use crate::time::Timestamp;

/// One measured value.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MetricPoint {
    /// When it was measured.
    pub timestamp: Timestamp,
    /// What was measured, for example `rows_processed` or `val_loss`.
    pub name: String,
    /// The value; one that is not finite becomes `null`.
    pub value: Option<f64>,
    /// The attempt that measured it: one that took over may measure the same again. Absent within a [`MetricBatch`], which says
    /// it for all of its points.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
}

/// A batch of points on `metrics.<worker_type>.<operation_id>`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MetricBatch {
    /// The operation.
    pub operation_id: OperationId,
    /// Who measured.
    pub worker_id: WorkerId,
    /// In which attempt.
    pub attempt: u32,
    /// In the order in which they were measured.
    pub points: Vec<MetricPoint>,
}

impl MetricBatch {
    /// Its points, each with the attempt.
    pub fn into_points(self) -> impl Iterator<Item = MetricPoint> {
        let attempt = Some(self.attempt);
        self.points
            .into_iter()
            .map(move |point| MetricPoint { attempt, ..point })
    }
}

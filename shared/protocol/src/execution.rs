//! Execution options: how an operation is to be run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::requirements::Requirements;

/// Takeovers allowed when a start request does not say: a request that kills three workers ends `failed`.
pub const DEFAULT_MAX_ATTEMPTS: u32 = 3;

/// How an operation is to be run; the reserved key `execution` of a start body.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Execution")]
pub struct ExecutionOptions {
    /// What a worker must have to run it; decides the queue.
    #[serde(default, skip_serializing_if = "Requirements::is_any")]
    pub requirements: Requirements,
    /// Seconds one attempt may run before it is stopped and counted as failed. No limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.001, max = 31_536_000.0))]
    pub timeout_seconds: Option<f64>,
    /// How many attempts there may be in all. Absent: 3 when workers are lost, and a failure is final at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_attempts: Option<u32>,
    /// Seconds before a failed attempt is tried again; doubled for each further one (with jitter, at most one hour).
    /// Setting this or `max_attempts` makes failures retry; errors that the engine calls permanent never do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 3600.0))]
    pub retry_delay: Option<f64>,
}

impl ExecutionOptions {
    /// Whether nothing was asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The bound on attempts in force.
    pub fn max_attempts(&self) -> u32 {
        self.max_attempts.unwrap_or(DEFAULT_MAX_ATTEMPTS)
    }

    /// Whether an attempt that failed (not lost) is tried again while attempts are left.
    pub fn retries_failures(&self) -> bool {
        self.max_attempts.is_some() || self.retry_delay.is_some()
    }
}

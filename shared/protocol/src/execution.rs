//! Execution options: how an operation is to be run.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::requirements::Requirements;

/// Attempts allowed when the execution options do not say. An operation that kills three workers
/// ends as failed.
pub const DEFAULT_MAX_ATTEMPTS: u32 = 3;

/// How an operation is to be run; the reserved key `execution` of a start body.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Execution")]
pub struct ExecutionOptions {
    /// What a worker must have to run it; decides the queue.
    #[serde(default, skip_serializing_if = "Requirements::is_any")]
    pub requirements: Requirements,
    /// Seconds one attempt may run before it is stopped and counted as failed. No limit when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.001, max = 31_536_000.0))]
    pub timeout_seconds: Option<f64>,
    /// Seconds an attempt may go on without any sign of life: progress, a metric point, a
    /// checkpoint. Then it ends as `stalled`, and is tried again like one whose worker was lost. No
    /// limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.001, max = 31_536_000.0))]
    pub stall_timeout_seconds: Option<f64>,
    /// How many attempts there may be in all. Absent: 3 when workers are lost, and a failure is
    /// final at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_attempts: Option<u32>,
    /// Seconds before a failed attempt is tried again; doubled for each further one (with jitter,
    /// at most one hour). Setting this or `max_attempts` makes failures retry; errors that the
    /// engine calls permanent never do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 3600.0))]
    pub retry_delay: Option<f64>,
}

impl ExecutionOptions {
    /// Whether nothing was asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The limits in force for an operation. Each option that the request sets counts; where it
    /// sets none, the default of its worker type; and then the default of the protocol.
    pub fn limits(&self, defaults: &ExecutionDefaults) -> ExecutionLimits {
        let max_attempts = self.max_attempts.or(defaults.max_attempts);
        let retry_delay = self.retry_delay.or(defaults.retry_delay);
        ExecutionLimits {
            timeout_seconds: self.timeout_seconds.or(defaults.timeout_seconds),
            stall_timeout_seconds: self
                .stall_timeout_seconds
                .or(defaults.stall_timeout_seconds),
            max_attempts: max_attempts.unwrap_or(DEFAULT_MAX_ATTEMPTS),
            retry_delay,
            retries_failures: max_attempts.is_some() || retry_delay.is_some(),
        }
    }
}

/// The execution options that a worker type uses when a start request does not set them; part of
/// its catalogue entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExecutionDefaults {
    /// Seconds one attempt may run before it is stopped and counted as failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
    /// Seconds an attempt may go on without any sign of life before it ends as `stalled`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stall_timeout_seconds: Option<f64>,
    /// How many attempts there may be in all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Seconds before a failed attempt is tried again; doubled for each further one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_delay: Option<f64>,
}

impl ExecutionDefaults {
    /// Whether the worker type sets none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The limits in force for one operation; see [`ExecutionOptions::limits`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ExecutionLimits {
    /// Seconds one attempt may run; no limit when absent.
    pub timeout_seconds: Option<f64>,
    /// Seconds an attempt may go on without any sign of life; no limit when absent.
    pub stall_timeout_seconds: Option<f64>,
    /// How many attempts there may be in all.
    pub max_attempts: u32,
    /// Seconds before the first retry, when they are set.
    pub retry_delay: Option<f64>,
    /// Whether an attempt that failed (not lost) is tried again while attempts are left.
    pub retries_failures: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: ExecutionDefaults = ExecutionDefaults {
        timeout_seconds: Some(60.0),
        stall_timeout_seconds: None,
        max_attempts: Some(5),
        retry_delay: None,
    };

    #[test]
    fn a_request_overrides_the_defaults_of_its_worker_type_option_by_option() {
        let options = ExecutionOptions {
            max_attempts: Some(1),
            ..ExecutionOptions::default()
        };

        let limits = options.limits(&DEFAULTS);

        assert_eq!(limits.max_attempts, 1);
        assert_eq!(limits.timeout_seconds, Some(60.0));
    }

    #[test]
    fn without_any_option_three_lost_workers_are_too_many_and_a_failure_is_final() {
        let limits = ExecutionOptions::default().limits(&ExecutionDefaults::default());

        assert_eq!(limits.max_attempts, DEFAULT_MAX_ATTEMPTS);
        assert!(!limits.retries_failures);
        assert_eq!(limits.timeout_seconds, None);
    }

    #[test]
    fn a_default_bound_on_attempts_makes_failures_retry() {
        assert!(
            ExecutionOptions::default()
                .limits(&DEFAULTS)
                .retries_failures
        );
    }
}

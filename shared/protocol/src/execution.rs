//! Execution options: how an operation is to be run.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

use crate::keys::{Concurrency, Unique};
use crate::labels::Labels;
use crate::priority::Priority;
use crate::requirements::Requirements;
use crate::time::Timestamp;

/// Attempts allowed when the execution options do not say. An operation that kills three workers
/// ends as failed.
pub const DEFAULT_MAX_ATTEMPTS: u32 = 3;

/// Shortest time limit, in seconds.
pub const MIN_TIMEOUT: f64 = 0.001;

/// Longest time limit, in seconds.
pub const MAX_TIMEOUT: f64 = 31_536_000.0;

/// Most attempts.
pub const MAX_ATTEMPTS: u32 = 1000;

/// Longest delay of a retry, in seconds.
pub const MAX_RETRY_DELAY: f64 = 3600.0;

/// How many unknown options are named, and how many characters of each name.
const MAX_UNKNOWN: usize = 8;
const MAX_NAME: usize = 64;

/// How an operation is to be run; the reserved key `execution` of a start body.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "Execution", deny_unknown_fields)]
pub struct ExecutionOptions {
    /// What a worker must have to run it; decides the queue.
    #[serde(default, skip_serializing_if = "Requirements::is_any")]
    pub requirements: Requirements,
    /// Seconds one attempt may run before it is stopped and counted as failed. No limit when
    /// absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = MIN_TIMEOUT, max = MAX_TIMEOUT))]
    pub timeout_seconds: Option<f64>,
    /// Seconds an attempt may go on without any sign of life: progress, a metric point, a log line,
    /// a checkpoint. Then it ends as `stalled`, and is tried again like one whose worker was lost.
    /// No limit when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = MIN_TIMEOUT, max = MAX_TIMEOUT))]
    pub stall_timeout_seconds: Option<f64>,
    /// How many attempts there may be in all. Absent: 3 when workers are lost, and a failure is
    /// final at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = MAX_ATTEMPTS))]
    pub max_attempts: Option<u32>,
    /// Seconds before a failed attempt is tried again; doubled for each further one (with jitter,
    /// at most one hour). Setting this or `max_attempts` makes failures retry; errors that the
    /// engine calls permanent never do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = MAX_RETRY_DELAY))]
    pub retry_delay: Option<f64>,
    /// How soon it is started, compared with others that wait for the same workers: 1 is the first, 5
    /// the last. 3 when absent. A waiting operation can be given another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// Not before this time. Its retention bounds how far it may be ahead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Timestamp>,
    /// Not before so many seconds after the start request was stored; instead of `start_at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 31_536_000.0))]
    pub delay_seconds: Option<f64>,
    /// Not after this time: an operation of which no attempt has started by then ends as failed, with
    /// the code `expired`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The same, in seconds after the start request was stored; instead of `expires_at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.001, max = 31_536_000.0))]
    pub queue_timeout_seconds: Option<f64>,
    /// Texts by which the operation is found: up to 16, each with a name. They never change.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// At most one operation with this key is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Unique")]
    pub unique: Option<Unique>,
    /// At most so many operations with this key run at a time; others wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Concurrency")]
    pub concurrency: Option<Concurrency>,
    /// The names of options that this version does not know, as it read them from a message: a
    /// backend of a later version may have written it, and it stays readable. A worker hands such a
    /// request back. They are not written again. REST interfaces refuse unknown options.
    #[serde(skip)]
    pub unknown: Vec<String>,
}

/// [`ExecutionOptions`] as they are read. Flattening is slow, but few start requests have options.
#[derive(Deserialize)]
#[expect(clippy::zero_sized_map_values, reason = "only a map can be flattened")]
struct ReadOptions {
    #[serde(default)]
    requirements: ReadRequirements,
    #[serde(default)]
    timeout_seconds: Option<f64>,
    #[serde(default)]
    stall_timeout_seconds: Option<f64>,
    #[serde(default)]
    max_attempts: Option<u32>,
    #[serde(default)]
    retry_delay: Option<f64>,
    #[serde(default)]
    priority: Option<Priority>,
    #[serde(default)]
    start_at: Option<Timestamp>,
    #[serde(default)]
    delay_seconds: Option<f64>,
    #[serde(default)]
    expires_at: Option<Timestamp>,
    #[serde(default)]
    queue_timeout_seconds: Option<f64>,
    #[serde(default)]
    labels: Labels,
    #[serde(default)]
    unique: Option<Unique>,
    #[serde(default)]
    concurrency: Option<Concurrency>,
    #[serde(flatten)]
    unknown: BTreeMap<String, IgnoredAny>,
}

#[derive(Default, Deserialize)]
#[expect(clippy::zero_sized_map_values, reason = "only a map can be flattened")]
struct ReadRequirements {
    #[serde(flatten)]
    known: Requirements,
    #[serde(flatten)]
    all: BTreeMap<String, IgnoredAny>,
}

impl<'de> Deserialize<'de> for ExecutionOptions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let ReadOptions {
            requirements,
            timeout_seconds,
            stall_timeout_seconds,
            max_attempts,
            retry_delay,
            priority,
            start_at,
            delay_seconds,
            expires_at,
            queue_timeout_seconds,
            labels,
            unique,
            concurrency,
            unknown,
        } = ReadOptions::deserialize(deserializer)?;
        let of_requirements = requirements.all.into_keys();
        let of_requirements = of_requirements.map(|name| format!("requirements.{name}"));
        Ok(Self {
            requirements: requirements.known,
            timeout_seconds,
            stall_timeout_seconds,
            max_attempts,
            retry_delay,
            priority,
            start_at,
            delay_seconds,
            expires_at,
            queue_timeout_seconds,
            labels,
            unique,
            concurrency,
            unknown: unknown
                .into_keys()
                .chain(of_requirements)
                .map(short_name)
                .take(MAX_UNKNOWN)
                .collect(),
        })
    }
}

/// A name as it is kept: a message may hold any.
fn short_name(mut name: String) -> String {
    if let Some((end, _)) = name.char_indices().nth(MAX_NAME) {
        name.truncate(end);
    }
    name
}

impl ExecutionOptions {
    /// Whether nothing was asked for.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// When an operation may start that was created at this time; `None` at once.
    ///
    /// ```
    /// use ktrdr_protocol::execution::ExecutionOptions;
    /// use ktrdr_protocol::time::Timestamp;
    ///
    /// let options = ExecutionOptions { delay_seconds: Some(1.5), ..ExecutionOptions::default() };
    /// let created = Timestamp::from_millis(1_000);
    /// assert_eq!(options.due(created), Some(Timestamp::from_millis(2_500)));
    /// assert_eq!(options.deadline(created), None);
    /// ```
    pub fn due(&self, created_at: Timestamp) -> Option<Timestamp> {
        moment(self.start_at, self.delay_seconds, created_at)
    }

    /// Until when an operation must have started that was created at this time; `None` without a
    /// limit.
    pub fn deadline(&self, created_at: Timestamp) -> Option<Timestamp> {
        moment(self.expires_at, self.queue_timeout_seconds, created_at)
    }

    /// The options of an operation that repeats this one: the times were about the first one.
    #[must_use]
    pub fn of_repetition(self) -> Self {
        Self {
            start_at: None,
            delay_seconds: None,
            expires_at: None,
            queue_timeout_seconds: None,
            ..self
        }
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

/// A time, or one that is so many seconds after `from`.
fn moment(time: Option<Timestamp>, seconds: Option<f64>, from: Timestamp) -> Option<Timestamp> {
    let after = |seconds: f64| {
        // Whoever may publish can write any number.
        let span = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX);
        from.plus(span)
    };
    time.or_else(|| seconds.map(after))
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
    fn options_of_a_later_version_are_named() {
        let text =
            r#"{"timeout_seconds":1.5,"nice":{"a":[1]},"requirements":{"cores":2,"tpu":true}}"#;
        let read: ExecutionOptions = serde_json::from_str(text).unwrap();

        assert_eq!(read.unknown, ["nice", "requirements.tpu"]);
        assert_eq!(read.timeout_seconds, Some(1.5));
        assert_eq!(read.requirements.cores, Some(2));
        assert!(!read.is_default());
        let written = serde_json::to_value(&read).unwrap();
        let known = serde_json::json!({"timeout_seconds": 1.5, "requirements": {"cores": 2}});
        assert_eq!(written, known);
        let only = r#"{"nice":1}"#;
        let only: ExecutionOptions = serde_json::from_str(only).unwrap();
        assert!(!only.is_default());
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

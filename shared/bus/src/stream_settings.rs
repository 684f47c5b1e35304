//! The settings in force: they live with the operations stream, not with a process.
//!
//! The problem: replicas, retention, limits and lease belong to the data. If each process applied
//! its own, a backend that somebody starts with defaults would take away copies and history.
//!
//! How it is solved: the first backend makes the stream and writes its settings with it. From then on
//! every process follows what is stored. The stream's own configuration says how many copies there
//! are and how large it may be; its metadata says the rest ([`StreamSettings::metadata`]). A process
//! that was asked for something else says so ([`StreamSettings::differences`]). Only
//! `ktrdr-backend configure --apply` changes what is stored.
//!
//! A stream of version 0.1.0 has no metadata. What it has is in force, and a backend writes it down.
//!
//! Rejected: a key in the bucket of worker types. It could be lost while the stream is there, or be
//! of another stream.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use async_nats::jetstream::stream::Config;

use crate::settings::{AskedSettings, parse_duration, parse_limit};

/// Metadata of the operations stream.
const RETENTION: &str = "ktrdr-retention";
const LEASE: &str = "ktrdr-lease";
const METRICS_MAX_BYTES: &str = "ktrdr-metrics-max-bytes";
const RESULTS_MAX_BYTES: &str = "ktrdr-results-max-bytes";
const CHECKPOINTS_MAX_BYTES: &str = "ktrdr-checkpoints-max-bytes";

/// No limit in bytes.
pub const UNLIMITED: i64 = -1;

/// The retention of a stream from which nothing ever leaves by its age.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 86_400);

/// The settings of all streams and buckets of one prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamSettings {
    /// Copies of each stream.
    pub replicas: u8,
    /// How long an operation is kept after its end.
    pub retention: Duration,
    /// How long a delivered start request belongs to one worker without an extension.
    pub lease: Duration,
    /// Limit of the operations stream in bytes; [`UNLIMITED`] for none, as for all limits.
    pub stream_max_bytes: i64,
    /// Limit of the metrics stream.
    pub metrics_max_bytes: i64,
    /// Limit of each worker type's bucket of large results.
    pub results_max_bytes: i64,
    /// Limit of the bucket of checkpoints.
    pub checkpoints_max_bytes: i64,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            replicas: 1,
            retention: Duration::from_secs(7 * 86_400),
            lease: Duration::from_secs(30),
            stream_max_bytes: UNLIMITED,
            metrics_max_bytes: UNLIMITED,
            results_max_bytes: UNLIMITED,
            checkpoints_max_bytes: UNLIMITED,
        }
    }
}

impl AskedSettings {
    /// These settings, and those of `base` for what was not asked.
    #[must_use]
    pub fn over(&self, base: &StreamSettings) -> StreamSettings {
        StreamSettings {
            replicas: self.stream_replicas.unwrap_or(base.replicas),
            retention: self.retention.unwrap_or(base.retention),
            lease: self.lease.unwrap_or(base.lease),
            stream_max_bytes: self.stream_max_bytes.unwrap_or(base.stream_max_bytes),
            metrics_max_bytes: self.metrics_max_bytes.unwrap_or(base.metrics_max_bytes),
            results_max_bytes: self.results_max_bytes.unwrap_or(base.results_max_bytes),
            checkpoints_max_bytes: self
                .checkpoints_max_bytes
                .unwrap_or(base.checkpoints_max_bytes),
        }
    }

    /// These settings, and defaults for what was not asked.
    #[must_use]
    pub fn or_default(&self) -> StreamSettings {
        self.over(&StreamSettings::default())
    }
}

/// What the operations stream says about the settings in force. Metadata that is missing or cannot
/// be read is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredSettings {
    replicas: u8,
    max_age: Duration,
    stream_max_bytes: i64,
    retention: Option<Duration>,
    lease: Option<Duration>,
    metrics_max_bytes: Option<i64>,
    results_max_bytes: Option<i64>,
    checkpoints_max_bytes: Option<i64>,
}

impl StoredSettings {
    /// Reads them from the configuration of the operations stream.
    pub fn of(config: &Config) -> Self {
        let text = |key: &str| config.metadata.get(key).map(String::as_str);
        let duration = |key| text(key).and_then(|text| parse_duration(text).ok());
        let limit = |key| text(key).and_then(|text| parse_limit(text).ok());
        Self {
            replicas: u8::try_from(config.num_replicas).unwrap_or(1).max(1),
            max_age: config.max_age,
            stream_max_bytes: if config.max_bytes > 0 {
                config.max_bytes
            } else {
                UNLIMITED
            },
            retention: duration(RETENTION),
            lease: duration(LEASE),
            metrics_max_bytes: limit(METRICS_MAX_BYTES),
            results_max_bytes: limit(RESULTS_MAX_BYTES),
            checkpoints_max_bytes: limit(CHECKPOINTS_MAX_BYTES),
        }
    }

    /// The settings in force, when all are stored.
    pub fn complete(&self) -> Option<StreamSettings> {
        let retention = self.retention?;
        let lease = self.lease?;
        Some(StreamSettings {
            replicas: self.replicas,
            retention,
            lease,
            stream_max_bytes: self.stream_max_bytes,
            metrics_max_bytes: self.metrics_max_bytes?,
            results_max_bytes: self.results_max_bytes?,
            checkpoints_max_bytes: self.checkpoints_max_bytes?,
        })
    }

    /// The settings in force of a stream that says only a part of them: what the stream does, the
    /// `lease` that its queues have, and no limits for what had none.
    pub fn complete_with(&self, lease: Duration) -> StreamSettings {
        let by_age = if self.max_age.is_zero() {
            FOR_EVER
        } else {
            self.max_age
        };
        StreamSettings {
            replicas: self.replicas,
            retention: self.retention.unwrap_or(by_age),
            lease: self.lease.unwrap_or(lease),
            stream_max_bytes: self.stream_max_bytes,
            metrics_max_bytes: self.metrics_max_bytes.unwrap_or(UNLIMITED),
            results_max_bytes: self.results_max_bytes.unwrap_or(UNLIMITED),
            checkpoints_max_bytes: self.checkpoints_max_bytes.unwrap_or(UNLIMITED),
        }
    }
}

/// One setting with two values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its environment variable.
    pub variable: &'static str,
    /// Its flag.
    pub flag: &'static str,
    /// What is in force.
    pub stored: String,
    /// What was asked for.
    pub asked: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            variable,
            stored,
            asked,
            ..
        } = self;
        write!(f, "{variable} is {stored}, not {asked}")
    }
}

impl StreamSettings {
    /// What the operations stream keeps as metadata, beside what its configuration says.
    pub fn metadata(&self) -> HashMap<String, String> {
        [
            (RETENTION, duration_text(self.retention)),
            (LEASE, duration_text(self.lease)),
            (METRICS_MAX_BYTES, self.metrics_max_bytes.to_string()),
            (RESULTS_MAX_BYTES, self.results_max_bytes.to_string()),
            (
                CHECKPOINTS_MAX_BYTES,
                self.checkpoints_max_bytes.to_string(),
            ),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into()
    }

    /// Every setting: its variable, its flag, and its value as it is written.
    pub fn described(&self) -> [(&'static str, &'static str, String); 7] {
        [
            (
                "KTRDR_RETENTION",
                "--retention",
                duration_text(self.retention),
            ),
            ("KTRDR_LEASE", "--lease", duration_text(self.lease)),
            (
                "KTRDR_STREAM_REPLICAS",
                "--stream-replicas",
                self.replicas.to_string(),
            ),
            (
                "KTRDR_STREAM_MAX_BYTES",
                "--stream-max-bytes",
                self.stream_max_bytes.to_string(),
            ),
            (
                "KTRDR_METRICS_MAX_BYTES",
                "--metrics-max-bytes",
                self.metrics_max_bytes.to_string(),
            ),
            (
                "KTRDR_RESULTS_MAX_BYTES",
                "--results-max-bytes",
                self.results_max_bytes.to_string(),
            ),
            (
                "KTRDR_CHECKPOINTS_MAX_BYTES",
                "--checkpoints-max-bytes",
                self.checkpoints_max_bytes.to_string(),
            ),
        ]
    }

    /// Which settings `other` has differently.
    pub fn differences(&self, other: &Self) -> Vec<Difference> {
        let pairs = self.described().into_iter().zip(other.described());
        pairs
            .filter(|((_, _, stored), (_, _, asked))| stored != asked)
            .map(|((variable, flag, stored), (_, _, asked))| Difference {
                variable,
                flag,
                stored,
                asked,
            })
            .collect()
    }
}

/// A duration as people write it, without a part that is zero: `7days`, `1m 30s`.
fn duration_text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(settings: &StreamSettings) -> Config {
        Config {
            num_replicas: usize::from(settings.replicas),
            max_bytes: settings.stream_max_bytes,
            metadata: settings.metadata(),
            ..Config::default()
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let settings = StreamSettings {
            replicas: 3,
            retention: Duration::from_millis(90_500),
            lease: Duration::from_millis(1_500),
            stream_max_bytes: 10 << 30,
            metrics_max_bytes: 1 << 20,
            results_max_bytes: 1 << 30,
            checkpoints_max_bytes: UNLIMITED,
        };

        let read = StoredSettings::of(&stored(&settings));

        assert_eq!(read.complete(), Some(settings));
    }

    #[test]
    fn a_stream_without_metadata_keeps_what_it_does() {
        let old = Config {
            num_replicas: 3,
            max_age: Duration::from_secs(30),
            max_bytes: -1,
            ..Config::default()
        };

        let read = StoredSettings::of(&old);

        assert_eq!(read.complete(), None);
        let settings = read.complete_with(Duration::from_secs(5));
        assert_eq!(settings.replicas, 3);
        assert_eq!(settings.retention, Duration::from_secs(30));
        assert_eq!(settings.lease, Duration::from_secs(5));
        assert_eq!(settings.results_max_bytes, UNLIMITED);
    }

    #[test]
    fn only_what_was_asked_differs() {
        let in_force = StreamSettings {
            replicas: 3,
            retention: Duration::from_secs(30 * 86_400),
            ..StreamSettings::default()
        };
        let nothing = AskedSettings::default();
        let asked = AskedSettings {
            retention: Some(Duration::from_secs(10)),
            ..AskedSettings::default()
        };

        assert_eq!(in_force.differences(&nothing.over(&in_force)), []);
        let differences = in_force.differences(&asked.over(&in_force));

        assert_eq!(
            differences[0].to_string(),
            "KTRDR_RETENTION is 30days, not 10s"
        );
        assert_eq!(differences.len(), 1);
    }
}

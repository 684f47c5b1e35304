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

use crate::settings::{
    AskedSettings, LONGEST, SHORTEST_IN_STREAM, parse_age_limit, parse_in_stream, parse_limit,
};

/// Metadata of the operations stream.
const RETENTION: &str = "ktrdr-retention";
const LEASE: &str = "ktrdr-lease";
const METRICS_MAX_BYTES: &str = "ktrdr-metrics-max-bytes";
const LOGS_MAX_BYTES: &str = "ktrdr-logs-max-bytes";
const LOGS_MAX_AGE: &str = "ktrdr-logs-max-age";
const RESULTS_MAX_BYTES: &str = "ktrdr-results-max-bytes";
const CHECKPOINTS_MAX_BYTES: &str = "ktrdr-checkpoints-max-bytes";

/// No limit in bytes.
pub const UNLIMITED: i64 = -1;

/// The limit of the stream of log lines unless another one is in force: an engine may say much, and
/// nothing depends on it.
const DEFAULT_LOGS_MAX_BYTES: i64 = 1 << 30;

/// The retention of a stream from which nothing ever leaves by its age.
const FOR_EVER: Duration = LONGEST;

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
    /// Limit of the stream of log lines.
    pub logs_max_bytes: i64,
    /// How long a log line is kept at most; [`LONGEST`] for as long as its operation.
    pub logs_max_age: Duration,
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
            logs_max_bytes: DEFAULT_LOGS_MAX_BYTES,
            logs_max_age: LONGEST,
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
            logs_max_bytes: self.logs_max_bytes.unwrap_or(base.logs_max_bytes),
            logs_max_age: self.logs_max_age.unwrap_or(base.logs_max_age),
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
    /// Streams of releases before log lines say nothing about them.
    logs_max_bytes: i64,
    logs_max_age: Duration,
    results_max_bytes: Option<i64>,
    checkpoints_max_bytes: Option<i64>,
}

impl StoredSettings {
    /// Reads them from the configuration of the operations stream.
    pub fn of(config: &Config) -> Self {
        let text = |key: &str| config.metadata.get(key).map(String::as_str);
        let duration = |key| text(key).and_then(|text| parse_in_stream(text).ok());
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
            logs_max_bytes: limit(LOGS_MAX_BYTES).unwrap_or(DEFAULT_LOGS_MAX_BYTES),
            logs_max_age: text(LOGS_MAX_AGE)
                .and_then(|text| parse_age_limit(text).ok())
                .unwrap_or(LONGEST),
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
            logs_max_bytes: self.logs_max_bytes,
            logs_max_age: self.logs_max_age,
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
            self.max_age.clamp(SHORTEST_IN_STREAM, FOR_EVER)
        };
        StreamSettings {
            replicas: self.replicas,
            retention: self.retention.unwrap_or(by_age),
            lease: self
                .lease
                .unwrap_or(lease)
                .clamp(SHORTEST_IN_STREAM, LONGEST),
            stream_max_bytes: self.stream_max_bytes,
            metrics_max_bytes: self.metrics_max_bytes.unwrap_or(UNLIMITED),
            logs_max_bytes: self.logs_max_bytes,
            logs_max_age: self.logs_max_age,
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
            (RETENTION, stored_text(self.retention)),
            (LEASE, stored_text(self.lease)),
            (METRICS_MAX_BYTES, self.metrics_max_bytes.to_string()),
            (LOGS_MAX_BYTES, self.logs_max_bytes.to_string()),
            (LOGS_MAX_AGE, age_limit_text(self.logs_max_age, stored_text)),
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
    pub fn described(&self) -> [(&'static str, &'static str, String); 9] {
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
                limit_text(self.stream_max_bytes),
            ),
            (
                "KTRDR_METRICS_MAX_BYTES",
                "--metrics-max-bytes",
                limit_text(self.metrics_max_bytes),
            ),
            (
                "KTRDR_LOGS_MAX_BYTES",
                "--logs-max-bytes",
                limit_text(self.logs_max_bytes),
            ),
            (
                "KTRDR_LOGS_MAX_AGE",
                "--logs-max-age",
                age_limit_text(self.logs_max_age, duration_text),
            ),
            (
                "KTRDR_RESULTS_MAX_BYTES",
                "--results-max-bytes",
                limit_text(self.results_max_bytes),
            ),
            (
                "KTRDR_CHECKPOINTS_MAX_BYTES",
                "--checkpoints-max-bytes",
                limit_text(self.checkpoints_max_bytes),
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

/// A limit in bytes as people write it: `10GiB`; `-1` for none.
fn limit_text(limit: i64) -> String {
    const UNITS: [(i64, &str); 4] = [
        (1 << 40, "TiB"),
        (1 << 30, "GiB"),
        (1 << 20, "MiB"),
        (1 << 10, "KiB"),
    ];

    let whole = UNITS
        .into_iter()
        .find(|(unit, _)| limit > 0 && limit % unit == 0);
    match whole {
        Some((unit, name)) => format!("{}{name}", limit / unit),
        None => limit.to_string(),
    }
}

/// The longest age of what a stream keeps, as text; `-1` for no limit.
fn age_limit_text(limit: Duration, text: impl FnOnce(Duration) -> String) -> String {
    match limit {
        LONGEST => "-1".to_owned(),
        limit => text(limit),
    }
}

/// A duration as it is stored. Every version reads this form.
fn stored_text(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// A duration as people write it, without a part that is zero: `40days`, `1h 30m`. No part is longer
/// than a day: months and years are not the same everywhere.
pub fn duration_text(duration: Duration) -> String {
    const DAY: u64 = 86_400;

    let days = duration.as_secs() / DAY;
    let rest = Duration::new(duration.as_secs() % DAY, duration.subsec_nanos());
    let days = match days {
        0 => None,
        1 => Some("1day".to_owned()),
        more => Some(format!("{more}days")),
    };
    let is_shown = days.is_none() || !rest.is_zero();
    let rest = is_shown.then(|| humantime::format_duration(rest).to_string());
    let parts: Vec<String> = days.into_iter().chain(rest).collect();
    parts.join(" ")
}

impl StreamSettings {
    /// Describes settings that are valid one by one but contradict each other.
    pub fn contradictions(&self, heartbeat_interval: Duration) -> Vec<String> {
        let mut found = Vec::new();
        let (lease, retention) = (duration_text(self.lease), duration_text(self.retention));
        let beats = heartbeat_interval * 3;
        if self.lease < beats {
            found.push(format!(
                "the lease in force (KTRDR_LEASE, {lease}) is shorter than 3 heartbeats ({}): operations are taken over from workers that are still shown as healthy",
                duration_text(beats)
            ));
        }
        if self.retention < self.lease {
            found.push(format!(
                "the retention in force (KTRDR_RETENTION, {retention}) is shorter than the lease (KTRDR_LEASE, {lease}): a worker that holds a start request may run it although it was cancelled and forgotten meanwhile"
            ));
        }
        found
    }
}

#[cfg(test)]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::parse_duration;

    fn stored(settings: &StreamSettings) -> Config {
        Config {
            num_replicas: usize::from(settings.replicas),
            max_bytes: settings.stream_max_bytes,
            metadata: settings.metadata(),
            ..Config::default()
        }
    }

    #[test]
    fn a_limit_is_written_as_it_can_be_set() {
        for (limit, text) in [
            (UNLIMITED, "-1"),
            (1 << 30, "1GiB"),
            (1536 << 20, "1536MiB"),
            (10_000_000_001, "10000000001"),
        ] {
            assert_eq!(limit_text(limit), text);
            assert_eq!(parse_limit(text), Ok(limit));
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
            logs_max_bytes: 2 << 20,
            logs_max_age: Duration::from_secs(3_600),
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

    #[test]
    fn no_part_of_a_duration_is_longer_than_a_day() {
        let text = |seconds, millis| {
            duration_text(Duration::from_secs(seconds) + Duration::from_millis(millis))
        };
        assert_eq!(text(40 * 86_400, 0), "40days");
        assert_eq!(text(400 * 86_400 + 3_600, 0), "400days 1h");
        assert_eq!(text(86_400, 0), "1day");
        assert_eq!(text(90, 500), "1m 30s 500ms");
        assert_eq!(text(0, 0), "0s");

        for seconds in [
            1, 59, 3_601, 86_399, 86_400, 2_630_016, 31_557_600, 40_000_000,
        ] {
            let duration = Duration::from_secs(seconds);
            assert_eq!(parse_duration(&duration_text(duration)), Ok(duration));
        }
    }

    #[test]
    fn settings_that_contradict_each_other_are_named() {
        let beat = Duration::from_secs(10);
        let settings = StreamSettings {
            retention: Duration::from_secs(1),
            lease: Duration::from_secs(2),
            ..StreamSettings::default()
        };

        let found = settings.contradictions(beat);

        assert!(
            found[0].contains("KTRDR_LEASE, 2s") && found[0].contains("30s"),
            "{found:?}"
        );
        assert!(found[1].contains("KTRDR_RETENTION, 1s"), "{found:?}");
        assert_eq!(
            StreamSettings::default().contradictions(beat),
            Vec::<String>::new()
        );
    }
}

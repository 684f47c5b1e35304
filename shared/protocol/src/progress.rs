//! How far an attempt is, in events, heartbeats, progress messages and documents.
//!
//! The problem: engines report progress at any rate, each with counters of its own, and every
//! reader wants the newest report. Storing each report would cost more than most operations.
//!
//! How it is solved: one type, [`Progress`], everywhere. It has three fields that everybody knows,
//! and an engine's own counters beside them. Running attempts send it over core NATS, which stores
//! nothing; the last one is stored with the end of the attempt. Attempt and report number say which
//! of two reports is newer, so clocks do not matter.
//!
//! Rejected: an object for the engine's own counters. The guide shows them beside `percentage`.
//! Also rejected: a type parameter per engine, because backends read progress of worker types that
//! they have never heard of.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::id::{OperationId, WorkerId};
use crate::json::length;
use crate::time::Timestamp;

/// How far an attempt is. An engine's own counters stand beside `percentage`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct Progress {
    /// 0 to 100, never falling within one attempt.
    #[serde(serialize_with = "whole_numbers_without_point")]
    #[schemars(with = "f64", range(min = 0.0, max = 100.0))]
    pub percentage: f64,
    /// The current step, as a text for people: `Cleaning: 4500/10000 rows`.
    #[schemars(default)]
    pub current_step: Option<String>,
    /// Estimate of the seconds left, when there is one.
    #[schemars(default)]
    pub estimated_remaining_seconds: Option<u64>,
    /// The engine's own counters, for example `rows_processed`. A counter with the name of one of
    /// the fields above is not written.
    #[serde(flatten, serialize_with = "own_fields")]
    pub fields: Map<String, Value>,
}

impl Progress {
    /// Progress at `percentage`, limited to 0 to 100. NaN counts as 0.
    pub fn new(percentage: f64) -> Self {
        let percentage = if percentage.is_nan() {
            0.0
        } else {
            percentage.clamp(0.0, 100.0)
        };
        Self {
            percentage,
            ..Self::default()
        }
    }

    /// Progress at `done` of `total`. When `total` is 0, the percentage is 0.
    pub fn ratio(done: u64, total: u64) -> Self {
        Self::new(if total == 0 {
            0.0
        } else {
            done as f64 / total as f64 * 100.0
        })
    }

    /// Sets the current step, a text for people.
    #[must_use]
    pub fn step(mut self, text: impl Into<String>) -> Self {
        self.current_step = Some(text.into());
        self
    }

    /// Sets the estimate of the seconds left.
    #[must_use]
    pub fn remaining_seconds(mut self, seconds: Option<u64>) -> Self {
        self.estimated_remaining_seconds = seconds;
        self
    }

    /// Adds a counter of the engine's own.
    #[must_use]
    pub fn field(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.fields.insert(name.into(), value.into());
        self
    }

    /// Characters of `current_step` that backends keep while an attempt runs.
    pub const KEPT_STEP: usize = 1000;

    /// Bytes of an engine's own counters, written as JSON, that backends keep while an attempt runs.
    pub const KEPT_FIELDS: usize = 16 * 1024;

    /// Cuts the step after so many characters, and leaves out the engine's own counters when they
    /// have more than so many bytes. Returns about how many bytes the progress has then.
    pub fn shorten(&mut self, step: usize, fields: usize) -> usize {
        if let Some(text) = &mut self.current_step
            && let Some((end, _)) = text.char_indices().nth(step)
        {
            text.truncate(end);
            text.push('…');
        }

        let mut own = match self.fields.is_empty() {
            true => 0,
            false => length(&self.fields),
        };
        if own > fields {
            self.fields = Map::new();
            own = 0;
        }
        own + self.current_step.as_ref().map_or(0, String::len)
    }

    /// The progress of a completed operation: the last report, with the percentage at 100.
    #[must_use]
    pub fn finished(mut self) -> Self {
        self.percentage = 100.0;
        self.estimated_remaining_seconds = Some(0);
        self
    }
}

/// Writes `100`, not `100.0`: scripts compare the printed number.
fn whole_numbers_without_point<S: Serializer>(
    value: &f64,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    if value.fract() == 0.0 && (0.0..=100.0).contains(value) {
        serializer.serialize_u64(*value as u64)
    } else {
        // serde_json writes NaN as `null`, which no reader accepts as a percentage.
        serializer.serialize_f64(if value.is_finite() { *value } else { 0.0 })
    }
}

/// Leaves out counters with the name of a known field: JSON with the same member twice cannot be
/// read, and with it the whole event.
fn own_fields<S: Serializer>(
    fields: &Map<String, Value>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let taken = ["percentage", "current_step", "estimated_remaining_seconds"];
    serializer.collect_map(
        fields
            .iter()
            .filter(|(name, _)| !taken.contains(&name.as_str())),
    )
}

// Written by hand because serde buffers the members of a struct with flattened fields and reads
// them twice. A backend reads the progress of every retained operation when it starts.
impl<'de> Deserialize<'de> for Progress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // serde always copies a plain `Cow`; `borrow` avoids that.
        #[derive(serde::Deserialize)]
        struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Progress;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a progress, an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Progress, A::Error> {
                let (mut progress, mut percentage) = (Progress::default(), None);
                while let Some(Name(name)) = map.next_key()? {
                    match &*name {
                        "percentage" => percentage = Some(map.next_value()?),
                        "current_step" => progress.current_step = map.next_value()?,
                        "estimated_remaining_seconds" => {
                            progress.estimated_remaining_seconds = map.next_value()?;
                        }
                        _ => drop(progress.fields.insert(name.into_owned(), map.next_value()?)),
                    }
                }
                progress.percentage =
                    percentage.ok_or_else(|| de::Error::missing_field("percentage"))?;
                Ok(progress)
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

/// The newest progress of a running attempt, on `progress.<worker_type>.<operation_id>` (core NATS,
/// not stored).
#[derive(Debug, Clone, Serialize, serde::Deserialize, JsonSchema)]
pub struct ProgressMessage {
    /// Which operation.
    pub operation_id: OperationId,
    /// The worker that runs it.
    pub worker_id: WorkerId,
    /// The number of the attempt. Backends drop the progress of any attempt but the current one.
    pub attempt: u32,
    /// When it was reported, by the worker's clock.
    pub at: Timestamp,
    /// How often the engine has reported in this attempt. It tells which of two reports is newer.
    /// 0 from a worker that does not count.
    #[serde(default)]
    pub report: u64,
    /// The progress itself.
    pub progress: Progress,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_as_it_was_written_and_other_json_is_refused() {
        let progress = Progress::new(45.5)
            .step("half \"done\"")
            .remaining_seconds(Some(3))
            .field("rows", 7)
            .field("\u{e9}", "x");
        let read =
            |json: &str| serde_json::from_str::<Progress>(json).map_err(|error| error.to_string());
        assert_eq!(
            read(&serde_json::to_string(&progress).unwrap()),
            Ok(progress)
        );
        assert_eq!(
            read(r#"{"percentage":7,"current_step":null}"#),
            Ok(Progress::new(7.0))
        );
        assert!(read(r#"{"rows":1}"#).unwrap_err().contains("percentage"));
        for bad in [
            r#"{"percentage":"7"}"#,
            r#"{"percentage":null}"#,
            r#"{"percentage":1,"current_step":[]}"#,
            "7",
            "[]",
            "{",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn whole_percentages_are_written_without_a_point() {
        let json = serde_json::to_string(&Progress::new(100.0).field("rows_processed", 7)).unwrap();
        assert_eq!(
            json,
            r#"{"percentage":100,"current_step":null,"estimated_remaining_seconds":null,"rows_processed":7}"#
        );
        assert!(
            serde_json::to_string(&Progress::new(45.5))
                .unwrap()
                .contains("45.5")
        );
        let strange = Progress {
            percentage: f64::NAN,
            ..Progress::default()
        }
        .field("current_step", 7)
        .field("a", 1);
        let json = serde_json::to_string(&strange).unwrap();
        assert_eq!(
            serde_json::from_str::<Progress>(&json).unwrap(),
            Progress::new(0.0).field("a", 1)
        );
        assert_eq!(Progress::new(f64::NAN).percentage, 0.0);
        assert_eq!(Progress::new(1e9).percentage, 100.0);
    }
}

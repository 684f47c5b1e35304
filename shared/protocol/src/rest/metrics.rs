//! Metric points, and the cursor that continues a page of them.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::OperationId;
use crate::metric::MetricPoint;

/// Metric points, oldest first.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MetricsResponse<'a> {
    /// Always true.
    pub success: bool,
    /// The points.
    pub data: MetricsPage<'a>,
}

/// One page of metric points.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MetricsPage<'a> {
    /// The id of the operation.
    pub operation_id: Cow<'a, OperationId>,
    /// The points, oldest first.
    pub metrics: Vec<MetricPoint>,
    /// Continues after this page: reading on with it misses nothing and repeats nothing.
    pub cursor: String,
    /// Whether there are more points now.
    pub has_more: bool,
}

/// A position among the metric points of an operation: the next point to read. Opaque to clients.
///
/// Backends and workers take each other's, so that a client can go on reading at the other one. A
/// backend knows the batches in the stream; a worker knows its own points, also those that are not
/// in the stream yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Stream sequence of a batch.
    pub sequence: u64,
    /// Points that were read: of this batch, or with an attempt of all batches of that attempt from
    /// there on.
    pub index: usize,
    /// The attempt that `index` counts points of. All points of earlier attempts were read, too.
    pub attempt: Option<u32>,
}

impl Cursor {
    /// The position after all points of the batch at `sequence`.
    pub fn after(sequence: u64) -> Self {
        Self {
            sequence: sequence + 1,
            ..Self::default()
        }
    }

    /// How many of the `count` points of a batch were read. Batches are asked about in their order.
    pub fn read_of(&self, sequence: u64, attempt: u32, count: usize) -> usize {
        match self.attempt {
            Some(read) if attempt < read => count,
            Some(read) if attempt == read => self.index.min(count),
            None if sequence == self.sequence => self.index.min(count),
            _ => 0,
        }
    }

    /// The position after this batch, when all of it was read.
    #[must_use]
    pub fn past(self, sequence: u64, attempt: u32, count: usize) -> Self {
        let left = match self.attempt {
            Some(read) if attempt < read => Some(self.index),
            Some(read) if attempt == read => self.index.checked_sub(count),
            _ => None,
        };
        let is_own = self.attempt == Some(attempt);
        match left.filter(|left| !is_own || *left > 0) {
            None => Self::after(sequence),
            Some(index) => Self {
                sequence: sequence + 1,
                index,
                ..self
            },
        }
    }
}

/// The text is not a [`Cursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of an earlier answer")]
pub struct InvalidCursor;

impl FromStr for Cursor {
    type Err = InvalidCursor;

    fn from_str(text: &str) -> Result<Self, InvalidCursor> {
        let mut parts = text.split('-');
        let (sequence, index, attempt) = (parts.next(), parts.next(), parts.next());
        if parts.next().is_some() {
            return Err(InvalidCursor);
        }

        Ok(Self {
            sequence: number(sequence)?,
            index: number(index)?,
            attempt: attempt.map(|text| number(Some(text))).transpose()?,
        })
    }
}

/// A part of a cursor: digits, and nothing else.
fn number<T: FromStr>(text: Option<&str>) -> Result<T, InvalidCursor> {
    let is_number =
        |text: &&str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let text = text.filter(is_number).ok_or(InvalidCursor)?;
    text.parse().map_err(|_| InvalidCursor)
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.sequence, self.index)?;
        match self.attempt {
            None => Ok(()),
            Some(attempt) => write!(f, "-{attempt}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back_and_others_are_refused() {
        for attempt in [None, Some(2)] {
            let cursor = Cursor {
                sequence: 456,
                index: 7,
                attempt,
            };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        for bad in [
            "",
            "7",
            "-",
            "1-",
            "-1",
            "a-b",
            "1-2-",
            "1-2-3-4",
            "1-2-99999999999",
            "+1-2",
            " 1-2",
            "99999999999999999999999-0",
        ] {
            assert_eq!(bad.parse::<Cursor>(), Err(InvalidCursor), "{bad}");
        }
    }
}

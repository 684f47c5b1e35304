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

/// A backend's position in the metrics stream: the next point to read. Opaque to clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    /// Stream sequence of the point's batch.
    pub sequence: u64,
    /// The point's place in its batch.
    pub index: usize,
}

impl Cursor {
    /// The position after all points of the batch at `sequence`.
    pub fn after(sequence: u64) -> Self {
        Self {
            sequence: sequence + 1,
            index: 0,
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
        let (sequence, index) = text.split_once('-').ok_or(InvalidCursor)?;
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(sequence) || !digits(index) {
            return Err(InvalidCursor);
        }

        Ok(Self {
            sequence: sequence.parse().map_err(|_| InvalidCursor)?,
            index: index.parse().map_err(|_| InvalidCursor)?,
        })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.sequence, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_read_back_and_others_are_refused() {
        let cursor = Cursor {
            sequence: 456,
            index: 7,
        };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));

        for bad in [
            "",
            "7",
            "-",
            "1-",
            "-1",
            "a-b",
            "1-2-3",
            "+1-2",
            " 1-2",
            "99999999999999999999999-0",
        ] {
            assert_eq!(bad.parse::<Cursor>(), Err(InvalidCursor), "{bad}");
        }
    }
}

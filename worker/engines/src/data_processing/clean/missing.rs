//! Missing cells (`docs/engines/data_processing.md`, "clean", step 5).
//!
//! The problem: the text that fills a missing cell may depend on a whole column (mean, median,
//! mode), on the row before (`ffill`), or on nothing. Each filled column has one [`Fill`], which is
//! also its state in a checkpoint. A learnt fill starts as `Learning`, becomes `Learnt` at the end
//! of the pass that saw all rows, and fills in the passes after it.
//!
//! Statistics are taken over the rows that survive duplicate detection, before rows are dropped for
//! missing cells. Learning after the drop was rejected: the mean of one column would depend on
//! missing cells of another.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::params::{CleanParams, MissingPolicy};
use crate::data_processing::error::DataError;
use crate::data_processing::numbers::NumberFormat;
use crate::data_processing::row::Row;
use crate::data_processing::statistics::{Learner, Moments};
use crate::data_processing::table::Table;
use crate::data_processing::text::Places;

/// A column whose missing cells are filled.
pub(super) struct FilledColumn {
    pub(super) index: usize,
    pub(super) name: String,
    /// How its cells write numbers.
    pub(super) numbers: NumberFormat,
}

/// The source of the text for missing cells of a column.
#[derive(Serialize, Deserialize)]
pub(super) enum Fill {
    /// A fixed text.
    Text(Vec<u8>),
    /// A text that is being learnt in this pass.
    Learning(Learner),
    /// The learnt text. None when there was nothing to learn from.
    Learnt(Option<Vec<u8>>),
    /// The cell of the previous written row.
    Previous(Vec<u8>),
}

/// Columns whose missing cells drop the row, and columns whose missing cells are filled.
pub(super) struct Missing {
    pub(super) required: Vec<usize>,
    pub(super) filled: Vec<FilledColumn>,
}

impl Missing {
    /// Looks up the columns named in `params`. Returns one fill for each filled column, in the same
    /// order.
    pub(super) fn new(params: &CleanParams, table: &Table) -> Result<(Self, Vec<Fill>), DataError> {
        let (mut missing, mut fills) = (
            Self {
                required: Vec::new(),
                filled: Vec::new(),
            },
            Vec::new(),
        );

        for (name, policy) in &params.missing {
            let index = table.index(name)?;
            let fill = match policy {
                MissingPolicy::DropRow => {
                    missing.required.push(index);
                    continue;
                }
                MissingPolicy::Value(text) => Fill::Text(text.clone().into_bytes()),
                MissingPolicy::Mean => Fill::Learning(Learner::Mean(Moments::default())),
                MissingPolicy::Median => Fill::Learning(Learner::Median(Vec::new())),
                MissingPolicy::Mode => Fill::Learning(Learner::Mode(HashMap::new())),
                MissingPolicy::Ffill => Fill::Previous(Vec::new()),
            };

            missing.filled.push(FilledColumn {
                index,
                name: name.clone(),
                numbers: table.columns[index].numbers,
            });
            fills.push(fill);
        }

        Ok((missing, fills))
    }

    /// Learns from a row that is not a duplicate.
    pub(super) fn learn(&self, row: &Row, fills: &mut [Fill]) {
        for (column, fill) in self.filled.iter().zip(fills) {
            if let Fill::Learning(learner) = fill {
                learner.learn(row.cell(column.index), column.numbers);
            }
        }
    }

    /// Whether a required cell of the row is missing.
    pub(super) fn drops(&self, row: &Row) -> bool {
        self.required
            .iter()
            .any(|&index| row.cell(index).is_empty())
    }

    /// Fills the missing cells. Returns how many were filled.
    pub(super) fn fill(&self, row: &mut Row, fills: &mut [Fill]) -> u64 {
        self.filled
            .iter()
            .zip(fills)
            .map(|(column, fill)| u64::from(fill.apply(row, column.index)))
            .sum()
    }
}

impl Fill {
    /// Forgets the previous row, but not the learnt text.
    pub(super) fn begin_pass(&mut self) {
        if let Self::Previous(text) = self {
            text.clear();
        }
    }

    /// Ends learning: turns the statistics into a text.
    pub(super) fn finish_learning(&mut self, places: Places, numbers: NumberFormat) {
        *self = match std::mem::replace(self, Self::Learnt(None)) {
            Self::Learning(learner) => Self::Learnt(learner.finish(places, numbers)),
            other => other,
        };
    }

    /// Whether the text is learnt from the column.
    pub(super) fn is_learnt(&self) -> bool {
        matches!(self, Self::Learning(_) | Self::Learnt(_))
    }

    /// The text for all missing cells. None when they stay missing or the text differs from row to
    /// row.
    pub(super) fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) => Some(text),
            Self::Learnt(text) => text.as_deref(),
            Self::Learning(_) | Self::Previous(_) => None,
        }
    }

    /// Whether missing cells take the text of the previous row.
    pub(super) fn is_previous(&self) -> bool {
        matches!(self, Self::Previous(_))
    }

    /// Fills cell `index` of the row if it is missing. Returns whether it was filled.
    fn apply(&mut self, row: &mut Row, index: usize) -> bool {
        let is_missing = row.cell(index).is_empty();
        if let Self::Previous(text) = self
            && !is_missing
        {
            text.clear();
            text.extend_from_slice(row.cell(index));
        }

        let text: &[u8] = match self {
            _ if !is_missing => return false,
            Self::Text(text) | Self::Previous(text) | Self::Learnt(Some(text)) => text,
            Self::Learning(_) | Self::Learnt(None) => return false,
        };

        if !text.is_empty() {
            row.set(index, text);
        }

        !text.is_empty()
    }
}

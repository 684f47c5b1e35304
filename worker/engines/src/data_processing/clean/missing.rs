//! What becomes of missing cells (`docs/engines/data_processing.md`, "clean", step 5).

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::params::{CleanParams, MissingPolicy};
use crate::data_processing::error::DataError;
use crate::data_processing::row::Row;
use crate::data_processing::statistics::{Learner, Moments};
use crate::data_processing::table::Table;

/// A column whose missing cells are filled.
pub(super) struct FilledColumn {
    pub(super) index: usize,
    pub(super) name: String,
}

/// What missing cells of a column get.
#[derive(Serialize, Deserialize)]
pub(super) enum Fill {
    /// This text.
    Text(Vec<u8>),
    /// The text that is being learnt.
    Learning(Learner),
    /// The text that was learnt, if there was anything to learn from.
    Learnt(Option<Vec<u8>>),
    /// The cell of the row written before.
    Previous(Vec<u8>),
}

/// Columns whose missing cells drop the row, and columns whose missing cells are filled.
pub(super) struct Missing {
    pub(super) required: Vec<usize>,
    pub(super) filled: Vec<FilledColumn>,
}

impl Missing {
    /// Finds the columns named in `params`; the fills are those of the filled columns.
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
            });
            fills.push(fill);
        }

        Ok((missing, fills))
    }

    /// Learns from a row that survived the duplicates.
    pub(super) fn learn(&self, row: &Row, fills: &mut [Fill]) {
        for (column, fill) in self.filled.iter().zip(fills) {
            if let Fill::Learning(learner) = fill {
                learner.learn(row.cell(column.index));
            }
        }
    }

    /// Whether the row lacks a cell it must have.
    pub(super) fn drops(&self, row: &Row) -> bool {
        self.required
            .iter()
            .any(|&index| row.cell(index).is_empty())
    }

    /// Fills the missing cells; the number of cells filled.
    pub(super) fn fill(&self, row: &mut Row, fills: &mut [Fill]) -> u64 {
        self.filled
            .iter()
            .zip(fills)
            .map(|(column, fill)| u64::from(fill.apply(row, column.index)))
            .sum()
    }
}

impl Fill {
    /// Forgets what was seen of rows, but not what was learnt.
    pub(super) fn begin_pass(&mut self) {
        if let Self::Previous(text) = self {
            text.clear();
        }
    }

    /// All rows were learnt from.
    pub(super) fn finish_learning(&mut self, decimals: usize) {
        *self = match std::mem::replace(self, Self::Learnt(None)) {
            Self::Learning(learner) => Self::Learnt(learner.finish(decimals)),
            other => other,
        };
    }

    /// Whether it comes from a whole column.
    pub(super) fn is_learnt(&self) -> bool {
        matches!(self, Self::Learning(_) | Self::Learnt(_))
    }

    /// The text all missing cells get; none when they stay missing or differ from row to row.
    pub(super) fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) => Some(text),
            Self::Learnt(text) => text.as_deref(),
            Self::Learning(_) | Self::Previous(_) => None,
        }
    }

    /// Whether missing cells get the one before.
    pub(super) fn is_previous(&self) -> bool {
        matches!(self, Self::Previous(_))
    }

    /// Fills cell `index` of the row if it is missing; whether it did.
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

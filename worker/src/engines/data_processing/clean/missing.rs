//! What becomes of missing cells (`docs/engines/data_processing.md`, "clean", step 5).

use std::collections::HashMap;

use super::params::{CleanParams, MissingPolicy};
use crate::engines::data_processing::error::DataError;
use crate::engines::data_processing::row::Row;
use crate::engines::data_processing::statistics::{Learner, Moments};
use crate::engines::data_processing::table::Table;

/// A column whose missing cells are filled.
pub(super) struct FilledColumn {
    pub(super) index: usize,
    pub(super) name: String,
    fill: Fill,
}

enum Fill {
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
    /// Finds the columns named in `params`.
    pub(super) fn new(params: &CleanParams, table: &Table) -> Result<Self, DataError> {
        let mut missing = Self { required: Vec::new(), filled: Vec::new() };
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
            missing.filled.push(FilledColumn { index, name: name.clone(), fill });
        }
        Ok(missing)
    }

    /// Forgets what was seen of rows, but not what was learnt.
    pub(super) fn begin_pass(&mut self) {
        for column in &mut self.filled {
            if let Fill::Previous(text) = &mut column.fill {
                text.clear();
            }
        }
    }

    /// Learns from a row that survived the duplicates.
    pub(super) fn learn(&mut self, row: &Row) {
        for column in &mut self.filled {
            if let Fill::Learning(learner) = &mut column.fill {
                learner.learn(row.cell(column.index));
            }
        }
    }

    /// All rows were learnt from.
    pub(super) fn finish_learning(&mut self, decimals: usize) {
        for column in &mut self.filled {
            column.fill = match std::mem::replace(&mut column.fill, Fill::Learnt(None)) {
                Fill::Learning(learner) => Fill::Learnt(learner.finish(decimals)),
                other => other,
            };
        }
    }

    /// Whether the row lacks a cell it must have.
    pub(super) fn drops(&self, row: &Row) -> bool {
        self.required.iter().any(|&index| row.cell(index).is_empty())
    }

    /// Fills the missing cells; the number of cells filled.
    pub(super) fn fill(&mut self, row: &mut Row) -> u64 {
        self.filled.iter_mut().map(|column| u64::from(column.apply(row))).sum()
    }
}

impl FilledColumn {
    /// Whether its text comes from a whole column.
    pub(super) fn is_learnt(&self) -> bool {
        matches!(self.fill, Fill::Learning(_) | Fill::Learnt(_))
    }

    /// The text all its missing cells get; none when they stay missing or differ from row to row.
    pub(super) fn text(&self) -> Option<&[u8]> {
        match &self.fill {
            Fill::Text(text) => Some(text),
            Fill::Learnt(text) => text.as_deref(),
            Fill::Learning(_) | Fill::Previous(_) => None,
        }
    }

    /// Whether missing cells get the one before.
    pub(super) fn is_previous(&self) -> bool {
        matches!(self.fill, Fill::Previous(_))
    }

    fn apply(&mut self, row: &mut Row) -> bool {
        let is_missing = row.cell(self.index).is_empty();
        if let Fill::Previous(text) = &mut self.fill
            && !is_missing
        {
            text.clear();
            text.extend_from_slice(row.cell(self.index));
        }
        let text: &[u8] = match &self.fill {
            _ if !is_missing => return false,
            Fill::Text(text) | Fill::Previous(text) | Fill::Learnt(Some(text)) => text,
            Fill::Learning(_) | Fill::Learnt(None) => return false,
        };
        if !text.is_empty() {
            row.set(self.index, text);
        }
        !text.is_empty()
    }
}

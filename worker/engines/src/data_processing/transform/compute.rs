//! Computed columns (`docs/engines/data_processing.md`, "transform").

use serde::{Deserialize, Serialize};

use super::ColumnStats;
use crate::data_processing::numbers::NumberFormat;
use crate::data_processing::row::Row;
use crate::data_processing::statistics::Moments;
use crate::data_processing::text::Places;

/// A computed column.
pub(super) struct ComputedColumn {
    pub(super) name: String,
    /// The index of the input column, x.
    pub(super) input: usize,
    /// How the input column writes numbers.
    pub(super) numbers: NumberFormat,
    /// The index of the result.
    pub(super) output: usize,
    /// The first pass in which x and the rows are final.
    pub(super) ready_in: usize,
    /// Whether the formula needs statistics of the whole column.
    pub(super) learns: bool,
    /// The index of the formula in the state of the operation.
    pub(super) formula: usize,
}

/// A formula and the statistics that it has learnt.
#[derive(Serialize, Deserialize)]
pub(super) enum Formula {
    /// (x − mean) / std.
    Zscore(Moments),
    /// (x − min) / (max − min).
    Minmax(Range),
    /// ln(x / x of the previous row). Holds that previous x.
    LogReturn(Option<f64>),
}

/// The least and the greatest number.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Range {
    min: f64,
    max: f64,
}

impl Range {
    /// The range of no numbers.
    pub(super) const NONE: Self = Self {
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
    };

    fn add(&mut self, value: f64) {
        *self = Self {
            min: self.min.min(value),
            max: self.max.max(value),
        };
    }
}

impl Formula {
    /// Whether the formula needs statistics of the whole column.
    pub(super) fn learns(&self) -> bool {
        !matches!(self, Self::LogReturn(_))
    }

    /// Forgets the previous row, but not the learnt statistics.
    pub(super) fn begin_pass(&mut self) {
        if let Self::LogReturn(previous) = self {
            *previous = None;
        }
    }

    fn learn(&mut self, x: f64) {
        match self {
            Self::Zscore(moments) => moments.add(x),
            Self::Minmax(range) => range.add(x),
            Self::LogReturn(_) => {}
        }
    }

    /// The result for `x`, the number of this row if it has one. An undefined result is None, NaN
    /// or infinite; all become a missing cell.
    fn compute(&mut self, x: Option<f64>) -> Option<f64> {
        match self {
            Self::Zscore(moments) => match moments.std()? {
                0.0 => None,
                std => Some((x? - moments.mean()?) / std),
            },
            Self::Minmax(range) => Some((x? - range.min) / (range.max - range.min)),
            Self::LogReturn(previous) => {
                let before = std::mem::replace(previous, x);
                let (x, before) = (x.filter(|x| *x > 0.0)?, before.filter(|x| *x > 0.0)?);
                Some((x / before).ln())
            }
        }
    }

    /// The learnt statistics. None for a formula that learns nothing.
    pub(super) fn stats(&self) -> Option<ColumnStats> {
        let finite = |value: f64| value.is_finite().then_some(value);
        match self {
            Self::Zscore(moments) => Some(ColumnStats::Moments {
                mean: moments.mean(),
                std: moments.std(),
            }),
            Self::Minmax(range) => Some(ColumnStats::Range {
                min: finite(range.min),
                max: finite(range.max),
            }),
            Self::LogReturn(_) => None,
        }
    }
}

impl ComputedColumn {
    /// Writes the result into the row. In the pass that learns, it learns from the row and leaves
    /// the result empty.
    pub(super) fn apply(
        &self,
        row: &mut Row,
        pass: usize,
        formula: &mut Formula,
        places: Places,
        scratch: &mut Vec<u8>,
    ) {
        scratch.clear();

        if pass >= self.ready_in {
            let x = self.numbers.number(row.cell(self.input));
            if self.learns_in(pass) {
                if let Some(x) = x {
                    formula.learn(x);
                }
            } else if let Some(result) = formula.compute(x) {
                places.write_computed(scratch, result);
            }
        }

        row.set(self.output, scratch);
    }

    /// Whether the formula learns in this pass.
    pub(super) fn learns_in(&self, pass: usize) -> bool {
        self.learns && pass == self.ready_in
    }
}

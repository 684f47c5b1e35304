//! Columns made of other columns (`docs/engines/data_processing.md`, "transform").

use serde::{Deserialize, Serialize};

use super::ColumnStats;
use crate::data_processing::row::Row;
use crate::data_processing::statistics::Moments;
use crate::data_processing::text::{number, write_number};

/// A column that is computed.
pub(super) struct ComputedColumn {
    pub(super) name: String,
    /// Where x is.
    pub(super) input: usize,
    /// Where the result goes.
    pub(super) output: usize,
    /// The first pass in which x and the rows are right.
    pub(super) ready_in: usize,
    /// Whether it must see the whole column before it can compute.
    pub(super) learns: bool,
    /// Which of the operation's formulas is its own.
    pub(super) formula: usize,
}

/// What is computed, with what it has learnt.
#[derive(Serialize, Deserialize)]
pub(super) enum Formula {
    /// (x − mean) / std.
    Zscore(Moments),
    /// (x − min) / (max − min).
    Minmax(Range),
    /// ln(x / x of the row before), which is kept here.
    LogReturn(Option<f64>),
}

/// The least and the greatest number.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Range {
    min: f64,
    max: f64,
}

impl Range {
    /// Of no number.
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
    /// Whether it must see the whole column before it can compute.
    pub(super) fn learns(&self) -> bool {
        !matches!(self, Self::LogReturn(_))
    }

    /// Forgets what was seen of rows, but not what was learnt.
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

    /// The result for `x`, the number of this row if it has one. What is undefined comes out as NaN or infinite.
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

    /// What was learnt; none for what learns nothing.
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
    /// Writes the result into the row, or learns from the row and leaves the place empty.
    pub(super) fn apply(
        &self,
        row: &mut Row,
        pass: usize,
        formula: &mut Formula,
        decimals: usize,
        scratch: &mut Vec<u8>,
    ) {
        scratch.clear();

        if pass >= self.ready_in {
            let x = number(row.cell(self.input));
            if self.learns_in(pass) {
                x.into_iter().for_each(|x| formula.learn(x));
            } else if let Some(result) = formula.compute(x) {
                write_number(scratch, result, decimals);
            }
        }

        row.set(self.output, scratch);
    }

    /// Whether this pass is the one it learns in.
    pub(super) fn learns_in(&self, pass: usize) -> bool {
        self.learns && pass == self.ready_in
    }
}

//! Rows, labels, the split, and what a guess would score.

use ndarray::{Array1, Array2};
use schemars::JsonSchema;
use serde::Serialize;

use super::features::{self, FEATURES, FIRST_BAR, Row, Scaling};
use super::loss::row_loss_at_probability;
use super::request::{Label, TrainingRequest};
use crate::bars::{Bar, Bars};
use ktrdr_worker::OperationError;

/// The fewest rows worth training on.
const MIN_ROWS: usize = 50;

/// Standardised rows and their labels, in order of time.
#[derive(Debug)]
pub(super) struct Part {
    /// The features of all rows.
    pub(super) features: Array2<f64>,
    /// 0 or 1 for each row.
    pub(super) labels: Array1<f64>,
    /// Its first and last bar, as the file writes their times.
    pub(super) span: (Box<str>, Box<str>),
}

impl Part {
    pub(super) fn rows(&self) -> usize {
        self.labels.len()
    }

    pub(super) fn ones(&self) -> usize {
        self.labels.iter().filter(|label| **label == 1.0).count()
    }
}

/// All that is learnt from and measured with.
#[derive(Debug)]
pub(super) struct Dataset {
    pub(super) train: Part,
    pub(super) validation: Part,
    pub(super) scaling: Scaling,
    /// The median range that `next_range_high` compares with.
    pub(super) label_threshold: Option<f64>,
    pub(super) baseline: Baseline,
}

/// What answering without looking would score: always the training rows' share of ones as the
/// probability, and their more frequent class.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Baseline {
    /// Loss on the training rows, in nats.
    pub train_loss: Option<f64>,
    /// Accuracy on the training rows.
    pub train_accuracy: Option<f64>,
    /// Loss on the validation rows; null when it is infinite.
    pub val_loss: Option<f64>,
    /// Accuracy on the validation rows.
    pub val_accuracy: Option<f64>,
}

impl Dataset {
    pub(super) fn new(bars: &Bars, request: &TrainingRequest) -> Result<Self, OperationError> {
        // The last bar has no next one to be labelled by.
        bars.require(MIN_ROWS + FIRST_BAR + 1, || {
            format!("training on {MIN_ROWS} rows")
        })?;

        let mut rows = features::features(bars);

        rows.pop();
        check_finite(bars, &rows)?;

        let split = split(rows.len(), request.train_split)?;
        let (labels, label_threshold) = labels(&bars.bars, request.label, split);
        let scaling = Scaling::of(&rows[..split]);
        let part = |from: usize, to: usize| Part {
            features: scaling.apply(&rows[from..to]),
            labels: labels[from..to].iter().copied().collect(),
            span: (timestamp(bars, from), timestamp(bars, to - 1)),
        };
        let (train, validation) = (part(0, split), part(split, rows.len()));
        let baseline = Baseline::of(&train, &validation);

        Ok(Self {
            train,
            validation,
            scaling,
            label_threshold,
            baseline,
        })
    }
}

fn timestamp(bars: &Bars, row: usize) -> Box<str> {
    bars.bars[FIRST_BAR + row].timestamp.clone()
}

/// Prices at the limits of a double can give ratios beyond them.
fn check_finite(bars: &Bars, rows: &[Row]) -> Result<(), OperationError> {
    for (at, row) in rows.iter().enumerate() {
        if let Some(column) = row.iter().position(|value| !value.is_finite()) {
            let message = format!(
                "{}: {} at {} is not finite",
                bars.file,
                FEATURES[column],
                timestamp(bars, at)
            );
            return Err(OperationError::permanent("invalid_bars", message));
        }
    }

    Ok(())
}

/// How many of `rows` are for training.
fn split(rows: usize, part: f64) -> Result<usize, OperationError> {
    let train = (part * rows as f64).floor() as usize;
    if train == 0 || train >= rows {
        return Err(OperationError::permanent(
            "insufficient_data",
            format!(
                "train_split {part} of {rows} rows leaves {train} to train on: both parts need at least one"
            ),
        ));
    }

    Ok(train)
}

/// The labels of all rows; the first `split` rows are the training rows.
fn labels(bars: &[Bar], label: Label, split: usize) -> (Vec<f64>, Option<f64>) {
    let next = bars.windows(2).skip(FIRST_BAR);
    match label {
        Label::NextUp => (
            next.map(|pair| f64::from(u8::from(pair[1].close > pair[0].close)))
                .collect(),
            None,
        ),
        Label::NextRangeHigh => {
            let ranges: Vec<f64> = next
                .map(|pair| (pair[1].high - pair[1].low) / pair[1].close)
                .collect();
            let threshold = median(&ranges[..split]);
            (
                ranges
                    .iter()
                    .map(|range| f64::from(u8::from(*range > threshold)))
                    .collect(),
                Some(threshold),
            )
        }
    }
}

/// The median of at least one value.
fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len().is_multiple_of(2) {
        (sorted[middle - 1] + sorted[middle]) / 2.0
    } else {
        sorted[middle]
    }
}

impl Baseline {
    fn of(train: &Part, validation: &Part) -> Self {
        let share = train.ones() as f64 / train.rows() as f64;
        let loss = |part: &Part| {
            let total: f64 = part
                .labels
                .iter()
                .map(|label| row_loss_at_probability(share, *label))
                .sum();
            Some(total / part.rows() as f64).filter(|loss| loss.is_finite())
        };

        let accuracy = |part: &Part| {
            // As a logit of 0 does, a share of exactly one half answers 0.
            let right = if share > 0.5 {
                part.ones()
            } else {
                part.rows() - part.ones()
            };
            Some(right as f64 / part.rows() as f64)
        };

        Self {
            train_loss: loss(train),
            train_accuracy: accuracy(train),
            val_loss: loss(validation),
            val_accuracy: accuracy(validation),
        }
    }
}

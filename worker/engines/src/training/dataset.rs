//! The rows to train on: labels, the split into training and validation rows, and the baseline.

use ndarray::{Array1, Array2};
use schemars::JsonSchema;
use serde::Serialize;

use super::features::{self, FEATURES, FIRST_BAR, Row, Scaling};
use super::loss::row_loss_at_probability;
use super::request::{Label, TrainingRequest};
use crate::bars::{Bar, Bars};
use ktrdr_worker::OperationError;

/// The fewest rows to train on.
const MIN_ROWS: usize = 50;

/// Standardized rows and their labels, in order of time.
#[derive(Debug)]
pub(super) struct Part {
    /// The features, one line per row.
    pub(super) features: Array2<f64>,
    /// The label of each row, 0 or 1.
    pub(super) labels: Array1<f64>,
    /// The times of the first and the last bar, as the file writes them.
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

/// The training rows and the validation rows.
#[derive(Debug)]
pub(super) struct Dataset {
    pub(super) train: Part,
    pub(super) validation: Part,
    pub(super) scaling: Scaling,
    /// The features that are the same in all training rows.
    pub(super) constant: Vec<&'static str>,
    /// The median range that the label `next_range_high` compares with.
    pub(super) label_threshold: Option<f64>,
    pub(super) baseline: Baseline,
}

/// The score of a constant prediction.
///
/// The loss is for predicting the share of ones in the training rows; the accuracy is for
/// predicting their more frequent class.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Baseline {
    /// Loss on the training rows, in nats.
    pub train_loss: Option<f64>,
    /// Accuracy on the training rows.
    #[schemars(extend("x-ktrdr-unit" = "percent"))]
    pub train_accuracy: Option<f64>,
    /// Loss on the validation rows. Null when it is infinite.
    pub val_loss: Option<f64>,
    /// Accuracy on the validation rows.
    #[schemars(extend("x-ktrdr-unit" = "percent"))]
    pub val_accuracy: Option<f64>,
}

impl Dataset {
    pub(super) fn new(bars: &Bars, request: &TrainingRequest) -> Result<Self, OperationError> {
        // The last bar has no label, because it has no next bar.
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
            constant: features::constant_features(&rows[..split]),
            label_threshold,
            baseline,
        })
    }
}

fn timestamp(bars: &Bars, row: usize) -> Box<str> {
    bars.bars[FIRST_BAR + row].timestamp.clone()
}

/// Fails when a feature is not finite. Prices at the limits of a double can give infinite ratios.
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

/// The number of training rows among `rows`.
fn split(rows: usize, part: f64) -> Result<usize, OperationError> {
    let train = (part * rows as f64).floor() as usize;
    if train == 0 || train >= rows {
        return Err(OperationError::permanent(
            "insufficient_data",
            format!(
                "train_split {part} of {rows} rows leaves {train} rows to train on: training and validation need at least one row each"
            ),
        ));
    }

    Ok(train)
}

/// The labels of all rows. The first `split` rows are the training rows.
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
            // A share of exactly one half predicts 0, like a logit of 0.
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

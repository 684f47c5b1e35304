//! What a training answers.

use schemars::JsonSchema;
use serde::Serialize;

use super::dataset::{Baseline, Dataset, Part};
use super::history::{EpochMetrics, History};

/// The result of a training. Losses in nats, accuracies as fractions.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TrainingOutput {
    /// The model's file, relative to the data directory.
    pub model_file: String,
    /// Epochs done.
    pub epochs: u32,
    /// Whether early stopping ended it before the last epoch asked for.
    pub stopped_early: bool,
    /// Accuracy on the validation rows after the last epoch.
    pub accuracy: Option<f64>,
    /// The last epoch; the model has its weights.
    pub final_epoch: Option<EpochMetrics>,
    /// The epoch with the least validation loss, the first of equals.
    pub best_epoch: Option<EpochMetrics>,
    /// All rows.
    pub rows: usize,
    /// The rows it learnt from.
    pub train: PartFigures,
    /// The rows it was measured with.
    pub validation: PartFigures,
    /// What answering without looking would score.
    pub baseline: Baseline,
    /// All epochs.
    pub history: History,
}

/// What a part of the rows is made of.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PartFigures {
    /// Rows.
    pub rows: usize,
    /// Rows labelled 1.
    pub ones: usize,
    /// The first row's bar, as the file writes its time.
    pub first: Box<str>,
    /// The last row's bar.
    pub last: Box<str>,
}

impl PartFigures {
    fn of(part: &Part) -> Self {
        let (first, last) = part.span.clone();
        Self {
            rows: part.rows(),
            ones: part.ones(),
            first,
            last,
        }
    }
}

impl TrainingOutput {
    pub(super) fn new(
        data: Dataset,
        history: History,
        epochs_asked: u32,
        model_file: String,
    ) -> Self {
        let last = history.0.last().cloned();

        Self {
            model_file,
            epochs: history.epochs(),
            stopped_early: history.epochs() < epochs_asked,
            accuracy: last.as_ref().map(|epoch| epoch.val_accuracy),
            final_epoch: last,
            best_epoch: history.best().cloned(),
            rows: data.train.rows() + data.validation.rows(),
            train: PartFigures::of(&data.train),
            validation: PartFigures::of(&data.validation),
            baseline: data.baseline,
            history,
        }
    }
}

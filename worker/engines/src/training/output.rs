//! The result of a training.

use schemars::JsonSchema;
use serde::Serialize;

use super::dataset::{Baseline, Dataset, Part};
use super::history::{EpochMetrics, History};
use super::state::TrainingState;
use crate::warnings::Warnings;

/// The result of a training. Losses are in nats, accuracies are fractions.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(extend("x-ktrdr-verdict" = [
    "accuracy", "baseline.val_accuracy", "best_epoch.val_loss", "epochs", "model_file"
]))]
pub struct TrainingOutput {
    /// The model file, relative to the data directory.
    pub model_file: String,
    /// Number of epochs done.
    #[schemars(extend("x-ktrdr-unit" = "count"))]
    pub epochs: u32,
    /// Whether early stopping ended the training before the requested number of epochs.
    pub stopped_early: bool,
    /// Accuracy of the model on the validation rows.
    #[schemars(extend("x-ktrdr-unit" = "percent"))]
    pub accuracy: Option<f64>,
    /// The epoch whose weights the model has: the last, or the best with `keep: "best"`.
    pub model_epoch: Option<u32>,
    /// The last epoch.
    pub final_epoch: Option<EpochMetrics>,
    /// The epoch with the least validation loss. The first one when several are equal.
    pub best_epoch: Option<EpochMetrics>,
    /// Number of rows.
    #[schemars(extend("x-ktrdr-unit" = "count"))]
    pub rows: usize,
    /// The training rows.
    pub train: PartFigures,
    /// The validation rows.
    pub validation: PartFigures,
    /// The score of a constant prediction.
    pub baseline: Baseline,
    /// All epochs.
    pub history: History,
    /// What a person should know about the training. At most 20 sentences.
    pub warnings: Vec<String>,
}

/// The training rows or the validation rows.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct PartFigures {
    /// Number of rows.
    pub rows: usize,
    /// Number of rows with label 1.
    pub ones: usize,
    /// The time of the first bar, as the file writes it.
    pub first: Box<str>,
    /// The time of the last bar.
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
        state: TrainingState,
        epochs_asked: u32,
        model_file: String,
    ) -> Self {
        let model = state.model_epoch().cloned();
        let history = state.history;
        let mut warnings = Warnings::default();

        for feature in &data.constant {
            warnings.add(format!(
                "feature {feature} is the same in all training rows: the model learns nothing from it"
            ));
        }

        Self {
            model_file,
            epochs: history.epochs(),
            stopped_early: history.epochs() < epochs_asked,
            accuracy: model.as_ref().map(|epoch| epoch.val_accuracy),
            model_epoch: model.map(|epoch| epoch.epoch),
            final_epoch: history.0.last().cloned(),
            best_epoch: history.best().cloned(),
            rows: data.train.rows() + data.validation.rows(),
            train: PartFigures::of(&data.train),
            validation: PartFigures::of(&data.validation),
            baseline: data.baseline,
            history,
            warnings: warnings.into_sentences(),
        }
    }
}

//! The parameters of a training.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::features::FEATURES;
use crate::bars::{BarSelection, BarTime, Symbol, Timeframe};
use crate::defaults::is_default;
use crate::require::require;
use ktrdr_worker::OperationError;

/// The most hidden layers.
const MAX_LAYERS: usize = 16;

/// The widest hidden layer.
const MAX_WIDTH: usize = 4096;

/// The most weights and biases of a network: 80 MB of doubles, and several times that during
/// training.
const MAX_PARAMETERS: usize = 10_000_000;

/// The parameters of a training.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-ktrdr-summary" = ["symbol", "timeframe", "label"]))]
#[schemars(extend("examples" = [{"symbol": "GOOG", "timeframe": "1d", "label": "next_up", "epochs": 20}]))]
pub struct TrainingRequest {
    /// The instrument. Its bars are in `{symbol}_{timeframe}.csv` in the data directory.
    pub symbol: Symbol,
    /// The length of a bar.
    pub timeframe: Timeframe,
    /// Start of the range. Without it, the range starts at the first bar of the file.
    #[serde(default)]
    #[schemars(extend("examples" = ["2012-01-31"]))]
    pub start: Option<BarTime>,
    /// End of the range, inclusive (a date alone is 00:00 of that day). Without it, the range ends
    /// at the last bar of the file.
    #[serde(default)]
    pub end: Option<BarTime>,
    /// The label that the network predicts.
    #[serde(default)]
    pub label: Label,
    /// Fraction of the rows, the earlier ones, to train on. The other rows validate.
    #[serde(default = "default_split")]
    #[schemars(extend("exclusiveMinimum" = 0, "exclusiveMaximum" = 1))]
    pub train_split: f64,
    /// Widths of the hidden layers, 1 to 4096 each.
    #[serde(default = "default_layers")]
    #[schemars(length(max = 16), inner(range(min = 1, max = 4096)))]
    pub hidden_layers: Vec<usize>,
    /// Passes over the training rows.
    #[serde(default = "default_epochs")]
    #[schemars(range(min = 1, max = 100_000))]
    pub epochs: u32,
    /// Rows per update of the weights.
    #[serde(default = "default_batch")]
    #[schemars(range(min = 1, max = 65_536))]
    pub batch_size: usize,
    /// Learning rate of the optimizer (Adam).
    #[serde(default = "default_rate")]
    #[schemars(range(max = 10.0), extend("exclusiveMinimum" = 0))]
    pub learning_rate: f64,
    /// Use a new order of the training rows in each epoch. False uses the order of time.
    #[serde(default = "default_shuffle")]
    pub shuffle: bool,
    /// The initial weights.
    #[serde(default)]
    pub init: Init,
    /// Seed of the initial weights and the orders. The same request gives the same numbers.
    #[serde(default = "default_seed")]
    pub seed: u64,
    /// Stop early when the validation loss no longer falls. Without it, all epochs run.
    #[serde(default)]
    pub early_stopping: Option<EarlyStopping>,
    /// The model file to write, relative to the data directory, ending in `.json`. The default is
    /// `models/{operation_id}.json`.
    #[serde(default)]
    #[schemars(length(max = 1024), regex(pattern = r"\.json$"))]
    pub model_file: Option<String>,
    /// Replace the model file if it exists. False fails with `output_exists`, unless the operation
    /// itself, or the one that it retries or resumes, wrote the file.
    // Not written when it is false: a model file records the request, and stays the same then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overwrite: bool,
}

fn default_split() -> f64 {
    0.8
}

fn default_layers() -> Vec<usize> {
    vec![32, 16]
}

fn default_epochs() -> u32 {
    50
}

fn default_batch() -> usize {
    32
}

fn default_rate() -> f64 {
    0.001
}

fn default_shuffle() -> bool {
    true
}

fn default_seed() -> u64 {
    42
}

/// The prediction of the network about the next bar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// Whether it closes higher.
    #[default]
    NextUp,
    /// Whether its range, relative to its close, is greater than the median over the training rows.
    NextRangeHigh,
}

/// The initial weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Init {
    /// Glorot uniform, from the seed.
    #[default]
    Random,
    /// A fixed sine pattern, to compare implementations.
    Fixed,
}

/// When to stop early.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EarlyStopping {
    /// Stop after this many epochs in a row without a better validation loss.
    #[schemars(range(min = 1, max = 100_000))]
    pub patience: u32,
    /// A loss is better when it is lower by more than this, in nats.
    #[serde(default)]
    #[schemars(range(min = 0.0))]
    pub min_delta: f64,
    /// The epoch whose weights the model has.
    // Not written when it is the default: a model file records the request, and stays the same then.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keep: Keep,
}

/// The epoch whose weights the model has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The one with the least validation loss; the first of equals.
    Best,
    /// The last.
    #[default]
    Last,
}

impl TrainingRequest {
    /// Whether the model has the weights of the best epoch.
    pub fn keeps_best(&self) -> bool {
        self.early_stopping
            .is_some_and(|stopping| stopping.keep == Keep::Best)
    }

    /// The selected bars.
    pub fn selection(&self) -> BarSelection {
        BarSelection {
            symbol: self.symbol.clone(),
            timeframe: self.timeframe,
            start: self.start,
            end: self.end,
        }
    }

    /// The number of inputs of the first layer, then the number of outputs of each layer.
    pub fn layer_sizes(&self) -> Vec<usize> {
        [&[FEATURES.len()], &self.hidden_layers[..], &[1]].concat()
    }

    /// Checks the values. The schema has most of these limits too, but a client may not have
    /// validated the request against it.
    ///
    /// # Errors
    /// `invalid_request` with the name of the parameter and its allowed values.
    pub fn check(&self) -> Result<(), OperationError> {
        let split = self.train_split;

        require(
            split > 0.0 && split < 1.0,
            "train_split must be above 0 and below 1",
        )?;
        require(
            (1..=100_000).contains(&self.epochs),
            "epochs must be 1 to 100000",
        )?;
        require(
            (1..=65_536).contains(&self.batch_size),
            "batch_size must be 1 to 65536",
        )?;
        require(
            self.learning_rate > 0.0 && self.learning_rate <= 10.0,
            "learning_rate must be above 0 and at most 10",
        )?;
        require(
            self.hidden_layers.len() <= MAX_LAYERS
                && self
                    .hidden_layers
                    .iter()
                    .all(|width| (1..=MAX_WIDTH).contains(width)),
            "hidden_layers may hold up to 16 widths of 1 to 4096",
        )?;

        let parameters: usize = self
            .layer_sizes()
            .windows(2)
            .map(|pair| (pair[0] + 1) * pair[1])
            .sum();

        require(
            parameters <= MAX_PARAMETERS,
            "hidden_layers give a network of more than 10 million weights",
        )?;

        let stopping = self.early_stopping;
        require(
            stopping.is_none_or(|stopping| stopping.patience >= 1),
            "early_stopping: patience must be at least 1",
        )?;
        require(
            stopping
                .is_none_or(|stopping| stopping.min_delta >= 0.0 && stopping.min_delta.is_finite()),
            "early_stopping: min_delta must be a number of at least 0",
        )
    }
}

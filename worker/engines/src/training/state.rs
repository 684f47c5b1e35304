//! The state of a training between two epochs, which is also its checkpoint.

use serde::{Deserialize, Serialize};

use super::history::{EpochMetrics, History};
use super::init;
use super::layer::Layer;
use super::request::TrainingRequest;

/// The version of the rules of a training. Increase it when the same request and bars give other
/// numbers: a run never resumes from a state of other rules.
const RULES: u32 = 1;

/// A training between two epochs. Together with the request and its bars it determines everything
/// that follows, so a resumed run ends with the same numbers as a run without an interruption.
///
/// It has no state of a random generator: weights and orders depend only on the seed and the number
/// of the epoch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingState {
    /// The version of the rules.
    #[serde(default)]
    pub(super) rules: u32,
    /// Number of updates so far.
    pub(super) steps: u64,
    /// The network.
    pub(super) layers: Vec<Layer>,
    /// The first moments of the optimizer, in the shape of the layers.
    pub(super) first_moments: Vec<Layer>,
    /// The second moments of the optimizer.
    pub(super) second_moments: Vec<Layer>,
    /// The network after the best epoch, when the model is to have its weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) best: Option<Vec<Layer>>,
    /// The measurements of the finished epochs. The best epoch and early stopping follow from them.
    pub(super) history: History,
}

impl TrainingState {
    /// The state before the first epoch.
    pub fn new(request: &TrainingRequest) -> Self {
        let layers = init::layers(request);
        let zeros: Vec<Layer> = layers.iter().map(Layer::zeros).collect();
        Self {
            rules: RULES,
            steps: 0,
            first_moments: zeros.clone(),
            second_moments: zeros,
            layers,
            best: None,
            history: History::default(),
        }
    }

    /// Number of finished epochs.
    pub fn epochs_done(&self) -> u32 {
        self.history.epochs()
    }

    /// The epoch whose weights the model has.
    pub(super) fn model_epoch(&self) -> Option<&EpochMetrics> {
        match self.best {
            Some(_) => self.history.best(),
            None => self.history.0.last(),
        }
    }

    /// The weights that the model has.
    pub(super) fn model_layers(&self) -> &[Layer] {
        self.best.as_deref().unwrap_or(&self.layers)
    }

    /// Whether the shapes match a training with this request.
    pub(crate) fn fits(&self, request: &TrainingRequest) -> bool {
        let sizes = request.layer_sizes();
        let shaped = |layers: &[Layer]| {
            layers.len() + 1 == sizes.len()
                && layers
                    .iter()
                    .zip(sizes.windows(2))
                    .all(|(layer, pair)| layer.weights.dim() == (pair[1], pair[0]))
        };

        let has_best = request.keeps_best() && self.epochs_done() > 0;

        [&self.layers, &self.first_moments, &self.second_moments]
            .into_iter()
            .chain(&self.best)
            .all(|layers| shaped(layers))
            && self.rules == RULES
            && self.best.is_some() == has_best
            && self.history.is_sound()
    }
}

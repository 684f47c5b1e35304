//! All that a training has come to after an epoch.

use serde::{Deserialize, Serialize};

use super::history::History;
use super::init;
use super::layer::Layer;
use super::request::TrainingRequest;

/// A training between two epochs. Together with the request and its bars it determines everything
/// that follows, so a run that is restored from it ends with the same numbers as one that was never
/// interrupted.
///
/// There is no state of a random generator: weights and orders depend on the seed and the number of
/// the epoch alone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingState {
    /// Steps of the optimiser so far.
    pub(super) steps: u64,
    /// The network.
    pub(super) layers: Vec<Layer>,
    /// The optimiser's first moments, in the shape of the layers.
    pub(super) first_moments: Vec<Layer>,
    /// The optimiser's second moments.
    pub(super) second_moments: Vec<Layer>,
    /// What each finished epoch measured; the best epoch and early stopping follow from it.
    pub(super) history: History,
}

impl TrainingState {
    /// Before the first epoch.
    pub fn new(request: &TrainingRequest) -> Self {
        let layers = init::layers(request);
        let zeros: Vec<Layer> = layers.iter().map(Layer::zeros).collect();
        Self {
            steps: 0,
            first_moments: zeros.clone(),
            second_moments: zeros,
            layers,
            history: History::default(),
        }
    }

    /// Epochs that are finished.
    pub fn epochs_done(&self) -> u32 {
        self.history.epochs()
    }

    /// Whether it belongs to a training with this request, as far as its shape tells.
    pub(super) fn fits(&self, request: &TrainingRequest) -> bool {
        let sizes = request.layer_sizes();
        let shaped = |layers: &[Layer]| {
            layers.len() + 1 == sizes.len()
                && layers
                    .iter()
                    .zip(sizes.windows(2))
                    .all(|(layer, pair)| layer.weights.dim() == (pair[1], pair[0]))
        };

        [&self.layers, &self.first_moments, &self.second_moments]
            .into_iter()
            .all(|layers| shaped(layers))
            && self.history.is_sound()
    }
}

//! The weights and biases of a dense layer. Gradients and the moments of the optimizer have the
//! same shape and use the same type.

use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

/// The weights and biases of a layer. A layer from a checkpoint or a model file has the right
/// number of weights, and all are finite.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Plain", into = "Plain")]
pub(super) struct Layer {
    /// One row for each output.
    pub(super) weights: Array2<f64>,
    /// One for each output.
    pub(super) biases: Array1<f64>,
}

impl Layer {
    /// Creates a layer. The weights are ordered by output, then by input.
    pub(super) fn new(
        inputs: usize,
        outputs: usize,
        weights: Vec<f64>,
        biases: Vec<f64>,
    ) -> Result<Self, UnsoundLayer> {
        let weights =
            Array2::from_shape_vec((outputs, inputs), weights).map_err(|_| UnsoundLayer)?;
        let finite = weights.iter().chain(&biases).all(|value| value.is_finite());

        if finite && biases.len() == outputs {
            Ok(Self {
                weights,
                biases: biases.into(),
            })
        } else {
            Err(UnsoundLayer)
        }
    }

    /// A layer of zeros with the same shape.
    pub(super) fn zeros(&self) -> Self {
        Self {
            weights: Array2::zeros(self.weights.dim()),
            biases: Array1::zeros(self.biases.dim()),
        }
    }
}

/// The number of weights or biases does not match the sizes, or one is not finite.
#[derive(Debug, thiserror::Error)]
#[error(
    "a layer has another number of weights or biases than its sizes say, or one that is not finite"
)]
pub(super) struct UnsoundLayer;

/// The form of a layer in a checkpoint.
#[derive(Serialize, Deserialize)]
struct Plain {
    inputs: usize,
    outputs: usize,
    weights: Vec<f64>,
    biases: Vec<f64>,
}

impl From<Layer> for Plain {
    fn from(layer: Layer) -> Self {
        let (outputs, inputs) = layer.weights.dim();
        Self {
            inputs,
            outputs,
            weights: layer.weights.into_iter().collect(),
            biases: layer.biases.to_vec(),
        }
    }
}

impl TryFrom<Plain> for Layer {
    type Error = UnsoundLayer;

    fn try_from(plain: Plain) -> Result<Self, UnsoundLayer> {
        Self::new(plain.inputs, plain.outputs, plain.weights, plain.biases)
    }
}

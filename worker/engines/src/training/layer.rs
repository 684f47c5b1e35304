//! One dense layer's numbers. Gradients and the optimiser's moments have the same shape, and are
//! layers too.

use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

/// A layer. One that was read from a checkpoint or a model file has finite numbers, as many as its
/// sizes ask for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Plain", into = "Plain")]
pub(super) struct Layer {
    /// A row for each output.
    pub(super) weights: Array2<f64>,
    /// One for each output.
    pub(super) biases: Array1<f64>,
}

impl Layer {
    /// From weights output by output, and within an output input by input.
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

/// There are more or fewer numbers than the sizes ask for, or one is not finite.
#[derive(Debug, thiserror::Error)]
#[error("a layer's numbers are not as many as its sizes ask for, or not finite")]
pub(super) struct UnsoundLayer;

/// A layer as checkpoints have it.
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

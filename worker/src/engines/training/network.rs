//! The dense network: plain numbers to keep and send, tensors to compute with.

use candle_core::{Device, Result, Tensor, Var};
use serde::{Deserialize, Serialize};

use super::features::FEATURES;
use super::matmul::matmul;
use crate::OperationError;

/// One layer as plain numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Layer {
    /// Values that come in.
    pub(super) inputs: usize,
    /// Values that go out.
    pub(super) outputs: usize,
    /// Output by output, and within an output input by input.
    pub(super) weights: Vec<f64>,
    /// One for each output.
    pub(super) biases: Vec<f64>,
}

impl Layer {
    /// A layer of zeros with the same shape.
    pub(super) fn zeros(&self) -> Self {
        Self { weights: vec![0.0; self.weights.len()], biases: vec![0.0; self.biases.len()], ..*self }
    }

    /// Whether there are as many numbers as the sizes ask for, and all are finite.
    pub(super) fn is_sound(&self) -> bool {
        self.inputs.checked_mul(self.outputs) == Some(self.weights.len())
            && self.outputs == self.biases.len()
            && self.weights.iter().chain(&self.biases).all(|value| value.is_finite())
    }

    /// Its numbers as tensors, weights with one row per output.
    pub(super) fn tensors(&self) -> Result<[Tensor; 2]> {
        Ok([
            Tensor::from_slice(&self.weights, (self.outputs, self.inputs), &Device::Cpu)?,
            Tensor::from_slice(&self.biases, self.outputs, &Device::Cpu)?,
        ])
    }

    /// The reverse of [`tensors`](Self::tensors).
    pub(super) fn from_tensors(weights: &Tensor, biases: &Tensor) -> Result<Self> {
        let (outputs, inputs) = weights.dims2()?;
        Ok(Self { inputs, outputs, weights: weights.flatten_all()?.to_vec1()?, biases: biases.to_vec1()? })
    }
}

/// The network: dense layers with ReLU between them and one logit at the end.
pub(super) struct Network {
    /// Weights and biases of the layers, in turn.
    variables: Vec<Var>,
}

impl Network {
    pub(super) fn new(layers: &[Layer]) -> Result<Self> {
        let mut variables = Vec::new();
        for layer in layers {
            for tensor in layer.tensors()? {
                variables.push(Var::from_tensor(&tensor)?);
            }
        }
        Ok(Self { variables })
    }

    pub(super) fn variables(&self) -> &[Var] {
        &self.variables
    }

    pub(super) fn layers(&self) -> Result<Vec<Layer>> {
        self.variables.chunks_exact(2).map(|layer| Layer::from_tensors(&layer[0], &layer[1])).collect()
    }

    /// The logits of standardised rows, given one after the other.
    pub(super) fn logits(&self, features: &[f64]) -> Result<Tensor> {
        let rows = features.len() / FEATURES.len();
        let mut signal = Tensor::from_slice(features, (rows, FEATURES.len()), &Device::Cpu)?;
        let count = self.variables.len() / 2;
        for (at, layer) in self.variables.chunks_exact(2).enumerate() {
            signal = matmul(&signal, &layer[0].t()?)?.broadcast_add(&layer[1])?;
            if at + 1 < count {
                signal = signal.relu()?;
            }
        }
        signal.flatten_all()
    }

    /// The same as plain numbers.
    pub(super) fn answers(&self, features: &[f64]) -> Result<Vec<f64>> {
        self.logits(features)?.to_vec1()
    }
}

/// An error of the tensor library. Shapes are checked before, so it says that something is wrong with the program.
pub(super) fn tensor_error(error: candle_core::Error) -> OperationError {
    OperationError::failed(format!("tensor library: {error}"))
}

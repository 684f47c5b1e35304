//! The optimiser (docs: "Optimiser").
//!
//! candle-nn has one that computes the same, but keeps its moments to itself: a run could not be saved and resumed.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};

use super::network::Layer;

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
/// Outside the corrected root: inside it, losses drift apart from those of other implementations.
const EPSILON: f64 = 1e-8;

/// Adam without weight decay.
pub(super) struct Adam {
    learning_rate: f64,
    steps: u64,
    /// First and second moment of each variable.
    moments: Vec<[Tensor; 2]>,
}

impl Adam {
    /// An optimiser that has done `steps` steps and come to these moments.
    pub(super) fn new(learning_rate: f64, steps: u64, first: &[Layer], second: &[Layer]) -> Result<Self> {
        let mut moments = Vec::new();
        for (first, second) in first.iter().zip(second) {
            for (first, second) in first.tensors()?.into_iter().zip(second.tensors()?) {
                moments.push([first, second]);
            }
        }
        Ok(Self { learning_rate, steps, moments })
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// The first (0) or second (1) moments in the shape of the layers.
    pub(super) fn moments(&self, which: usize) -> Result<Vec<Layer>> {
        self.moments.chunks_exact(2).map(|layer| Layer::from_tensors(&layer[0][which], &layer[1][which])).collect()
    }

    /// Moves `variables`, which must be those the moments were made for, against their gradients.
    pub(super) fn step(&mut self, variables: &[Var], gradients: &GradStore) -> Result<()> {
        self.steps += 1;
        let power = self.steps as f64;
        let (correct_1, correct_2) = (1.0 - BETA_1.powf(power), 1.0 - BETA_2.powf(power));
        for (variable, [first, second]) in variables.iter().zip(&mut self.moments) {
            let Some(gradient) = gradients.get(variable) else { continue };
            *first = ((&*first * BETA_1)? + (gradient * (1.0 - BETA_1))?)?.detach();
            *second = ((&*second * BETA_2)? + (gradient.sqr()? * (1.0 - BETA_2))?)?.detach();
            let size = ((&*second / correct_2)?.sqrt()? + EPSILON)?;
            let step = ((&*first * (self.learning_rate / correct_1))? / size)?;
            variable.set(&(variable.as_tensor() - step)?.detach())?;
        }
        Ok(())
    }
}

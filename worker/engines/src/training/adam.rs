//! The optimiser (docs: "Optimiser").

use ndarray::Zip;

use super::layer::Layer;
use super::state::TrainingState;

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
/// Outside the corrected root: inside it, losses drift apart from those of other implementations.
const EPSILON: f64 = 1e-8;

/// Moves the network of `state` one step against `gradient`: Adam without weight decay.
pub(super) fn step(state: &mut TrainingState, gradient: &[Layer], learning_rate: f64) {
    state.steps += 1;

    let power = state.steps as f64;

    // Computed once, because multiplying is cheaper than dividing.
    let (rate, correction) = (
        learning_rate / (1.0 - BETA_1.powf(power)),
        1.0 / (1.0 - BETA_2.powf(power)),
    );
    let update = |value: &mut f64, gradient: &f64, first: &mut f64, second: &mut f64| {
        *first = *first * BETA_1 + gradient * (1.0 - BETA_1);
        *second = *second * BETA_2 + gradient * gradient * (1.0 - BETA_2);
        *value -= *first * rate / ((*second * correction).sqrt() + EPSILON);
    };
    let moments = state
        .first_moments
        .iter_mut()
        .zip(&mut state.second_moments);

    for ((layer, gradient), (first, second)) in state.layers.iter_mut().zip(gradient).zip(moments) {
        Zip::from(&mut layer.weights)
            .and(&gradient.weights)
            .and(&mut first.weights)
            .and(&mut second.weights)
            .for_each(update);
        Zip::from(&mut layer.biases)
            .and(&gradient.biases)
            .and(&mut first.biases)
            .and(&mut second.biases)
            .for_each(update);
    }
}

//! The optimizer Adam (D. P. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", 2015,
//! algorithm 1), without weight decay.
//!
//! At step s with gradient g: m = β₁·m + (1 − β₁)·g, v = β₂·v + (1 − β₂)·g², weight −= rate · (m /
//! (1 − β₁^s)) / (√(v / (1 − β₂^s)) + ε).
//!
//! The problem is to get the same numbers as other implementations. ε is added outside the
//! bias-corrected root, as in the paper: inside it, the loss of the last epoch differs by up to
//! 0.002. Both corrections are computed once per step, because they are the same for all weights.

use ndarray::Zip;

use super::layer::Layer;
use super::state::TrainingState;

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
/// Added outside the bias-corrected root; see the module description.
const EPSILON: f64 = 1e-8;

/// Updates the network and the moments in `state` by one step against `gradient`.
pub(super) fn update_weights(state: &mut TrainingState, gradient: &[Layer], learning_rate: f64) {
    state.steps += 1;

    let power = state.steps as f64;

    // Computed once per step. Multiplying is cheaper than dividing.
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

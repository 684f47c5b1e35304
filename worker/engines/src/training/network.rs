//! The forward and the backward computation of a network: dense layers with ReLU between them and
//! one logit at the end.
//!
//! The backward computation is backpropagation (D. E. Rumelhart, G. E. Hinton and R. J. Williams,
//! "Learning representations by back-propagating errors", 1986). A test compares every derivative
//! with the slope of the loss.

use ndarray::linalg::general_mat_mul;
use ndarray::{Array1, Array2, Axis, Zip};

use super::layer::Layer;

/// Returns the logits of standardized rows, and the input of each layer, which [`backward`] needs.
/// The shapes of consecutive layers must match; the code that reads layers checks this.
pub(super) fn forward(layers: &[Layer], rows: Array2<f64>) -> (Array1<f64>, Vec<Array2<f64>>) {
    let mut entered = Vec::with_capacity(layers.len());
    let mut signal = rows;

    for layer in layers {
        if !entered.is_empty() {
            signal.mapv_inplace(|value| value.max(0.0));
        }
        let output = signal.dot(&layer.weights.t()) + &layer.biases;
        entered.push(std::mem::replace(&mut signal, output));
    }

    (signal.index_axis_move(Axis(1), 0), entered)
}

/// Writes the derivatives of a loss by all weights and biases to `gradient`. `by_logits` has the
/// derivatives by the logits, `entered` the inputs of the layers that [`forward`] returned for the
/// same rows.
pub(super) fn backward(
    layers: &[Layer],
    entered: &[Array2<f64>],
    by_logits: Array1<f64>,
    gradient: &mut [Layer],
) {
    let mut by_outputs = by_logits.insert_axis(Axis(1));
    for at in (0..layers.len()).rev() {
        general_mat_mul(
            1.0,
            &by_outputs.t(),
            &entered[at],
            0.0,
            &mut gradient[at].weights,
        );
        gradient[at].biases = by_outputs.sum_axis(Axis(0));

        // Derivatives by the rows themselves are not needed.
        if at > 0 {
            by_outputs = by_outputs.dot(&layers[at].weights);
            // The derivative of ReLU is 0 where its input was not positive.
            Zip::from(&mut by_outputs)
                .and(&entered[at])
                .for_each(|by_output, &value| {
                    if value <= 0.0 {
                        *by_output = 0.0;
                    }
                });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::loss::{row_gradient, row_loss};
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    /// All weights and biases.
    fn numbers(layers: &mut [Layer]) -> Vec<&mut f64> {
        layers
            .iter_mut()
            .flat_map(|layer| layer.weights.iter_mut().chain(&mut layer.biases))
            .collect()
    }

    #[test]
    fn derivatives_are_the_slopes_of_the_loss() {
        const STEP: f64 = 1e-5;

        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut random =
            |shape| Array2::from_shape_simple_fn(shape, || rng.random_range(-1.0..1.0));
        let labels = [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0];

        // Some widths are 1: such matrices are rows and columns at the same time.
        for sizes in [&[3, 1][..], &[3, 5, 4, 1], &[2, 1, 4, 1], &[1, 6, 1, 1]] {
            let layer = |pair: &[usize]| Layer {
                weights: random((pair[1], pair[0])),
                biases: random((pair[1], 1)).column(0).to_owned(),
            };
            let layers: Vec<Layer> = sizes.windows(2).map(layer).collect();
            let rows = random((labels.len(), sizes[0]));
            let loss = |layers: &[Layer]| {
                let (logits, _) = forward(layers, rows.clone());
                logits
                    .iter()
                    .zip(labels)
                    .map(|(z, y)| row_loss(*z, y))
                    .sum::<f64>()
                    / labels.len() as f64
            };

            let (logits, entered) = forward(&layers, rows.clone());
            let held_back = entered
                .iter()
                .skip(1)
                .flatten()
                .filter(|value| **value == 0.0)
                .count();
            let passed = entered.iter().skip(1).flatten().count() - held_back;

            assert!(
                sizes.len() == 2 || held_back > 0 && passed > 0,
                "{sizes:?}: ReLU is not tested"
            );

            let by_logits = logits
                .iter()
                .zip(labels)
                .map(|(z, y)| row_gradient(*z, y) / labels.len() as f64)
                .collect();

            // Not zeros: the earlier contents must not matter.
            let mut gradient = layers.clone();

            backward(&layers, &entered, by_logits, &mut gradient);

            for (at, derivative) in numbers(&mut gradient).into_iter().enumerate() {
                let loss_moved_by = |distance: f64| {
                    let mut moved = layers.clone();
                    *numbers(&mut moved)[at] += distance;
                    loss(&moved)
                };
                let slope = (loss_moved_by(STEP) - loss_moved_by(-STEP)) / (2.0 * STEP);

                assert!(
                    (slope - *derivative).abs() < 1e-8,
                    "{sizes:?}, number {at}: {slope} is not {derivative}"
                );
            }
        }
    }
}

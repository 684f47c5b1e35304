//! Everything that depends on the seed: the initial weights, and the order of the rows in an epoch.
//!
//! Random weights follow X. Glorot and Y. Bengio, "Understanding the difficulty of training deep
//! feedforward neural networks", 2010 (uniform).

use ndarray::{Array1, Array2};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::layer::Layer;
use super::request::{Init, TrainingRequest};

/// The stream of random numbers for the weights. Epoch n uses stream n, from 1.
const WEIGHTS: u64 = 0;

fn stream(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// The layers before the first update.
pub(super) fn layers(request: &TrainingRequest) -> Vec<Layer> {
    let mut rng = stream(request.seed, WEIGHTS);
    let mut k = 0.0;

    request
        .layer_sizes()
        .windows(2)
        .map(|pair| {
            let (inputs, outputs) = (pair[0], pair[1]);
            let mut weight = || match request.init {
                // Glorot uniform. The bound of He, √(6/inputs), overfits earlier in a network this
                // small.
                Init::Random => {
                    let bound = (6.0 / (inputs + outputs) as f64).sqrt();
                    rng.random_range(-bound..bound)
                }
                Init::Fixed => {
                    k += 1.0;
                    2.0 / (inputs as f64).sqrt() * f64::sin(k)
                }
            };
            let mut weights = Array2::zeros((outputs, inputs));
            weights.iter_mut().for_each(|value| *value = weight());
            Layer {
                weights,
                biases: Array1::zeros(outputs),
            }
        })
        .collect()
}

/// The order of `rows` rows in `epoch` (from 1).
///
/// It depends only on the arguments, so a resumed run has the same order.
pub(super) fn order(request: &TrainingRequest, epoch: u32, rows: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows).collect();
    if request.shuffle {
        order.shuffle(&mut stream(request.seed, u64::from(epoch)));
    }
    order
}

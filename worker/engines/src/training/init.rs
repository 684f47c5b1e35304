//! Where weights begin, and the order in which an epoch meets the rows: all that comes from the
//! seed.

use ndarray::{Array1, Array2};
use rand::Rng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use super::layer::Layer;
use super::request::{Init, TrainingRequest};

/// The stream of random numbers for the weights; epochs have the streams of their number, from 1.
const WEIGHTS: u64 = 0;

fn stream(seed: u64, stream: u64) -> ChaCha8Rng {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(stream);
    rng
}

/// The layers before the first step.
pub(super) fn layers(request: &TrainingRequest) -> Vec<Layer> {
    let mut rng = stream(request.seed, WEIGHTS);
    let mut k = 0.0;

    request
        .layer_sizes()
        .windows(2)
        .map(|pair| {
            let (inputs, outputs) = (pair[0], pair[1]);
            let mut weight = || match request.init {
                // Glorot uniform. He's bound, √(6/inputs), overfits sooner in a net this small.
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

/// The order in which `epoch` (from 1) meets `rows` rows.
///
/// It depends on nothing but its arguments, so that a resumed run meets them as an undisturbed one
/// does.
pub(super) fn order(request: &TrainingRequest, epoch: u32, rows: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rows).collect();
    if request.shuffle {
        order.shuffle(&mut stream(request.seed, u64::from(epoch)));
    }
    order
}

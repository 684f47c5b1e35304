//! The training loop.

use super::adam::Adam;
use super::dataset::{Dataset, Part};
use super::features::FEATURES;
use super::history::{EpochMetrics, History};
use super::init;
use super::loss::{Tally, row_gradient};
use super::network::{Network, tensor_error};
use super::request::TrainingRequest;
use super::state::TrainingState;
use crate::OperationError;

/// Validation rows computed at once; bounds memory and the time between two looks at a cancel.
const VALIDATION_ROWS: usize = 4096;

/// A training under way.
pub(super) struct Trainer<'a> {
    request: &'a TrainingRequest,
    data: &'a Dataset,
    network: Network,
    adam: Adam,
    history: History,
}

impl<'a> Trainer<'a> {
    /// Goes on from `state`, which may be a new one.
    pub(super) fn restore(
        request: &'a TrainingRequest,
        data: &'a Dataset,
        state: TrainingState,
    ) -> Result<Self, OperationError> {
        if !state.fits(request) {
            return Err(OperationError::permanent(
                "invalid_checkpoint",
                "the saved training state does not fit this request: start the training anew",
            ));
        }
        let adam = Adam::new(request.learning_rate, state.steps, &state.first_moments, &state.second_moments);
        Ok(Self {
            request,
            data,
            network: Network::new(&state.layers).map_err(tensor_error)?,
            adam: adam.map_err(tensor_error)?,
            history: state.history,
        })
    }

    /// All that is needed to go on from here.
    pub(super) fn state(&self) -> Result<TrainingState, OperationError> {
        Ok(TrainingState {
            steps: self.adam.steps(),
            layers: self.network.layers().map_err(tensor_error)?,
            first_moments: self.adam.moments(0).map_err(tensor_error)?,
            second_moments: self.adam.moments(1).map_err(tensor_error)?,
            history: self.history.clone(),
        })
    }

    pub(super) fn is_finished(&self) -> bool {
        self.history.epochs() >= self.request.epochs || self.history.stops_early(self.request.early_stopping)
    }

    /// Does one epoch. `before_batch` hears which part of it is done, before each batch, and can stop it.
    pub(super) fn epoch(
        &mut self,
        mut before_batch: impl FnMut(f64) -> Result<(), OperationError>,
    ) -> Result<&EpochMetrics, OperationError> {
        let epoch = self.history.epochs() + 1;
        let rows = self.data.train.rows();
        let order = init::order(self.request, epoch, rows);
        let mut train = Tally::default();
        for (at, batch) in order.chunks(self.request.batch_size).enumerate() {
            before_batch((at * self.request.batch_size) as f64 / rows as f64)?;
            self.step(batch, &mut train)?;
        }
        let validation = self.validate(|| before_batch(1.0))?;
        let metrics = EpochMetrics {
            epoch,
            train_loss: train.loss(),
            train_accuracy: train.accuracy(),
            val_loss: validation.loss(),
            val_accuracy: validation.accuracy(),
        };
        // Later epochs cannot come back from here, and a model of such weights could not be written.
        if !metrics.train_loss.is_finite() || !metrics.val_loss.is_finite() {
            return Err(diverged(epoch));
        }
        self.history.0.push(metrics);
        self.history.0.last().ok_or_else(|| diverged(epoch))
    }

    /// Answers the rows of a batch, counts the answers in `tally`, and learns from them.
    fn step(&mut self, batch: &[usize], tally: &mut Tally) -> Result<(), OperationError> {
        let (features, labels) = gather(&self.data.train, batch);
        let mut learn = || {
            let logits = self.network.logits(&features)?;
            let answers: Vec<f64> = logits.to_vec1()?;
            tally.add(&answers, &labels);
            // The product's derivatives by the weights are those of the mean loss, whose derivative by the logits we know.
            let gradient: Vec<f64> =
                answers.iter().zip(&labels).map(|(z, y)| row_gradient(*z, *y) / labels.len() as f64).collect();
            let gradient = candle_core::Tensor::from_vec(gradient, labels.len(), logits.device())?;
            let gradients = (logits * gradient)?.sum_all()?.backward()?;
            self.adam.step(self.network.variables(), &gradients)
        };
        learn().map_err(tensor_error)
    }

    fn validate(&self, mut before: impl FnMut() -> Result<(), OperationError>) -> Result<Tally, OperationError> {
        let part = &self.data.validation;
        let mut tally = Tally::default();
        for (features, labels) in
            part.features.chunks(VALIDATION_ROWS * FEATURES.len()).zip(part.labels.chunks(VALIDATION_ROWS))
        {
            before()?;
            tally.add(&self.network.answers(features).map_err(tensor_error)?, labels);
        }
        Ok(tally)
    }
}

/// The rows of `part` with these numbers, in this order.
fn gather(part: &Part, rows: &[usize]) -> (Vec<f64>, Vec<f64>) {
    let width = FEATURES.len();
    let mut features = Vec::with_capacity(rows.len() * width);
    for row in rows {
        features.extend_from_slice(&part.features[row * width..(row + 1) * width]);
    }
    (features, rows.iter().map(|row| part.labels[*row]).collect())
}

fn diverged(epoch: u32) -> OperationError {
    OperationError::permanent(
        "training_diverged",
        format!("the loss is no longer a finite number in epoch {epoch}: use a smaller learning_rate"),
    )
}

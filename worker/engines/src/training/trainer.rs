//! The training loop.
//!
//! The problem: a training that is interrupted after any epoch and resumed must end with the same
//! numbers, bit for bit. So everything that the loop changes is in one serializable
//! [`TrainingState`], the order of rows in an epoch depends only on the seed and the number of the
//! epoch, and early stopping is computed from the history. The alternative, saving the state of a
//! random generator and counters, was rejected because each one is a part that a checkpoint can
//! miss.
//!
//! An epoch trains batch by batch (mini-batch gradient descent with Adam), then measures the
//! validation rows. Nothing is allocated per weight: the gradient of the last batch is overwritten
//! by the next.

use ndarray::{Array1, Array2, Axis};

use super::dataset::{Dataset, Part};
use super::history::EpochMetrics;
use super::layer::Layer;
use super::loss::{RunningScore, row_gradient};
use super::request::TrainingRequest;
use super::state::TrainingState;
use super::{adam, init, network};
use ktrdr_worker::OperationError;

/// Validation rows computed at once. Bounds the memory and the time between two checks for
/// cancellation.
const VALIDATION_ROWS: usize = 4096;

/// The greatest loss of an epoch, in nats. A network that answers always the same has about 0.7; to
/// lose this much it must be sure of the wrong answer beyond all numbers that probabilities have.
const MAX_LOSS: f64 = 1e6;

/// A running training.
pub(super) struct Trainer<'a> {
    request: &'a TrainingRequest,
    data: &'a Dataset,
    /// Everything needed to resume from here.
    pub(super) state: TrainingState,
    /// The gradient of the last batch. The next batch reuses its memory.
    gradient: Vec<Layer>,
}

impl<'a> Trainer<'a> {
    /// Resumes from `state`, which may be a new one.
    pub(super) fn restore(
        request: &'a TrainingRequest,
        data: &'a Dataset,
        state: TrainingState,
    ) -> Result<Self, OperationError> {
        if !state.fits(request) {
            return Err(OperationError::permanent(
                "invalid_checkpoint",
                "the saved training state does not fit this request: start a new training",
            ));
        }

        let gradient = state.layers.iter().map(Layer::zeros).collect();

        Ok(Self {
            request,
            data,
            state,
            gradient,
        })
    }

    pub(super) fn is_finished(&self) -> bool {
        let history = &self.state.history;
        history.epochs() >= self.request.epochs || history.stops_early(self.request.early_stopping)
    }

    /// Trains one epoch. Calls `before_batch` before each batch with the fraction of the epoch that
    /// is done; an error stops the epoch.
    pub(super) fn train_epoch(
        &mut self,
        mut before_batch: impl FnMut(f64) -> Result<(), OperationError>,
    ) -> Result<&EpochMetrics, OperationError> {
        let epoch = self.state.history.epochs() + 1;
        let rows = self.data.train.rows();
        let order = init::order(self.request, epoch, rows);
        let mut train = RunningScore::default();

        for (at, batch) in order.chunks(self.request.batch_size).enumerate() {
            before_batch((at * self.request.batch_size) as f64 / rows as f64)?;
            self.train_batch(batch, &mut train);
        }

        let validation = self.validate(|| before_batch(1.0))?;
        let metrics = EpochMetrics {
            epoch,
            train_loss: train.loss(),
            train_accuracy: train.accuracy(),
            val_loss: validation.loss(),
            val_accuracy: validation.accuracy(),
        };

        // Later epochs do not recover from this, and a model with these weights tells nothing.
        let worst = metrics.train_loss.max(metrics.val_loss);
        if !metrics.train_loss.is_finite() || !metrics.val_loss.is_finite() || worst > MAX_LOSS {
            return Err(diverged(epoch));
        }

        self.state.history.0.push(metrics);
        if self.request.keeps_best() && self.state.history.last_is_best() {
            self.state.best = Some(self.state.layers.clone());
        }
        self.state.history.0.last().ok_or_else(|| diverged(epoch))
    }

    /// Predicts the rows of a batch, adds the predictions to `score`, and updates the weights.
    fn train_batch(&mut self, batch: &[usize], score: &mut RunningScore) {
        let (rows, labels) = gather(&self.data.train, batch);
        let (logits, entered) = network::forward(&self.state.layers, rows);

        score.add(logits.view(), labels.view());

        let by_logits = logits
            .iter()
            .zip(&labels)
            .map(|(z, y)| row_gradient(*z, *y) / batch.len() as f64)
            .collect();

        network::backward(&self.state.layers, &entered, by_logits, &mut self.gradient);
        adam::update_weights(&mut self.state, &self.gradient, self.request.learning_rate);
    }

    fn validate(
        &self,
        mut before: impl FnMut() -> Result<(), OperationError>,
    ) -> Result<RunningScore, OperationError> {
        let Part {
            features, labels, ..
        } = &self.data.validation;
        let mut score = RunningScore::default();

        for (rows, labels) in features
            .axis_chunks_iter(Axis(0), VALIDATION_ROWS)
            .zip(labels.axis_chunks_iter(Axis(0), VALIDATION_ROWS))
        {
            before()?;
            let (logits, _) = network::forward(&self.state.layers, rows.to_owned());
            score.add(logits.view(), labels);
        }

        Ok(score)
    }
}

/// The features and labels of `rows` of `part`, in this order.
fn gather(part: &Part, rows: &[usize]) -> (Array2<f64>, Array1<f64>) {
    // `select` would create a view of each row, which costs more than copying eight numbers.
    let features = Array2::from_shape_fn((rows.len(), part.features.ncols()), |(at, column)| {
        part.features[[rows[at], column]]
    });
    (features, rows.iter().map(|row| part.labels[*row]).collect())
}

fn diverged(epoch: u32) -> OperationError {
    OperationError::permanent(
        "training_diverged",
        format!(
            "the training diverged: the loss of epoch {epoch} is no finite number or above {MAX_LOSS}; use a smaller learning_rate"
        ),
    )
}

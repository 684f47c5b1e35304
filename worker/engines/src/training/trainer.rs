//! The training loop.

use ndarray::{Array1, Array2, Axis};

use super::dataset::{Dataset, Part};
use super::history::EpochMetrics;
use super::layer::Layer;
use super::loss::{RunningScore, row_gradient};
use super::request::TrainingRequest;
use super::state::TrainingState;
use super::{adam, init, network};
use ktrdr_worker::OperationError;

/// Validation rows computed at once; bounds memory and the time between two looks at a cancel.
const VALIDATION_ROWS: usize = 4096;

/// A training under way.
pub(super) struct Trainer<'a> {
    request: &'a TrainingRequest,
    data: &'a Dataset,
    /// All that is needed to go on from here.
    pub(super) state: TrainingState,
    /// That of the newest batch: kept for its memory, which the next one uses again.
    gradient: Vec<Layer>,
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

    /// Does one epoch. `before_batch` hears which part of it is done, before each batch, and can
    /// stop it.
    pub(super) fn epoch(
        &mut self,
        mut before_batch: impl FnMut(f64) -> Result<(), OperationError>,
    ) -> Result<&EpochMetrics, OperationError> {
        let epoch = self.state.history.epochs() + 1;
        let rows = self.data.train.rows();
        let order = init::order(self.request, epoch, rows);
        let mut train = RunningScore::default();

        for (at, batch) in order.chunks(self.request.batch_size).enumerate() {
            before_batch((at * self.request.batch_size) as f64 / rows as f64)?;
            self.step(batch, &mut train);
        }

        let validation = self.validate(|| before_batch(1.0))?;
        let metrics = EpochMetrics {
            epoch,
            train_loss: train.loss(),
            train_accuracy: train.accuracy(),
            val_loss: validation.loss(),
            val_accuracy: validation.accuracy(),
        };

        // Later epochs cannot come back from here, and a model of such weights could not be
        // written.
        if !metrics.train_loss.is_finite() || !metrics.val_loss.is_finite() {
            return Err(diverged(epoch));
        }

        self.state.history.0.push(metrics);
        self.state.history.0.last().ok_or_else(|| diverged(epoch))
    }

    /// Answers the rows of a batch, counts the answers in `score`, and learns from them.
    fn step(&mut self, batch: &[usize], score: &mut RunningScore) {
        let (rows, labels) = gather(&self.data.train, batch);
        let (logits, entered) = network::forward(&self.state.layers, rows);

        score.add(logits.view(), labels.view());

        let by_logits = logits
            .iter()
            .zip(&labels)
            .map(|(z, y)| row_gradient(*z, *y) / batch.len() as f64)
            .collect();

        network::backward(&self.state.layers, &entered, by_logits, &mut self.gradient);
        adam::step(&mut self.state, &self.gradient, self.request.learning_rate);
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

/// Features and labels of the rows of `part` with these numbers, in this order.
fn gather(part: &Part, rows: &[usize]) -> (Array2<f64>, Array1<f64>) {
    // `select` does the same by way of a view of each row, which is much for eight numbers.
    let features = Array2::from_shape_fn((rows.len(), part.features.ncols()), |(at, column)| {
        part.features[[rows[at], column]]
    });
    (features, rows.iter().map(|row| part.labels[*row]).collect())
}

fn diverged(epoch: u32) -> OperationError {
    OperationError::permanent(
        "training_diverged",
        format!(
            "the loss is no longer a finite number in epoch {epoch}: use a smaller learning_rate"
        ),
    )
}

//! Progress, metric points and checkpoints of a running training.

use std::time::Instant;

use super::history::EpochMetrics;
use super::state::TrainingState;
use ktrdr_worker::{Context, OperationError, Progress};

/// Reports progress, and the measurements of each epoch as metric points.
pub(super) struct ProgressReporter<'a> {
    ctx: &'a Context,
    total: u32,
    /// Epochs done by an earlier attempt.
    before: u32,
    done: u32,
    newest: Option<EpochMetrics>,
    started: Instant,
}

impl<'a> ProgressReporter<'a> {
    /// Creates the reporter of a training of `total` epochs, of which `before` are done.
    pub(super) fn new(ctx: &'a Context, total: u32, before: u32) -> Self {
        Self {
            ctx,
            total,
            before,
            done: before,
            newest: None,
            started: Instant::now(),
        }
    }

    /// Within an epoch, when the fraction `part` of it is done: fails when the operation was
    /// cancelled, and reports progress when it is due.
    pub(super) fn batch(&self, part: f64) -> Result<(), OperationError> {
        self.ctx.check_cancelled()?;
        self.ctx
            .progress_with(|| self.progress(self.done + 1, f64::from(self.done) + part));
        Ok(())
    }

    /// After an epoch: reports its measurements.
    pub(super) fn epoch(&mut self, metrics: &EpochMetrics) {
        for (name, value) in metrics.named() {
            self.ctx.metric_at(name, metrics.epoch, value);
        }
        self.done = metrics.epoch;
        self.newest = Some(metrics.clone());
        self.ctx
            .progress(self.progress(self.done, f64::from(self.done)));
    }

    /// Saves a checkpoint when one is due.
    pub(super) fn checkpoint(&self, state: &TrainingState) {
        self.ctx.checkpoint_with(|| state);
    }

    /// Reports the last progress before the result.
    pub(super) fn finish(&self) {
        self.ctx
            .progress(self.progress(self.done, f64::from(self.done)).finished());
    }

    /// The progress in epoch `epoch`, with `done` epochs done (a fraction within an epoch).
    fn progress(&self, epoch: u32, done: f64) -> Progress {
        let total = self.total;
        let mut progress = Progress::new(done / f64::from(total) * 100.0)
            .step(format!("Epoch {epoch}/{total}"))
            .remaining_seconds(self.remaining(done))
            .field("epoch", epoch)
            .field("total_epochs", total);

        for (name, value) in self.newest.iter().flat_map(EpochMetrics::named) {
            progress = progress.field(name, value);
        }

        progress
    }

    fn remaining(&self, done: f64) -> Option<u64> {
        let here = done - f64::from(self.before);
        let seconds = self.started.elapsed().as_secs_f64() / here * (f64::from(self.total) - done);
        seconds.is_finite().then_some(seconds.ceil() as u64)
    }
}

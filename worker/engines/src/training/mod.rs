//! The `training` engine: trains a small neural network on past bars.
//!
//! `docs/engines/training.md` states the rules. The modules, from the lowest to the highest:
//! `layer` holds weights; `loss`, `network` (forward and backward), `init` and `adam` are the
//! mathematics; `features` and `dataset` prepare the rows; `state` is a training between two
//! epochs, `history` its measurements; `trainer` is the loop; `model` is the trained model and its
//! file format, `model_writer` writes it; `progress` reports, and `output` is the result.

mod adam;
mod dataset;
pub mod features;
mod history;
mod init;
mod layer;
mod loss;
pub mod model;
mod model_writer;
mod network;
mod output;
mod progress;
mod request;
mod state;
mod trainer;

pub use dataset::Baseline;
pub use history::{EpochMetrics, History};
pub use output::{PartFigures, TrainingOutput};
pub use request::{EarlyStopping, Init, Keep, Label, TrainingRequest};
pub use state::TrainingState;

use self::dataset::Dataset;
use self::model::ModelFile;
use self::model_writer::ModelWriter;
use self::progress::ProgressReporter;
use self::trainer::Trainer;
use crate::bars::Bars;
use ktrdr_worker::{Context, Engine, OperationError};

/// The `training` engine.
pub struct Training;

impl Engine for Training {
    const NAME: &'static str = "training";
    const DESCRIPTION: &'static str =
        "Trains a small neural network on past price bars and writes it as a model file.";
    type Request = TrainingRequest;
    type Output = TrainingOutput;

    async fn run(
        &self,
        ctx: Context,
        request: TrainingRequest,
    ) -> Result<TrainingOutput, OperationError> {
        ctx.blocking(move |ctx| train(ctx, &request)).await
    }
}

/// Runs one training from request to model file.
///
/// # Errors
/// A permanent error when the request or the bars are invalid or the training diverges;
/// [`OperationError::Cancelled`] when the operation was cancelled.
pub fn train(ctx: &Context, request: &TrainingRequest) -> Result<TrainingOutput, OperationError> {
    request.check()?;

    // Fail before the work when the file cannot be written.
    let target = ModelWriter::new(ctx, request.model_file.as_deref(), request.overwrite)?;
    let bars = Bars::load(ctx, &request.selection())?;
    let data = Dataset::new(&bars, request)?;

    // The checkpoint of an earlier attempt, unless it belongs to a network of another shape.
    let saved = ctx
        .last_checkpoint::<TrainingState>()
        .filter(|state| state.fits(request));
    let state = saved.unwrap_or_else(|| TrainingState::new(request));
    let mut progress = ProgressReporter::new(ctx, request.epochs, state.epochs_done());
    let state = learn(request, &data, state, &mut progress)?;
    let model = ModelFile::new(request, &data, &state)
        .map_err(|error| OperationError::failed(format!("{}: {error}", target.name())))?;

    target.write(&model)?;
    progress.finish();

    Ok(TrainingOutput::new(
        data,
        state,
        request.epochs,
        target.name().to_owned(),
    ))
}

/// Trains from `state` to the end. A run that resumes from a saved state gives the same numbers as
/// a run without an interruption.
fn learn(
    request: &TrainingRequest,
    data: &Dataset,
    state: TrainingState,
    progress: &mut ProgressReporter<'_>,
) -> Result<TrainingState, OperationError> {
    let mut trainer = Trainer::restore(request, data, state)?;
    while !trainer.is_finished() {
        let metrics = trainer.train_epoch(|part| progress.batch(part))?;
        progress.epoch(metrics);
        progress.checkpoint(&trainer.state);
    }

    Ok(trainer.state)
}

#[cfg(test)]
mod tests;

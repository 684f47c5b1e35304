//! `training`: a small neural network learns from past bars. The rules are in
//! `docs/engines/training.md`.

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
pub use request::{EarlyStopping, Init, Label, TrainingRequest};
pub use state::TrainingState;

use self::dataset::Dataset;
use self::model::ModelFile;
use self::model_writer::ModelWriter;
use self::progress::ProgressReporter;
use self::trainer::Trainer;
use crate::bars::Bars;
use ktrdr_worker::{Context, Engine, OperationError};

/// The engine.
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
/// A permanent error for a request or a file that cannot be worked with, or when training diverges;
/// [`OperationError::Cancelled`].
pub fn train(ctx: &Context, request: &TrainingRequest) -> Result<TrainingOutput, OperationError> {
    request.check()?;

    let model_file = request
        .model_file
        .clone()
        .unwrap_or_else(|| format!("models/{}.json", ctx.operation_id()));

    // Before the work, so that a bad name costs nothing.
    let target = ModelWriter::new(ctx, &model_file)?;
    let bars = Bars::load(ctx, &request.selection())?;
    let data = Dataset::new(&bars, request)?;

    // What an earlier attempt came to, unless it belongs to another kind of network.
    let saved = ctx
        .last_checkpoint::<TrainingState>()
        .filter(|state| state.fits(request));
    let state = saved.unwrap_or_else(|| TrainingState::new(request));
    let mut progress = ProgressReporter::new(ctx, request.epochs, state.epochs_done());
    let state = learn(request, &data, state, &mut progress)?;
    let model = ModelFile::new(request, &data, &state)
        .map_err(|error| OperationError::failed(format!("{model_file}: {error}")))?;

    target.write(ctx, &model)?;
    progress.finish();

    Ok(TrainingOutput::new(
        data,
        state.history,
        request.epochs,
        model_file,
    ))
}

/// Trains from `state` to the end. A state that was saved after any epoch gives the same numbers as
/// a run without a break.
fn learn(
    request: &TrainingRequest,
    data: &Dataset,
    state: TrainingState,
    progress: &mut ProgressReporter<'_>,
) -> Result<TrainingState, OperationError> {
    let mut trainer = Trainer::restore(request, data, state)?;
    while !trainer.is_finished() {
        let metrics = trainer.epoch(|part| progress.batch(part))?;
        progress.epoch(metrics);
        progress.checkpoint(&trainer.state);
    }

    Ok(trainer.state)
}

#[cfg(test)]
mod tests;

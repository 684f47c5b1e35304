//! The `backtesting` engine: trades a strategy over past bars.
//!
//! `docs/engines/backtesting.md` states the rules. The modules, from the lowest to the highest:
//! `history` holds trades and equity, `account` the cash and the position; `strategy` turns bars
//! into signals; `simulation` trades the signals bar by bar and reports through `progress`;
//! `metrics` computes the figures of the history, and `output` is the result.

mod account;
mod history;
mod metrics;
mod output;
mod progress;
mod request;
mod simulation;
mod strategy;

pub use history::{ExitReason, Quantity, Trade};
pub use metrics::Metrics;
pub use output::BacktestOutput;
pub use request::{BacktestRequest, Fill, Strategy};

use self::progress::ProgressReporter;
use self::simulation::Simulation;
use self::strategy::Signals;
use crate::bars::Bars;
use ktrdr_worker::{Context, Engine, OperationError};

/// The `backtesting` engine.
pub struct Backtesting;

impl Engine for Backtesting {
    const NAME: &'static str = "backtesting";
    const DOMAIN: Option<&'static str> = Some("backtests");
    const SHORT: Option<&'static str> = Some("bt");
    const DESCRIPTION: &'static str =
        "Trades a strategy over past price bars and reports trades, equity and figures.";
    type Request = BacktestRequest;
    type Output = BacktestOutput;

    async fn run(
        &self,
        ctx: Context,
        request: BacktestRequest,
    ) -> Result<BacktestOutput, OperationError> {
        ctx.blocking(move |ctx| backtest(ctx, &request)).await
    }
}

/// Runs one backtest from request to result.
///
/// # Errors
/// A permanent error when the request, the bars or the model are invalid;
/// [`OperationError::Cancelled`] when the operation was cancelled.
pub fn backtest(
    ctx: &Context,
    request: &BacktestRequest,
) -> Result<BacktestOutput, OperationError> {
    request.check()?;

    let bars = Bars::load(ctx, &request.selection())?;
    let signals = Signals::new(ctx, &request.strategy, &bars)?;
    let warm_up = signals.warm_up();
    let mut progress = ProgressReporter::new(ctx, &bars);
    let history = Simulation::new(request, &bars).run(signals, &mut progress)?;

    progress.finish(&history);

    let periods = request
        .periods_per_year
        .unwrap_or(request.timeframe.periods_per_year());
    let metrics = metrics::metrics(&bars, warm_up, &history, request.initial_capital, periods);

    Ok(BacktestOutput::new(bars, history, metrics))
}

#[cfg(test)]
mod tests;

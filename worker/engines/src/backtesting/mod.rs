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
pub use request::{BacktestRequest, Fill, Strategy, WarmUp};

use self::history::TradingHistory;
use self::progress::ProgressReporter;
use self::simulation::Simulation;
use self::strategy::Signals;
use crate::bars::{Bar, Bars, BarsError};
use crate::warnings::Warnings;
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

    let mut warnings = Warnings::default();
    let (bars, first) = load_bars(ctx, request, &mut warnings)?;
    let traded = &bars.bars[first..];
    let signals = Signals::new(ctx, &request.strategy, &bars)?;
    let warm_up = signals.warm_up().saturating_sub(first);
    let mut progress = ProgressReporter::new(ctx, traded);
    let history = Simulation::new(request, &bars, first).run(signals, &mut progress)?;

    progress.finish(&history);

    let periods = request
        .periods_per_year
        .unwrap_or(request.timeframe.periods_per_year());
    let metrics = metrics::metrics(traded, warm_up, &history, request.initial_capital, periods);

    warn_about_figures(&history, traded, &mut warnings);

    Ok(BacktestOutput::new(
        bars.bars.into_iter().skip(first),
        history,
        periods,
        metrics,
        warnings.into_sentences(),
    ))
}

/// The bars, and the first of them that is traded: those before it are for the indicators.
fn load_bars(
    ctx: &Context,
    request: &BacktestRequest,
    warnings: &mut Warnings,
) -> Result<(Bars, usize), BarsError> {
    let (selection, strategy) = (request.selection(), &request.strategy);

    if request.warm_up == WarmUp::InRange || request.start.is_none() {
        return Ok((Bars::load(ctx, &selection)?, 0));
    }

    let (mut bars, lead) = Bars::load_with_lead(ctx, &selection, strategy.lead())?;
    let in_range = bars.len() - lead;

    if request.warm_up == WarmUp::Auto {
        if in_range >= strategy.bars_needed() {
            bars.bars.drain(..lead);
            return Ok((bars, 0));
        }
        if lead > 0 {
            warnings.add(format!(
                "the range has {in_range} bars, too few to warm up {strategy}: its indicators start {lead} bars before the range"
            ));
        }
    }

    Ok((bars, lead))
}

fn warn_about_figures(history: &TradingHistory, bars: &[Bar], warnings: &mut Warnings) {
    if history.dropped_orders > 0 {
        warnings.add(format!(
            "{} purchases were dropped because the cash did not pay for one unit: raise initial_capital or position_fraction, or set fractional",
            history.dropped_orders
        ));
    }
    if let Some(days) = metrics::too_short_to_annualize(bars) {
        warnings.add(format!(
            "the range is {days:.1} days long: annualized_return and calmar_ratio are null below {} days",
            metrics::MIN_DAYS
        ));
    }
}

#[cfg(test)]
mod tests;

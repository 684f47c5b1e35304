//! The result of a backtest.

use schemars::JsonSchema;
use serde::Serialize;

use super::history::{Trade, TradingHistory};
use super::metrics::Metrics;
use crate::bars::Bar;

/// The result of a backtest.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(extend("x-ktrdr-verdict" = [
    "metrics.total_return_pct", "metrics.buy_hold_return_pct", "metrics.sharpe_ratio",
    "metrics.max_drawdown_pct", "metrics.total_trades", "metrics.win_rate"
]))]
pub struct BacktestOutput {
    /// Number of bars.
    #[schemars(extend("x-ktrdr-unit" = "count"))]
    pub bars: usize,
    /// The time of the first bar, as the file writes it.
    pub first_bar: Box<str>,
    /// The time of the last bar.
    pub last_bar: Box<str>,
    /// Bars in a year, as the annualized metrics use them.
    pub periods_per_year: f64,
    /// The metrics. Undefined ones are null.
    pub metrics: Metrics,
    /// The trades, in order of their sale.
    pub trades: Vec<Trade>,
    /// Time and equity after each bar.
    pub equity_curve: Vec<(Box<str>, f64)>,
    /// What a person should know about the run. At most 20 sentences.
    pub warnings: Vec<String>,
}

impl BacktestOutput {
    /// The result over `bars`, those that were traded.
    pub(super) fn new(
        bars: impl Iterator<Item = Bar>,
        history: TradingHistory,
        periods_per_year: f64,
        metrics: Metrics,
        warnings: Vec<String>,
    ) -> Self {
        let equity_curve: Vec<_> = bars.map(|bar| bar.timestamp).zip(history.equity).collect();

        let time = |entry: Option<&(Box<str>, f64)>| {
            entry.map(|(time, _)| time.clone()).unwrap_or_default()
        };

        Self {
            bars: equity_curve.len(),
            first_bar: time(equity_curve.first()),
            last_bar: time(equity_curve.last()),
            periods_per_year,
            metrics,
            trades: history.trades,
            equity_curve,
            warnings,
        }
    }
}

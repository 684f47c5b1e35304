//! The result of a backtest.

use schemars::JsonSchema;
use serde::Serialize;

use super::history::{Trade, TradingHistory};
use super::metrics::Metrics;
use crate::bars::Bars;

/// The result of a backtest.
#[derive(Debug, Serialize, JsonSchema)]
pub struct BacktestOutput {
    /// Number of bars.
    pub bars: usize,
    /// The time of the first bar, as the file writes it.
    pub first_bar: Box<str>,
    /// The time of the last bar.
    pub last_bar: Box<str>,
    /// The metrics. Undefined ones are null.
    pub metrics: Metrics,
    /// The trades, in order of their sale.
    pub trades: Vec<Trade>,
    /// Time and equity after each bar.
    pub equity_curve: Vec<(Box<str>, f64)>,
}

impl BacktestOutput {
    pub(super) fn new(bars: Bars, history: TradingHistory, metrics: Metrics) -> Self {
        let equity_curve: Vec<_> = bars
            .bars
            .into_iter()
            .map(|bar| bar.timestamp)
            .zip(history.equity)
            .collect();

        let time = |entry: Option<&(Box<str>, f64)>| {
            entry.map(|(time, _)| time.clone()).unwrap_or_default()
        };

        Self {
            bars: equity_curve.len(),
            first_bar: time(equity_curve.first()),
            last_bar: time(equity_curve.last()),
            metrics,
            trades: history.trades,
            equity_curve,
        }
    }
}

//! Progress and metric points of a running backtest.

use super::history::TradingHistory;
use crate::bars::Bar;
use ktrdr_worker::{Context, OperationError, Progress};

/// Bars between two checks for cancellation.
pub(super) const BARS_PER_CHECK: usize = 50;

/// Bars between two checks whether progress is due, about 20 µs. Less often than checks for
/// cancellation, because reading the clock costs as much as one or two bars.
const BARS_PER_PROGRESS: usize = 10 * BARS_PER_CHECK;

/// Approximate number of points of each metric in a run. More points only make plots slower.
const POINTS_PER_RUN: usize = 500;

/// Reports progress, and equity and drawdown as metrics.
pub(super) struct ProgressReporter<'a> {
    ctx: &'a Context,
    bars: &'a [Bar],
    start_equity: Option<f64>,
    peak: f64,
    stride: usize,
    next_point: usize,
}

impl<'a> ProgressReporter<'a> {
    /// Reports about these bars, which are traded.
    pub(super) fn new(ctx: &'a Context, bars: &'a [Bar]) -> Self {
        let stride = bars.len().div_ceil(POINTS_PER_RUN).max(1);
        Self {
            ctx,
            bars,
            start_equity: None,
            peak: f64::MIN,
            stride,
            next_point: 0,
        }
    }

    /// Before bar `i`: fails when the operation was cancelled, and reports progress when it is due.
    pub(super) fn check(
        &mut self,
        i: usize,
        equity: f64,
        trades: usize,
    ) -> Result<(), OperationError> {
        self.ctx.check_cancelled()?;

        let start = *self.start_equity.get_or_insert(equity);
        if i.is_multiple_of(BARS_PER_PROGRESS) {
            self.ctx
                .progress_with(|| self.progress(i, equity - start, trades));
        }

        Ok(())
    }

    /// After bar `i`: reports metric points when they are due.
    pub(super) fn bar(&mut self, i: usize, equity: f64) {
        self.peak = self.peak.max(equity);
        if i == self.next_point || i + 1 == self.bars.len() {
            self.next_point = i + self.stride;
            let drawdown = (self.peak - equity) / self.peak;
            self.ctx.metric_at("equity", i as f64, equity);
            self.ctx.metric_at("drawdown", i as f64, drawdown);
        }
    }

    /// Reports the last progress before the result.
    pub(super) fn finish(&self, history: &TradingHistory) {
        let pnl = match (history.equity.first(), history.equity.last()) {
            (Some(first), Some(last)) => last - first,
            _ => 0.0,
        };
        self.ctx
            .progress(self.progress(self.bars.len(), pnl, history.trades.len()));
    }

    /// The progress after `done` bars.
    fn progress(&self, done: usize, pnl: f64, trades: usize) -> Progress {
        let total = self.bars.len();
        let date = done
            .checked_sub(1)
            .and_then(|at| self.bars.get(at))
            .map(|bar| &*bar.timestamp);

        Progress::ratio(done as u64, total as u64)
            .step(format!("Bar {done}/{total}"))
            .field("current_bar", done)
            .field("total_bars", total)
            .field("current_date", date)
            .field("current_pnl", pnl)
            .field("total_trades", trades)
    }
}

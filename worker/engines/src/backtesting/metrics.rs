//! The metrics of a backtest, computed from its history.
//!
//! `docs/engines/backtesting.md`, "Metrics", has every formula. Sources: Sharpe ratio (W. F.
//! Sharpe, "The Sharpe Ratio", 1994) with a risk-free rate of 0; Sortino ratio (F. A. Sortino and
//! L. N. Price, "Performance Measurement in a Downside Risk Framework", 1994) with a target of 0:
//! the downside deviation is over all returns, gains counting as 0; Calmar ratio (T. W. Young, 1991) over the whole range of bars; annualized return as
//! the compound annual growth rate.
//!
//! The problem with these formulas is the undefined case: a ratio to zero, or a mean over no
//! trades. The intermediate results are NaN or infinite there, and one function, `finite`, turns
//! them into null at the end. Sentinels such as 0 or 999999 were rejected, because a reader cannot
//! tell them from results. Sums run in the order of time, so that results are the same bit for bit
//! on every machine.

use schemars::JsonSchema;
use serde::Serialize;

use super::history::{Trade, TradingHistory};
use crate::bars::Bar;

/// The metrics of a backtest.
///
/// Names ending in `_pct` hold fractions (0.12 is 12 %). Amounts are in the currency of the prices.
/// A metric is null when its formula gives no finite number, such as a ratio to zero or a mean over
/// no trades.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Metrics {
    /// Equity after the last bar, with the position sold.
    #[schemars(extend("x-ktrdr-unit" = "money"))]
    pub final_equity: Option<f64>,
    /// Final equity minus initial capital.
    #[schemars(extend("x-ktrdr-unit" = "money"))]
    pub total_return: Option<f64>,
    /// `total_return` as a fraction of the initial capital.
    #[schemars(extend("x-ktrdr-unit" = "percent"))]
    pub total_return_pct: Option<f64>,
    /// Gain of the price from the close of the warm-up bar to the last close.
    #[schemars(extend("x-ktrdr-unit" = "percent"))]
    pub buy_hold_return_pct: Option<f64>,
    /// Compound annual growth rate (CAGR). Null for a range of less than 30 days.
    #[schemars(extend("x-ktrdr-unit" = "percent"))]
    pub annualized_return: Option<f64>,
    /// Annualized standard deviation of the returns per bar.
    #[schemars(extend("x-ktrdr-unit" = "percent"))]
    pub volatility: Option<f64>,
    /// Annualized ratio of the mean return to its standard deviation. The risk-free rate is 0.
    pub sharpe_ratio: Option<f64>,
    /// Annualized ratio of the mean return to the downside deviation: the root of the mean square
    /// of all returns, with gains as 0.
    pub sortino_ratio: Option<f64>,
    /// Largest fall of the equity from a peak, as a fraction of the peak.
    #[schemars(extend("x-ktrdr-unit" = "percent"))]
    pub max_drawdown_pct: Option<f64>,
    /// Largest fall of the equity from a peak, as an amount.
    #[schemars(extend("x-ktrdr-unit" = "money"))]
    pub max_drawdown: Option<f64>,
    /// `annualized_return` / `max_drawdown_pct`.
    pub calmar_ratio: Option<f64>,
    /// `total_return` / `max_drawdown`.
    pub recovery_factor: Option<f64>,
    /// Fraction of the bars on which a position was held.
    #[schemars(extend("x-ktrdr-unit" = "percent"))]
    pub exposure_pct: Option<f64>,
    /// Number of trades.
    #[schemars(extend("x-ktrdr-unit" = "count"))]
    pub total_trades: usize,
    /// Number of trades with a net profit.
    #[schemars(extend("x-ktrdr-unit" = "count"))]
    pub winning_trades: usize,
    /// Number of trades with a net loss.
    #[schemars(extend("x-ktrdr-unit" = "count"))]
    pub losing_trades: usize,
    /// Winning trades as a fraction of all trades.
    #[schemars(extend("x-ktrdr-unit" = "percent"))]
    pub win_rate: Option<f64>,
    /// Net profit of the winning trades / net loss of the losing trades.
    pub profit_factor: Option<f64>,
    /// Mean net profit of the winning trades.
    #[schemars(extend("x-ktrdr-unit" = "money"))]
    pub avg_win: Option<f64>,
    /// Mean net result of the losing trades, a negative number.
    #[schemars(extend("x-ktrdr-unit" = "money"))]
    pub avg_loss: Option<f64>,
    /// Largest net profit of a trade.
    #[schemars(extend("x-ktrdr-unit" = "money"))]
    pub largest_win: Option<f64>,
    /// Largest net loss of a trade, a negative number.
    #[schemars(extend("x-ktrdr-unit" = "money"))]
    pub largest_loss: Option<f64>,
    /// Mean holding period, in hours.
    #[schemars(extend("x-ktrdr-unit" = "hours"))]
    pub avg_holding_period: Option<f64>,
    /// Mean holding period of the winning trades, in hours.
    #[schemars(extend("x-ktrdr-unit" = "hours"))]
    pub avg_win_holding_period: Option<f64>,
    /// Mean holding period of the losing trades, in hours.
    #[schemars(extend("x-ktrdr-unit" = "hours"))]
    pub avg_loss_holding_period: Option<f64>,
    /// Commission of all trades.
    #[schemars(extend("x-ktrdr-unit" = "money"))]
    pub total_commission: Option<f64>,
}

/// The shortest range whose growth is annualized, in days. The growth of some days, raised to the
/// power of a year, says nothing about a year.
pub(super) const MIN_DAYS: f64 = 30.0;

/// The length of the range in days, when it is too short to annualize its growth.
pub(super) fn too_short_to_annualize(bars: &[Bar]) -> Option<f64> {
    Some(days(bars)).filter(|days| *days < MIN_DAYS)
}

fn days(bars: &[Bar]) -> f64 {
    match (bars.first(), bars.last()) {
        (Some(first), Some(last)) => last.time.seconds_since(first.time) / 86_400.0,
        _ => 0.0,
    }
}

/// Computes the metrics of `history`, which started with `capital`. A year has `periods` bars.
pub(super) fn metrics(
    bars: &[Bar],
    warm_up: usize,
    history: &TradingHistory,
    capital: f64,
    periods: f64,
) -> Metrics {
    let close = |at: usize| bars.get(at).map_or(f64::NAN, |bar| bar.close);
    let final_equity = history.equity.last().copied().unwrap_or(capital);
    let total_return = final_equity - capital;
    let growth = match too_short_to_annualize(bars) {
        Some(_) => f64::NAN,
        None => (final_equity / capital).powf(1.0 / (days(bars) / 365.25)) - 1.0,
    };
    let returns = Returns::of(&history.equity);
    let fall = Drawdown::of(&history.equity);
    let trades = TradeFigures::of(&history.trades);
    let scale = periods.sqrt();

    Metrics {
        final_equity: finite(final_equity),
        total_return: finite(total_return),
        total_return_pct: finite(total_return / capital),
        buy_hold_return_pct: finite(close(bars.len().saturating_sub(1)) / close(warm_up) - 1.0),
        annualized_return: finite(growth),
        volatility: finite(returns.deviation * scale),
        sharpe_ratio: finite(returns.mean / returns.deviation * scale),
        sortino_ratio: finite(returns.mean / returns.downside * scale),
        max_drawdown_pct: finite(fall.fraction),
        max_drawdown: finite(fall.amount),
        calmar_ratio: finite(growth / fall.fraction),
        recovery_factor: finite(total_return / fall.amount),
        exposure_pct: finite(bars_held(&history.trades) as f64 / bars.len() as f64),
        total_trades: history.trades.len(),
        winning_trades: trades.wins.len(),
        losing_trades: trades.losses.len(),
        win_rate: finite(trades.wins.len() as f64 / history.trades.len() as f64),
        profit_factor: finite(
            trades.wins.iter().sum::<f64>() / trades.losses.iter().sum::<f64>().abs(),
        ),
        avg_win: finite(mean(&trades.wins)),
        avg_loss: finite(mean(&trades.losses)),
        largest_win: finite(trades.wins.iter().copied().fold(f64::NAN, f64::max)),
        largest_loss: finite(trades.losses.iter().copied().fold(f64::NAN, f64::min)),
        avg_holding_period: finite(mean(&trades.hours)),
        avg_win_holding_period: finite(mean(&trades.win_hours)),
        avg_loss_holding_period: finite(mean(&trades.loss_hours)),
        total_commission: finite(history.trades.iter().map(|trade| trade.commission).sum()),
    }
}

fn finite(value: f64) -> Option<f64> {
    // An empty sum is -0.0; adding 0.0 makes it 0.0.
    value.is_finite().then_some(value + 0.0)
}

/// The mean. NaN without values.
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// The population standard deviation (divisor n). NaN without values.
fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    (values
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f64>()
        / values.len() as f64)
        .sqrt()
}

/// Statistics of the returns from bar to bar.
struct Returns {
    mean: f64,
    deviation: f64,
    downside: f64,
}

impl Returns {
    fn of(equity: &[f64]) -> Self {
        let returns: Vec<f64> = equity
            .windows(2)
            .map(|pair| pair[1] / pair[0] - 1.0)
            .collect();
        let squares = returns.iter().map(|value| value.min(0.0).powi(2));
        let downside = (squares.sum::<f64>() / returns.len() as f64).sqrt();

        Self {
            mean: mean(&returns),
            deviation: deviation(&returns),
            downside,
        }
    }
}

/// The largest falls from the running peak.
struct Drawdown {
    fraction: f64,
    amount: f64,
}

impl Drawdown {
    fn of(equity: &[f64]) -> Self {
        let mut worst = Self {
            fraction: 0.0,
            amount: 0.0,
        };
        let mut peak = f64::MIN;

        for value in equity {
            peak = peak.max(*value);
            worst.amount = worst.amount.max(peak - value);
            worst.fraction = worst.fraction.max((peak - value) / peak);
        }

        worst
    }
}

/// Number of bars on which a trade was open, including its first and last bar. Trades are in order,
/// and a bar counts once.
fn bars_held(trades: &[Trade]) -> usize {
    let mut counted_to = 0;
    let mut held = 0;
    for trade in trades {
        let (entry, exit) = trade.span;
        held += (exit + 1).saturating_sub(entry.max(counted_to));
        counted_to = exit + 1;
    }
    held
}

#[derive(Default)]
struct TradeFigures {
    wins: Vec<f64>,
    losses: Vec<f64>,
    hours: Vec<f64>,
    win_hours: Vec<f64>,
    loss_hours: Vec<f64>,
}

impl TradeFigures {
    fn of(trades: &[Trade]) -> Self {
        let mut figures = Self::default();
        for trade in trades {
            let hours = trade.holding_period_hours;
            figures.hours.push(hours);
            if trade.net_pnl > 0.0 {
                figures.wins.push(trade.net_pnl);
                figures.win_hours.push(hours);
            } else if trade.net_pnl < 0.0 {
                figures.losses.push(trade.net_pnl);
                figures.loss_hours.push(hours);
            }
        }

        figures
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::{ExitReason, Quantity};
    use super::*;
    use crate::bars::BarTime;

    /// A bar ten days after the one before.
    fn bar(at: usize, close: f64) -> Bar {
        let day = [
            "2023-01-01",
            "2023-01-11",
            "2023-01-21",
            "2023-01-31",
            "2023-02-10",
        ][at];
        let timestamp = day.to_owned();
        let time = BarTime::parse(&timestamp).unwrap();

        Bar {
            timestamp: timestamp.into(),
            time,
            open: close,
            high: close,
            low: close,
            close,
        }
    }

    fn trade(net_pnl: f64, holding_period_hours: f64, span: (usize, usize)) -> Trade {
        Trade {
            entry_time: "".into(),
            exit_time: "".into(),
            entry_price: 1.0,
            exit_price: 1.0,
            quantity: Quantity(1.0),
            gross_pnl: net_pnl + 0.5,
            commission: 0.5,
            net_pnl,
            return_pct: net_pnl,
            holding_period_hours,
            exit_reason: ExitReason::Signal,
            span,
        }
    }

    #[test]
    fn every_figure_by_hand() {
        let closes = [10.0, 20.0, 30.0, 20.0, 15.0];
        let bars: Vec<Bar> = (0..)
            .zip(closes)
            .map(|(at, close)| bar(at, close))
            .collect();

        // Returns 0.1, -0.1, 0.1, -0.2.
        let history = TradingHistory {
            equity: vec![100.0, 110.0, 99.0, 108.9, 87.12],
            trades: vec![
                trade(6.0, 24.0, (0, 1)),
                trade(-4.0, 12.0, (1, 2)),
                trade(2.0, 48.0, (2, 2)),
                trade(0.0, 4.0, (4, 4)),
            ],
            dropped_orders: 0,
        };
        let metrics = metrics(&bars, 1, &history, 100.0, 4.0);
        let near = |actual: Option<f64>, expected: f64| {
            assert!(
                (actual.unwrap() - expected).abs() < 1e-12,
                "{actual:?} is not {expected}"
            );
        };

        near(metrics.final_equity, 87.12);
        near(metrics.total_return, -12.88);
        near(metrics.total_return_pct, -0.1288);
        near(metrics.buy_hold_return_pct, -0.25);

        let growth = 0.8712f64.powf(365.25 / 40.0) - 1.0;
        near(metrics.annualized_return, growth);

        let deviation = 0.016875f64.sqrt();
        near(metrics.volatility, deviation * 2.0);
        near(metrics.sharpe_ratio, -0.025 / deviation * 2.0);
        near(metrics.sortino_ratio, -0.025 / 0.0125f64.sqrt() * 2.0);
        near(metrics.max_drawdown, 22.88);
        near(metrics.max_drawdown_pct, 0.208);
        near(metrics.calmar_ratio, growth / 0.208);
        near(metrics.recovery_factor, -12.88 / 22.88);

        // Bars 0, 1, 2 and 4; a bar of two trades counts once.
        near(metrics.exposure_pct, 0.8);
        assert_eq!(
            (
                metrics.total_trades,
                metrics.winning_trades,
                metrics.losing_trades
            ),
            (4, 2, 1)
        );
        near(metrics.win_rate, 0.5);
        near(metrics.profit_factor, 2.0);
        near(metrics.avg_win, 4.0);
        near(metrics.avg_loss, -4.0);
        near(metrics.largest_win, 6.0);
        near(metrics.largest_loss, -4.0);
        near(metrics.avg_holding_period, 22.0);
        near(metrics.avg_win_holding_period, 36.0);
        near(metrics.avg_loss_holding_period, 12.0);
        near(metrics.total_commission, 2.0);
    }

    /// Ten returns: 2, -1, 3, 0, -2, 1, 4, -3, 2, 1 %. Their mean is 0.7 %. The squares of the losses
    /// are 1, 4 and 9 in units of 1e-4; their mean over all ten is 1.4e-4.
    #[test]
    fn sortino_over_ten_returns_by_hand() {
        let percent = [2.0, -1.0, 3.0, 0.0, -2.0, 1.0, 4.0, -3.0, 2.0, 1.0];
        let mut equity = vec![100.0];
        for change in percent {
            let last = equity[equity.len() - 1];
            equity.push(last * (1.0 + change / 100.0));
        }

        let returns = Returns::of(&equity);

        assert!((returns.mean - 0.007).abs() < 1e-15);
        assert!((returns.downside - 1.4e-4f64.sqrt()).abs() < 1e-15);
        assert!((returns.mean / returns.downside - 0.591_607_978_309_961_6).abs() < 1e-12);
    }

    #[test]
    fn one_loss_has_a_downside_and_none_has_not() {
        assert!(Returns::of(&[100.0, 110.0, 99.0]).downside > 0.0);
        assert_eq!(Returns::of(&[100.0, 110.0, 120.0]).downside, 0.0);
    }

    #[test]
    fn the_growth_of_some_days_is_not_annualized() {
        let bars: Vec<Bar> = (0..3).map(|at| bar(at, 10.0)).collect();
        let history = TradingHistory {
            equity: vec![100.0, 150.0, 200.0],
            trades: Vec::new(),
            dropped_orders: 0,
        };

        let metrics = metrics(&bars, 0, &history, 100.0, 252.0);

        assert_eq!(
            (metrics.annualized_return, metrics.calmar_ratio),
            (None, None)
        );
        assert!(metrics.sharpe_ratio.is_some());
        assert_eq!(too_short_to_annualize(&bars), Some(20.0));
    }
}

//! The engine as a whole.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::engines::bars::{Bar, BarTime};
use crate::testing::TestRun;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../data");

async fn run(request: Value) -> Result<BacktestOutput, OperationError> {
    TestRun::in_dir(DATA).run(&Backtesting, request).await
}

fn near(actual: Option<f64>, expected: f64) {
    let actual = actual.unwrap();
    // The expected numbers are written with 12 decimals, so the smallest of them have 10 digits.
    assert!((actual - expected).abs() <= 1e-9 * expected.abs(), "{actual} is not {expected}");
}

struct Expected {
    counts: (usize, usize, usize),
    final_equity: f64,
    buy_hold: f64,
    annualized: f64,
    sharpe: f64,
    drawdown: f64,
    profit_factor: f64,
    exposure: f64,
    first_trade: (&'static str, f64, &'static str, f64, f64),
}

async fn check(request: Value, expected: Expected) {
    let output = run(request).await.unwrap();
    let metrics = &output.metrics;
    assert_eq!((output.bars, metrics.total_trades, metrics.winning_trades), expected.counts);
    near(metrics.final_equity, expected.final_equity);
    near(metrics.buy_hold_return_pct, expected.buy_hold);
    near(metrics.annualized_return, expected.annualized);
    near(metrics.sharpe_ratio, expected.sharpe);
    near(metrics.max_drawdown_pct, expected.drawdown);
    near(metrics.profit_factor, expected.profit_factor);
    near(metrics.exposure_pct, expected.exposure);
    let (entry, paid, exit, received, quantity) = expected.first_trade;
    let trade = &output.trades[0];
    assert_eq!((&*trade.entry_time, &*trade.exit_time, trade.quantity), (entry, exit, Quantity(quantity)));
    near(Some(trade.entry_price), paid);
    near(Some(trade.exit_price), received);
}

#[tokio::test]
async fn goog_with_crossing_averages() {
    let request = json!({
        "symbol": "GOOG", "timeframe": "1d", "strategy": {"type": "sma_cross", "fast": 10, "slow": 20},
        "initial_capital": 10000, "commission": 0.002, "slippage": 0
    });
    let expected = Expected {
        counts: (2148, 47, 29),
        final_equity: 63126.508688,
        buy_hold: 6.073703606212,
        annualized: 0.241077472505,
        sharpe: 1.079539160861,
        drawdown: 0.200850218760,
        profit_factor: 3.048602909266,
        exposure: 0.595437616387,
        first_trade: ("2004-12-06", 179.13, "2004-12-20", 182.0, 55.0),
    };
    check(request, expected).await;
}

#[tokio::test]
async fn goog_with_relative_strength() {
    let request = json!({
        "symbol": "GOOG", "timeframe": "1d",
        "strategy": {"type": "rsi_threshold", "period": 14, "lower": 30, "upper": 70},
        "initial_capital": 10000, "commission": 0.002, "slippage": 0, "position_fraction": 1, "fill": "next_open"
    });
    let expected = Expected {
        counts: (2148, 9, 7),
        final_equity: 15095.344640,
        buy_hold: 6.879874890040,
        annualized: 0.049454341908,
        sharpe: 0.329260245951,
        drawdown: 0.482217439674,
        profit_factor: 2.782401710430,
        exposure: 0.293296089385,
        first_trade: ("2006-02-10", 362.0, "2006-04-24", 439.34, 27.0),
    };
    check(request, expected).await;
}

#[tokio::test]
async fn ibm_with_all_parameters() {
    let request = json!({
        "symbol": "IBM", "timeframe": "1d", "start": "2005-01-01", "end": "2010-12-31",
        "strategy": {"type": "sma_cross", "fast": 10, "slow": 20},
        "initial_capital": 100_000, "commission": 0.001, "slippage": 0.0005, "position_fraction": 0.25
    });
    let expected = Expected {
        counts: (1511, 45, 20),
        final_equity: 104640.6559727052,
        buy_hold: 0.570969813744,
        annualized: 0.007601165482,
        sharpe: 0.212262354953,
        drawdown: 0.060974955481,
        profit_factor: 1.302884227665,
        exposure: 0.595632031767,
        first_trade: ("2005-02-10", 92.996475, "2005-02-24", 91.93401, 268.0),
    };
    check(request, expected).await;
}

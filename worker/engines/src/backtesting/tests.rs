//! Tests of the whole engine.

use serde_json::{Value, json};

use super::*;
use ktrdr_worker::testing::TestRun;

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../data");

async fn run(request: Value) -> Result<BacktestOutput, OperationError> {
    TestRun::in_dir(DATA).run(&Backtesting, request).await
}

fn near(actual: Option<f64>, expected: f64) {
    let actual = actual.unwrap();
    // The expected numbers have 12 decimals; the smallest of them have little more than nine
    // digits.
    assert!(
        (actual - expected).abs() <= 1e-9 * expected.abs(),
        "{actual} is not {expected}"
    );
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

    assert_eq!(
        (output.bars, metrics.total_trades, metrics.winning_trades),
        expected.counts
    );
    near(metrics.final_equity, expected.final_equity);
    near(metrics.buy_hold_return_pct, expected.buy_hold);
    near(metrics.annualized_return, expected.annualized);
    near(metrics.sharpe_ratio, expected.sharpe);
    near(metrics.max_drawdown_pct, expected.drawdown);
    near(metrics.profit_factor, expected.profit_factor);
    near(metrics.exposure_pct, expected.exposure);

    let (entry, paid, exit, received, quantity) = expected.first_trade;
    let trade = &output.trades[0];

    assert_eq!(
        (&*trade.entry_time, &*trade.exit_time, trade.quantity),
        (entry, exit, Quantity(quantity))
    );
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

fn crossing(more: Value) -> Value {
    let mut request = json!({"symbol": "GOOG", "timeframe": "1d", "strategy": {"type": "sma_cross", "fast": 10, "slow": 20}});
    request
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    request
}

#[tokio::test]
async fn weekend_gaps_and_exact_ties_are_no_trouble() {
    let output = run(crossing(json!({"symbol": "EURUSD", "timeframe": "1h"})))
        .await
        .unwrap();
    assert_eq!((output.bars, output.equity_curve.len()), (6225, 6225));
    assert_eq!(&*output.equity_curve[0].0, "2017-01-01T22:00:00");
    assert_eq!(output.trades.len(), output.metrics.total_trades);
}

#[tokio::test]
async fn it_can_be_watched() {
    let run = TestRun::in_dir(DATA);
    let output = run.run(&Backtesting, crossing(json!({}))).await.unwrap();
    let progress = run.progress();

    assert_eq!(
        (progress.percentage, progress.current_step.as_deref()),
        (100.0, Some("Bar 2148/2148"))
    );
    assert_eq!(progress.fields["current_bar"], 2148);
    assert_eq!(progress.fields["total_bars"], 2148);
    assert_eq!(progress.fields["current_date"], "2013-03-01");
    assert_eq!(progress.fields["total_trades"], output.metrics.total_trades);

    let pnl = progress.fields["current_pnl"].as_f64().unwrap();
    near(Some(pnl), output.metrics.total_return.unwrap());

    let points = run.metrics();
    let of = |name: &str| {
        points
            .iter()
            .filter(|point| point.name == name)
            .collect::<Vec<_>>()
    };

    for name in ["equity", "drawdown"] {
        assert!(
            (400..=501).contains(&of(name).len()),
            "{} of {name}",
            of(name).len()
        );
    }

    assert_eq!(
        of("equity").last().unwrap().value,
        output.metrics.final_equity
    );
    assert!(
        of("drawdown")
            .iter()
            .all(|point| point.value <= output.metrics.max_drawdown_pct)
    );
}

#[tokio::test]
async fn without_trades_undefined_metrics_are_null() {
    let strategy = json!({"type": "rsi_threshold", "period": 14, "lower": 0, "upper": 100});
    let output =
        serde_json::to_value(run(crossing(json!({"strategy": strategy}))).await.unwrap()).unwrap();
    let metrics = &output["metrics"];

    for undefined in [
        "sharpe_ratio",
        "sortino_ratio",
        "calmar_ratio",
        "recovery_factor",
        "win_rate",
        "profit_factor",
        "avg_win",
        "avg_loss",
        "largest_win",
        "largest_loss",
        "avg_holding_period",
        "avg_win_holding_period",
        "avg_loss_holding_period",
    ] {
        assert_eq!(metrics[undefined], Value::Null, "{undefined}");
    }

    for zero in [
        "total_return",
        "volatility",
        "max_drawdown",
        "max_drawdown_pct",
        "exposure_pct",
        "total_commission",
    ] {
        assert_eq!(metrics[zero].to_string(), "0.0", "{zero}");
    }

    assert_eq!(metrics["total_trades"], 0);
    assert_eq!(output["trades"], json!([]));
}

#[tokio::test]
async fn quantities_are_written_as_whole_numbers() {
    let output = serde_json::to_value(
        run(crossing(json!({"initial_capital": 10000})))
            .await
            .unwrap(),
    )
    .unwrap();
    assert!(output["trades"][0]["quantity"].is_u64());
    assert_eq!(output["trades"][0]["exit_reason"], "signal");
}

#[tokio::test]
async fn too_few_bars_are_named() {
    let error = run(crossing(
        json!({"start": "2005-01-03", "end": "2005-01-31", "warm_up": "in_range"}),
    ))
    .await
    .unwrap_err();
    let expected =
        "GOOG_1d.csv: 20 bars in the range are too few: sma_cross 10/20 needs at least 21";

    assert_eq!(
        error,
        OperationError::permanent("insufficient_data", expected)
    );

    // With one more, the last bar is the only one that could give a signal.
    assert_eq!(
        run(crossing(
            json!({"start": "2005-01-03", "end": "2005-02-01"})
        ))
        .await
        .unwrap()
        .bars,
        21
    );
}

/// The signals are those of a run over all bars: averages have no memory beyond their period.
#[tokio::test]
async fn indicators_warm_up_before_the_range() {
    let range = json!({"start": "2012-06-01", "end": "2013-02-28"});
    let with = |warm_up: &str| {
        let mut more = range.clone();
        more["strategy"] = json!({"type": "sma_cross", "fast": 50, "slow": 200});
        more["warm_up"] = json!(warm_up);
        crossing(more)
    };

    let output = run(with("auto")).await.unwrap();

    assert_eq!((output.bars, &*output.first_bar), (186, "2012-06-01"));
    assert_eq!(output.equity_curve.len(), 186);
    assert!(output.metrics.total_trades > 0);
    assert!(
        output.warnings[0].starts_with("the range has 186 bars"),
        "{:?}",
        output.warnings
    );

    let before = run(with("before_start")).await.unwrap();
    assert_eq!(before.trades, output.trades);
    assert_eq!(before.warnings, [""; 0]);
    assert!(run(with("in_range")).await.is_err());
}

#[tokio::test]
async fn a_range_that_is_long_enough_warms_up_in_itself() {
    let range = json!({"start": "2005-01-03", "end": "2006-01-31"});
    let with = |warm_up: &str| {
        let mut more = range.clone();
        more["strategy"] = json!({"type": "sma_cross", "fast": 1, "slow": 20});
        more["warm_up"] = json!(warm_up);
        crossing(more)
    };
    let trades = |output: BacktestOutput| serde_json::to_value(output.trades).unwrap();

    let auto = trades(run(with("auto")).await.unwrap());

    assert_eq!(auto, trades(run(with("in_range")).await.unwrap()));
    assert_ne!(auto, trades(run(with("before_start")).await.unwrap()));
}

#[tokio::test]
async fn wrong_requests_are_refused_by_the_schema_and_by_the_engine() {
    let schema = schemars::schema_for!(BacktestRequest).to_value();
    let schema = jsonschema::validator_for(&schema).unwrap();

    assert!(schema.is_valid(&crossing(json!({}))));

    let by_schema = [
        json!({"symbol": "../GOOG"}),
        json!({"symbol": "GO/OG"}),
        json!({"symbol": ""}),
        json!({"timeframe": "2h"}),
        json!({"start": "yesterday"}),
        json!({"end": 20130301}),
        json!({"initial_capital": 0}),
        json!({"initial_capital": -5}),
        json!({"commission": -0.1}),
        json!({"commission": 1}),
        json!({"slippage": 1.5}),
        json!({"position_fraction": 0}),
        json!({"position_fraction": 1.01}),
        json!({"fill": "open"}),
        json!({"periods_per_year": 0}),
        json!({"leverage": 2}),
        json!({"strategy": "sma_cross"}),
        json!({"strategy": {"type": "macd"}}),
        json!({"strategy": {"type": "sma_cross", "fast": 10}}),
        json!({"strategy": {"type": "sma_cross", "fast": 0, "slow": 20}}),
        json!({"strategy": {"type": "sma_cross", "fast": 10, "slow": 20, "period": 3}}),
        json!({"strategy": {"type": "rsi_threshold", "period": 14, "lower": -1, "upper": 70}}),
        json!({"strategy": {"type": "model", "model_file": "m.json", "buy_above": 1.5}}),
    ];

    for wrong in by_schema {
        let request = crossing(wrong.clone());
        assert!(!schema.is_valid(&request), "the schema lets {wrong} pass");
        assert!(
            matches!(run(request).await, Err(OperationError::Permanent { .. })),
            "{wrong}"
        );
    }

    let by_engine = [
        json!({"start": "2013-02-30"}),
        json!({"strategy": {"type": "sma_cross", "fast": 20, "slow": 20}}),
        json!({"strategy": {"type": "rsi_threshold", "period": 14, "lower": 70, "upper": 30}}),
        json!({"strategy": {"type": "model", "model_file": "m.json", "buy_above": 0.4, "sell_below": 0.6}}),
        json!({"strategy": {"type": "model", "model_file": "../m.json"}}),
        json!({"strategy": {"type": "model", "model_file": "absent.json"}}),
        json!({"symbol": "ABSENT"}),
    ];

    for wrong in by_engine {
        assert!(
            matches!(
                run(crossing(wrong.clone())).await,
                Err(OperationError::Permanent { .. })
            ),
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn a_cancelled_operation_ends_so() {
    let run = TestRun::in_dir(DATA);
    run.cancel();
    assert_eq!(
        run.run(&Backtesting, crossing(json!({})))
            .await
            .unwrap_err(),
        OperationError::Cancelled
    );
}

#[tokio::test]
async fn a_trained_model_trades() {
    let dir = tempfile::tempdir().unwrap();

    std::fs::copy(
        format!("{DATA}/GOOG_1d.csv"),
        dir.path().join("GOOG_1d.csv"),
    )
    .unwrap();

    let run = TestRun::in_dir(dir.path());
    let train = |label: &str| {
        json!({
            "symbol": "GOOG", "timeframe": "1d", "epochs": 3, "label": label, "model_file": format!("models/{label}.json")
        })
    };
    let backtest = |model: Value| crossing(json!({"strategy": model, "initial_capital": 10000}));

    for label in ["next_up", "next_range_high"] {
        run.run(&crate::training::Training, train(label))
            .await
            .unwrap();
    }

    let model = json!({"type": "model", "model_file": "models/next_up.json"});
    let output = run.run(&Backtesting, backtest(model)).await.unwrap();

    assert!(
        output.metrics.total_trades > 10,
        "{}",
        output.metrics.total_trades
    );

    // Bar 20 is the first that has features, bar 21 the first that may give a signal.
    assert!(
        output.equity_curve[..22]
            .iter()
            .all(|(_, equity)| *equity == 10000.0)
    );

    let never = json!({"type": "model", "model_file": "models/next_up.json", "buy_above": 1.0, "sell_below": 0.0});
    assert_eq!(
        run.run(&Backtesting, backtest(never))
            .await
            .unwrap()
            .metrics
            .total_trades,
        0
    );

    let other = json!({"type": "model", "model_file": "models/next_range_high.json"});
    let error = run.run(&Backtesting, backtest(other)).await.unwrap_err();

    assert!(
        error.to_string().contains("train one with label next_up"),
        "{error}"
    );
}

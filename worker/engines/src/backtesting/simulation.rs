//! The loop over the bars: trades the signals of a strategy.
//!
//! The problem of a backtest is look-ahead: using a price before it could be known. The order of
//! steps within a bar prevents it (`docs/engines/backtesting.md`, "Each bar"):
//!
//! 1. an order pending from the bar before fills at the open;
//! 2. the equity is taken at the close;
//! 3. on the last bar, an open position is sold at the close;
//! 4. on any other bar, the signal is read. It fills at the next open or, with `fill: "close"`, at
//!    this close, after the equity was taken.
//!
//! A vectorized computation over whole columns was rejected: quantities depend on the cash after
//! earlier trades, which makes the loop sequential. A bar takes some tens of nanoseconds.

use super::account::Account;
use super::history::{ExitReason, TradingHistory};
use super::progress::{BARS_PER_CHECK, ProgressReporter};
use super::request::{BacktestRequest, Fill};
use super::strategy::{Signal, Signals};
use crate::bars::{Bar, Bars};
use ktrdr_worker::OperationError;

/// An account that trades over the bars.
pub(super) struct Simulation<'a> {
    bars: &'a [Bar],
    /// The first bar that is traded. Bars before it are there for the indicators.
    first: usize,
    fill: Fill,
    account: Account,
    pending: Option<Signal>,
}

impl<'a> Simulation<'a> {
    pub(super) fn new(request: &BacktestRequest, bars: &'a Bars, first: usize) -> Self {
        Self {
            bars: &bars.bars,
            first,
            fill: request.fill,
            account: Account::new(request),
            pending: None,
        }
    }

    /// Trades bar by bar and returns the history.
    pub(super) fn run(
        mut self,
        mut signals: Signals,
        progress: &mut ProgressReporter<'_>,
    ) -> Result<TradingHistory, OperationError> {
        let mut equity = Vec::with_capacity(self.bars.len() - self.first);
        let last = self.bars.len().saturating_sub(1);

        // A strategy remembers what it saw.
        for i in 0..self.first {
            signals.at(i);
        }

        for (i, bar) in self.bars.iter().enumerate().skip(self.first) {
            let done = i - self.first;
            if done.is_multiple_of(BARS_PER_CHECK) {
                progress.check(
                    done,
                    self.account.equity(bar.open),
                    self.account.trades().len(),
                )?;
            }

            if let Some(order) = self.pending.take() {
                self.execute(order, i, bar.open);
            }

            let mut worth = self.account.equity(bar.close);
            if i == last {
                self.account
                    .sell(self.bars, i, bar.close, ExitReason::EndOfData);
                worth = self.account.equity(bar.close);
            } else if let Some(order) = signals.at(i).filter(|signal| self.counts(*signal)) {
                match self.fill {
                    Fill::NextOpen => self.pending = Some(order),
                    Fill::Close => self.execute(order, i, bar.close),
                }
            }

            progress.bar(done, worth);
            equity.push(worth);
        }

        let (trades, dropped_orders) = self.account.into_trades();

        Ok(TradingHistory {
            equity,
            trades,
            dropped_orders,
        })
    }

    /// Whether the signal would change the position. Other signals are ignored.
    fn counts(&self, signal: Signal) -> bool {
        match signal {
            Signal::Buy => !self.account.is_long(),
            Signal::Sell => self.account.is_long(),
        }
    }

    fn execute(&mut self, order: Signal, i: usize, price: f64) {
        match order {
            Signal::Buy => self.account.buy(i, price),
            Signal::Sell => self.account.sell(self.bars, i, price, ExitReason::Signal),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bars::BarTime;
    use ktrdr_worker::testing::TestRun;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn request(more: Value) -> BacktestRequest {
        let mut request = json!({
            "symbol": "X", "timeframe": "1d", "strategy": {"type": "sma_cross", "fast": 1, "slow": 2},
            "initial_capital": 1000, "commission": 0.01, "slippage": 0.1
        });
        request
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        serde_json::from_value(request).unwrap()
    }

    /// Daily bars from pairs of open and close.
    fn bars(prices: &[(f64, f64)]) -> Bars {
        let bar = |(day, (open, close)): (usize, &(f64, f64))| {
            let timestamp = format!("2024-{:02}-{:02}", 1 + day / 28, 1 + day % 28);
            let time = BarTime::parse(&timestamp).unwrap();
            let (high, low) = (open.max(*close), open.min(*close));
            Bar {
                timestamp: timestamp.into(),
                time,
                open: *open,
                high,
                low,
                close: *close,
            }
        };

        Bars {
            file: "X_1d.csv".into(),
            bars: prices.iter().enumerate().map(bar).collect(),
        }
    }

    fn simulate(request: &BacktestRequest, bars: &Bars) -> TradingHistory {
        let run = TestRun::new();
        let signals = Signals::new(run.ctx(), &request.strategy, bars).unwrap();
        Simulation::new(request, bars, 0)
            .run(signals, &mut ProgressReporter::new(run.ctx(), &bars.bars))
            .unwrap()
    }

    /// Falls, crosses above at bar 2, below at bar 4, above again at bar 6.
    const WAVE: [(f64, f64); 8] = [
        (20.0, 20.0),
        (10.0, 10.0),
        (12.0, 20.0),
        (30.0, 40.0),
        (35.0, 20.0),
        (25.0, 10.0),
        (11.0, 30.0),
        (40.0, 50.0),
    ];

    #[test]
    fn orders_fill_at_the_next_open() {
        let run = simulate(&request(json!({})), &bars(&WAVE));
        let first = &run.trades[0];

        // Bought at 30 plus 10 % slippage: 33 units would cost 1099.89, so the 30 units that 1000
        // pays for.
        assert_eq!(
            (first.entry_price, first.exit_price, first.quantity.0),
            (30.0 * 1.1, 25.0 * 0.9, 30.0)
        );
        assert_eq!(
            (&*first.entry_time, &*first.exit_time),
            ("2024-01-04", "2024-01-06")
        );
        assert_eq!(
            (first.exit_reason, first.holding_period_hours),
            (ExitReason::Signal, 48.0)
        );
        assert_eq!(run.equity[..3], [1000.0; 3]);

        let cash = 1000.0 - 30.0 * 30.0 * 1.1 * 1.01;
        assert_eq!(run.equity[3], cash + 30.0 * 40.0);

        // The signal of bar 6 fills on the last bar, where it is sold again.
        let last = run.trades.last().unwrap();
        assert_eq!(
            (&*last.entry_time, &*last.exit_time),
            ("2024-01-08", "2024-01-08")
        );
        assert_eq!(
            (last.entry_price, last.exit_price),
            (40.0 * 1.1, 50.0 * 0.9)
        );
        assert_eq!(
            (last.exit_reason, last.holding_period_hours),
            (ExitReason::EndOfData, 0.0)
        );
    }

    #[test]
    fn orders_fill_at_the_close_after_equity_was_taken() {
        let run = simulate(
            &request(json!({"fill": "close", "slippage": 0})),
            &bars(&WAVE),
        );
        let first = &run.trades[0];

        assert_eq!(
            (first.entry_price, first.exit_price, first.quantity.0),
            (20.0, 20.0, 49.0)
        );
        assert_eq!(
            (&*first.entry_time, &*first.exit_time),
            ("2024-01-03", "2024-01-05")
        );

        let cash = 1000.0 - 49.0 * 20.0 * 1.01;
        assert_eq!(
            run.equity[2..5],
            [1000.0, cash + 49.0 * 40.0, cash + 49.0 * 20.0]
        );
        assert_eq!(run.trades[1].exit_reason, ExitReason::EndOfData);
    }

    #[test]
    fn too_little_cash_for_one_unit_is_no_trade() {
        let run = simulate(&request(json!({"initial_capital": 10})), &bars(&WAVE));
        assert!(run.trades.is_empty());
        assert_eq!(run.equity, [10.0; 8]);
        assert_eq!(run.dropped_orders, 2);
    }

    #[test]
    fn fractions_of_a_unit_use_all_cash() {
        let request = request(json!({"initial_capital": 10, "fractional": true}));
        let run = simulate(&request, &bars(&WAVE));
        let first = &run.trades[0];

        // Ten of the currency pay for ten over 33 units and their commission.
        assert!((first.quantity.0 - 10.0 / 1.01 / 33.0).abs() < 1e-12);
        assert_eq!((run.trades.len(), run.dropped_orders), (2, 0));
        assert!(serde_json::to_value(first).unwrap()["quantity"].is_f64());
    }

    #[test]
    fn a_cancel_ends_the_loop() {
        let (run, bars, request) = (TestRun::new(), bars(&WAVE), request(json!({})));
        let signals = Signals::new(run.ctx(), &request.strategy, &bars).unwrap();
        run.cancel();
        let result = Simulation::new(&request, &bars, 0)
            .run(signals, &mut ProgressReporter::new(run.ctx(), &bars.bars));
        assert_eq!(result.unwrap_err(), OperationError::Cancelled);
    }

    fn price() -> impl Strategy<Value = f64> {
        (1u32..20_000).prop_map(|cents| f64::from(cents) / 100.0)
    }

    proptest! {
        #[test]
        fn money_comes_from_trades_alone(
            prices in prop::collection::vec((price(), price()), 4..150),
            capital in 1.0..1e6f64, commission in 0.0..0.2f64, slippage in 0.0..0.2f64, fraction in 0.01..=1.0f64,
            at_close in any::<bool>(), by_strength in any::<bool>(), fractional in any::<bool>(),
        ) {
            let strategy = if by_strength {
                json!({"type": "rsi_threshold", "period": 2, "lower": 40, "upper": 60})
            } else {
                json!({"type": "sma_cross", "fast": 1, "slow": 3})
            };
            let request = request(json!({
                "initial_capital": capital, "commission": commission, "slippage": slippage,
                "position_fraction": fraction, "fractional": fractional, "fill": if at_close { "close" } else { "next_open" }, "strategy": strategy,
            }));
            let bars = bars(&prices);
            let run = simulate(&request, &bars);

            prop_assert_eq!(run.equity.len(), bars.len());
            prop_assert_eq!(run.equity[0], capital);

            // Never in debt, except for the rounding of one purchase.
            prop_assert!(run.equity.iter().all(|equity| *equity >= -1e-9 * capital));

            let profit: f64 = run.trades.iter().map(|trade| trade.net_pnl).sum();
            let turnover: f64 = run.trades.iter().map(|trade| trade.quantity.0 * (trade.entry_price + trade.exit_price)).sum();

            prop_assert!((run.equity[bars.len() - 1] - capital - profit).abs() <= 1e-9 * (capital + turnover));

            for trade in &run.trades {
                let quantity = trade.quantity.0;
                prop_assert!(quantity > 0.0 && (fractional || quantity.fract() == 0.0));
                prop_assert!(trade.span.0 <= trade.span.1);
            }

            for pair in run.trades.windows(2) {
                prop_assert!(pair[0].span.1 < pair[1].span.0);
            }
        }
    }
}

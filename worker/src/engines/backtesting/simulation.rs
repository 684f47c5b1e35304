//! The loop over the bars.

use super::account::{Account, ExitReason, Trade};
use super::observe::{BARS_PER_CHECK, Observer};
use super::request::{BacktestRequest, Fill};
use super::strategy::{Signal, Signals};
use crate::OperationError;
use crate::engines::bars::{Bar, Bars};

/// What came of the loop.
#[derive(Debug)]
pub(super) struct Run {
    /// Equity after each bar.
    pub(super) equity: Vec<f64>,
    /// Trades in order of their sale.
    pub(super) trades: Vec<Trade>,
}

/// An account on its way through the bars.
pub(super) struct Simulation<'a> {
    bars: &'a [Bar],
    fill: Fill,
    account: Account,
    pending: Option<Signal>,
}

impl<'a> Simulation<'a> {
    pub(super) fn new(request: &BacktestRequest, bars: &'a Bars) -> Self {
        Self { bars: &bars.bars, fill: request.fill, account: Account::new(request), pending: None }
    }

    /// Trades bar after bar. The order of the steps within a bar is part of the rules (docs: "Each bar").
    pub(super) fn run(mut self, mut signals: Signals, observer: &mut Observer<'_>) -> Result<Run, OperationError> {
        let mut equity = Vec::with_capacity(self.bars.len());
        let last = self.bars.len().saturating_sub(1);
        for (i, bar) in self.bars.iter().enumerate() {
            if i.is_multiple_of(BARS_PER_CHECK) {
                observer.check(i, self.account.equity(bar.open), self.account.trades().len())?;
            }
            if let Some(order) = self.pending.take() {
                self.execute(order, i, bar.open);
            }
            let mut worth = self.account.equity(bar.close);
            if i == last {
                self.account.sell(self.bars, i, bar.close, ExitReason::EndOfData);
                worth = self.account.equity(bar.close);
            } else if let Some(order) = signals.at(i).filter(|signal| self.counts(*signal)) {
                match self.fill {
                    Fill::NextOpen => self.pending = Some(order),
                    Fill::Close => self.execute(order, i, bar.close),
                }
            }
            observer.bar(i, worth);
            equity.push(worth);
        }
        Ok(Run { equity, trades: self.account.into_trades() })
    }

    /// Only what changes the position is an order.
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

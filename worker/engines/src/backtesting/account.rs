//! The account: cash, at most one position, and the trades made so far.

use super::history::{ExitReason, Quantity, Trade};
use super::request::BacktestRequest;
use crate::bars::Bar;

/// An open position.
#[derive(Debug, Clone, Copy)]
struct Position {
    quantity: f64,
    price: f64,
    entry: usize,
}

/// A long-only account without credit. Cash is never negative, except for the rounding error of one
/// multiplication.
#[derive(Debug)]
pub(super) struct Account {
    cash: f64,
    position: Option<Position>,
    commission: f64,
    slippage: f64,
    fraction: f64,
    fractional: bool,
    dropped_orders: usize,
    trades: Vec<Trade>,
}

impl Account {
    pub(super) fn new(request: &BacktestRequest) -> Self {
        Self {
            cash: request.initial_capital,
            position: None,
            commission: request.commission,
            slippage: request.slippage,
            fraction: request.position_fraction,
            fractional: request.fractional,
            dropped_orders: 0,
            trades: Vec::new(),
        }
    }

    pub(super) fn is_long(&self) -> bool {
        self.position.is_some()
    }

    pub(super) fn trades(&self) -> &[Trade] {
        &self.trades
    }

    /// The trades, and the number of purchases that the cash did not pay for.
    pub(super) fn into_trades(self) -> (Vec<Trade>, usize) {
        (self.trades, self.dropped_orders)
    }

    /// Cash plus the position at this price, without costs of selling.
    pub(super) fn equity(&self, price: f64) -> f64 {
        self.position
            .map_or(self.cash, |position| self.cash + position.quantity * price)
    }

    /// Buys at bar `i` as many units as the fraction of the cash allows. Buys nothing when units are
    /// whole and that is less than one.
    pub(super) fn buy(&mut self, i: usize, raw: f64) {
        let price = raw * (1.0 + self.slippage);
        let with_commission = 1.0 + self.commission;
        let units = |quantity: f64| {
            if self.fractional {
                quantity
            } else {
                quantity.floor()
            }
        };
        let mut quantity = units(self.cash * self.fraction / with_commission / raw);

        // The fraction applies to the price before slippage. The cash may not cover the price after
        // slippage.
        if quantity * price * with_commission > self.cash {
            quantity = units(self.cash / with_commission / price);
        }

        // A quantity that is no number comes from a price near the limits of a double.
        if quantity > 0.0 && quantity.is_finite() {
            self.cash -= quantity * price * with_commission;
            self.position = Some(Position {
                quantity,
                price,
                entry: i,
            });
        } else {
            self.dropped_orders += 1;
        }
    }

    /// Sells the position at bar `i`, if there is one.
    pub(super) fn sell(&mut self, bars: &[Bar], i: usize, raw: f64, exit_reason: ExitReason) {
        let Some(position) = self.position.take() else {
            return;
        };
        let price = raw * (1.0 - self.slippage);
        self.cash += position.quantity * price * (1.0 - self.commission);
        self.trades
            .push(self.trade(bars, position, i, price, exit_reason));
    }

    fn trade(
        &self,
        bars: &[Bar],
        position: Position,
        exit: usize,
        price: f64,
        exit_reason: ExitReason,
    ) -> Trade {
        let (from, to) = (&bars[position.entry], &bars[exit]);
        let quantity = position.quantity;
        let gross_pnl = quantity * (price - position.price);
        let commission = self.commission * quantity * (position.price + price);
        let net_pnl = gross_pnl - commission;

        Trade {
            entry_time: from.timestamp.clone(),
            exit_time: to.timestamp.clone(),
            entry_price: position.price,
            exit_price: price,
            quantity: Quantity(quantity),
            gross_pnl,
            commission,
            net_pnl,
            return_pct: net_pnl / (quantity * position.price),
            holding_period_hours: to.time.seconds_since(from.time) / 3600.0,
            exit_reason,
            span: (position.entry, exit),
        }
    }
}

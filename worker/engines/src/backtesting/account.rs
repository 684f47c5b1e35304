//! Cash, the one position, and the trades made of it.

use schemars::JsonSchema;
use serde::Serialize;

use super::output::Quantity;
use super::request::BacktestRequest;
use crate::bars::Bar;

/// Why a position was sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// The strategy said so.
    Signal,
    /// The last bar was reached.
    EndOfData,
}

/// A purchase and its sale. Amounts are in the currency of the prices.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Trade {
    /// The bar of the purchase, as the file writes its time.
    pub entry_time: Box<str>,
    /// The bar of the sale.
    pub exit_time: Box<str>,
    /// Price paid per unit, slippage included.
    pub entry_price: f64,
    /// Price received per unit, slippage included.
    pub exit_price: f64,
    /// Units, a whole number.
    pub quantity: Quantity,
    /// Quantity times the difference of the prices.
    pub gross_pnl: f64,
    /// Commission on both sides.
    pub commission: f64,
    /// Gross profit less commission.
    pub net_pnl: f64,
    /// Net profit as a fraction of what the units cost.
    pub return_pct: f64,
    /// Hours from the bar of the purchase to that of the sale.
    pub holding_period_hours: f64,
    /// Why it was sold.
    pub exit_reason: ExitReason,
    /// Indices of the two bars.
    #[serde(skip)]
    pub(super) span: (usize, usize),
}

/// What was bought and not sold yet.
#[derive(Debug, Clone, Copy)]
struct Position {
    quantity: f64,
    price: f64,
    entry: usize,
}

/// The account: it is long or flat, and owes nothing beyond the rounding of one multiplication.
#[derive(Debug)]
pub(super) struct Account {
    cash: f64,
    position: Option<Position>,
    commission: f64,
    slippage: f64,
    fraction: f64,
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
            trades: Vec::new(),
        }
    }

    pub(super) fn is_long(&self) -> bool {
        self.position.is_some()
    }

    pub(super) fn trades(&self) -> &[Trade] {
        &self.trades
    }

    pub(super) fn into_trades(self) -> Vec<Trade> {
        self.trades
    }

    /// What it is worth at this price, sold without costs.
    pub(super) fn equity(&self, price: f64) -> f64 {
        self.position
            .map_or(self.cash, |position| self.cash + position.quantity * price)
    }

    /// Buys at bar `i` as many whole units as the fraction of the cash allows; none when that is less than one.
    pub(super) fn buy(&mut self, i: usize, raw: f64) {
        let price = raw * (1.0 + self.slippage);
        let with_commission = 1.0 + self.commission;
        let mut quantity = (self.cash * self.fraction / with_commission / raw).floor();
        // The fraction is applied to the price before slippage, so the whole cash can fall short of it.
        if quantity * price * with_commission > self.cash {
            quantity = (self.cash / with_commission / price).floor();
        }
        if quantity > 0.0 {
            self.cash -= quantity * price * with_commission;
            self.position = Some(Position {
                quantity,
                price,
                entry: i,
            });
        }
    }

    /// Sells the position, if there is one, at bar `i`.
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

//! The history of a backtest: its trades and its equity.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

/// What happened to the account over all bars.
#[derive(Debug)]
pub(super) struct TradingHistory {
    /// Equity after each bar.
    pub(super) equity: Vec<f64>,
    /// Trades in order of their sale.
    pub(super) trades: Vec<Trade>,
    /// Purchases that the cash did not pay for.
    pub(super) dropped_orders: usize,
}

/// Why a position was sold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ExitReason {
    /// The strategy gave a sell signal.
    Signal,
    /// The position was open at the last bar.
    EndOfData,
}

/// A purchase and its sale. Amounts are in the currency of the prices.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Trade {
    /// The time of the bar of the purchase, as the file writes it.
    pub entry_time: Box<str>,
    /// The time of the bar of the sale.
    pub exit_time: Box<str>,
    /// Price paid per unit, including slippage.
    pub entry_price: f64,
    /// Price received per unit, including slippage.
    pub exit_price: f64,
    /// Units, a whole number unless the request allows fractions.
    pub quantity: Quantity,
    /// Quantity × (exit price − entry price).
    #[schemars(extend("x-ktrdr-unit" = "money"))]
    pub gross_pnl: f64,
    /// Commission of the purchase and the sale.
    #[schemars(extend("x-ktrdr-unit" = "money"))]
    pub commission: f64,
    /// `gross_pnl` minus `commission`.
    #[schemars(extend("x-ktrdr-unit" = "money"))]
    pub net_pnl: f64,
    /// `net_pnl` as a fraction of quantity × entry price.
    #[schemars(extend("x-ktrdr-unit" = "percent"))]
    pub return_pct: f64,
    /// Hours from the bar of the purchase to the bar of the sale.
    #[schemars(extend("x-ktrdr-unit" = "hours"))]
    pub holding_period_hours: f64,
    /// Why it was sold.
    pub exit_reason: ExitReason,
    /// Indexes of the bars of the purchase and the sale.
    #[serde(skip)]
    pub(super) span: (usize, usize),
}

/// A number of units. A whole one is written without a decimal point.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Quantity(pub f64);

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Below this limit a double represents every whole number exactly.
        if self.0 < 9e15 && self.0.fract() == 0.0 {
            serializer.serialize_u64(self.0 as u64)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "exclusiveMinimum": 0 })
    }
}

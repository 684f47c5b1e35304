//! What a backtest leaves behind: its trades and its equity.

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
}

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

/// A number of units: whole, and written without a decimal point.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Quantity(pub f64);

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // Below this a double holds every whole number, and so does the conversion.
        if self.0 < 9e15 {
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
        json_schema!({ "type": "number", "minimum": 1 })
    }
}

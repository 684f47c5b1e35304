//! What a backtest answers.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::account::Trade;
use super::metrics::Metrics;
use super::simulation::Run;
use crate::bars::Bars;

/// The result of a backtest.
#[derive(Debug, Serialize, JsonSchema)]
pub struct BacktestOutput {
    /// Bars traded over.
    pub bars: usize,
    /// The first bar, as the file writes its time.
    pub first_bar: Box<str>,
    /// The last bar.
    pub last_bar: Box<str>,
    /// The figures; one that is undefined is null.
    pub metrics: Metrics,
    /// Trades in order of their sale.
    pub trades: Vec<Trade>,
    /// Time and equity after each bar.
    pub equity_curve: Vec<(Box<str>, f64)>,
}

impl BacktestOutput {
    pub(super) fn new(bars: Bars, run: Run, metrics: Metrics) -> Self {
        let equity_curve: Vec<_> = bars
            .bars
            .into_iter()
            .map(|bar| bar.timestamp)
            .zip(run.equity)
            .collect();
        let time = |entry: Option<&(Box<str>, f64)>| {
            entry.map(|(time, _)| time.clone()).unwrap_or_default()
        };
        Self {
            bars: equity_curve.len(),
            first_bar: time(equity_curve.first()),
            last_bar: time(equity_curve.last()),
            metrics,
            trades: run.trades,
            equity_curve,
        }
    }
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

//! The parameters of a backtest.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bars::{BarSelection, BarTime, Symbol, Timeframe};
use crate::require::require;
use ktrdr_worker::OperationError;

/// The longest indicator period, in bars.
const MAX_PERIOD: usize = 100_000;

/// The parameters of a backtest. Rates are fractions: 0.001 is 0.1 %.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-ktrdr-summary" = ["symbol", "timeframe", "strategy.type"]))]
#[schemars(extend("examples" = [{
    "symbol": "GOOG", "timeframe": "1d", "strategy": {"type": "sma_cross", "fast": 10, "slow": 20},
}]))]
pub struct BacktestRequest {
    /// The instrument. Its bars are in `{symbol}_{timeframe}.csv` in the data directory.
    pub symbol: Symbol,
    /// The length of a bar.
    pub timeframe: Timeframe,
    /// Start of the range. Without it, the range starts at the first bar of the file.
    #[serde(default)]
    #[schemars(extend("examples" = ["2012-01-31"]))]
    pub start: Option<BarTime>,
    /// End of the range, inclusive (a date alone is 00:00 of that day). Without it, the range ends
    /// at the last bar of the file.
    #[serde(default)]
    pub end: Option<BarTime>,
    /// The strategy: decides when to buy and sell.
    pub strategy: Strategy,
    /// Cash at the start, in the currency of the prices.
    #[serde(default = "default_capital")]
    #[schemars(range(max = 1e12), extend("exclusiveMinimum" = 0))]
    pub initial_capital: f64,
    /// Commission on each side of a trade, as a fraction of its value.
    #[serde(default = "default_commission")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub commission: f64,
    /// Slippage: how much worse than the price of the bar an order fills, as a fraction of the
    /// price.
    #[serde(default = "default_slippage")]
    #[schemars(range(min = 0.0), extend("exclusiveMaximum" = 1))]
    pub slippage: f64,
    /// Fraction of the cash that a purchase may use.
    #[serde(default = "default_fraction")]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0))]
    pub position_fraction: f64,
    /// The price at which an order fills.
    #[serde(default)]
    pub fill: Fill,
    /// Buy fractions of a unit. By default units are whole, and an order that does not pay for one
    /// is dropped.
    #[serde(default)]
    pub fractional: bool,
    /// The bars that the indicators are computed from before the first signal.
    #[serde(default)]
    pub warm_up: WarmUp,
    /// Bars in a year, for annualized metrics. The default depends on the timeframe (252 for `1d`).
    #[serde(default)]
    #[schemars(range(max = 1e9), extend("exclusiveMinimum" = 0))]
    pub periods_per_year: Option<f64>,
}

fn default_capital() -> f64 {
    100_000.0
}

fn default_commission() -> f64 {
    0.001
}

fn default_slippage() -> f64 {
    0.0005
}

fn default_fraction() -> f64 {
    1.0
}

fn one_half() -> f64 {
    0.5
}

/// The price at which an order fills.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fill {
    /// At the open of the bar after the signal.
    #[default]
    NextOpen,
    /// At the close of the bar of the signal.
    Close,
}

/// The bars that the indicators are computed from before the first signal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WarmUp {
    /// The first bars of the range, or bars before it when the range has too few.
    #[default]
    Auto,
    /// The first bars of the range. It fails when the range has too few.
    InRange,
    /// Bars before the range, as far as the file has them. Signals can come from the first bar on.
    BeforeStart,
}

/// The strategy: decides when to buy and sell.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum Strategy {
    /// Buys when the fast moving average crosses above the slow one, and sells when it crosses
    /// below.
    SmaCross {
        /// Period of the fast average, in bars. Less than `slow`.
        #[schemars(range(min = 1, max = 99_999))]
        fast: usize,
        /// Period of the slow average, in bars.
        #[schemars(range(min = 2, max = 100_000))]
        slow: usize,
    },
    /// Buys when the relative strength index is below `lower`, and sells when it is above `upper`.
    RsiThreshold {
        /// Period of the index, in bars.
        #[schemars(range(min = 1, max = 100_000))]
        period: usize,
        /// Buys below this value, 0 to 100. At most `upper`.
        #[schemars(range(min = 0.0, max = 100.0))]
        lower: f64,
        /// Sells above this value, 0 to 100.
        #[schemars(range(min = 0.0, max = 100.0))]
        upper: f64,
    },
    /// Trades on the probability of a higher next close that a trained model predicts.
    Model {
        /// The model file that a `training` operation wrote, relative to the data directory.
        #[schemars(length(min = 1, max = 1024))]
        model_file: String,
        /// Buys above this probability.
        #[serde(default = "one_half")]
        #[schemars(range(min = 0.0, max = 1.0))]
        buy_above: f64,
        /// Sells below this probability. At most `buy_above`.
        #[serde(default = "one_half")]
        #[schemars(range(min = 0.0, max = 1.0))]
        sell_below: f64,
    },
}

impl BacktestRequest {
    /// The selected bars.
    pub fn selection(&self) -> BarSelection {
        BarSelection {
            symbol: self.symbol.clone(),
            timeframe: self.timeframe,
            start: self.start,
            end: self.end,
        }
    }

    /// Checks the values. The schema has most of these limits too, but a client may not have
    /// validated the request against it.
    ///
    /// # Errors
    /// `invalid_request` with the name of the parameter and its allowed values.
    pub fn check(&self) -> Result<(), OperationError> {
        let positive = |value: f64, most: f64| value > 0.0 && value <= most;
        let part = |value: f64| (0.0..1.0).contains(&value);

        require(
            positive(self.initial_capital, 1e12),
            "initial_capital must be above 0 and at most 1e12",
        )?;
        require(
            part(self.commission),
            "commission must be at least 0 and below 1",
        )?;
        require(
            part(self.slippage),
            "slippage must be at least 0 and below 1",
        )?;
        require(
            positive(self.position_fraction, 1.0),
            "position_fraction must be above 0 and at most 1",
        )?;

        let periods = self.periods_per_year;
        require(
            periods.is_none_or(|periods| positive(periods, 1e9)),
            "periods_per_year must be above 0 and at most 1e9",
        )?;

        self.strategy.check()
    }
}

impl Strategy {
    fn check(&self) -> Result<(), OperationError> {
        let period = |value: usize| (1..=MAX_PERIOD).contains(&value);
        match *self {
            Self::SmaCross { fast, slow } => require(
                period(fast) && period(slow) && fast < slow,
                "sma_cross: fast and slow must be 1 to 100000 bars, and fast must be less than slow",
            ),
            Self::RsiThreshold {
                period: bars,
                lower,
                upper,
            } => {
                require(
                    period(bars),
                    "rsi_threshold: period must be 1 to 100000 bars",
                )?;
                require(
                    0.0 <= lower && lower <= upper && upper <= 100.0,
                    "rsi_threshold: lower and upper must be 0 to 100, and lower must not be above upper",
                )
            }
            Self::Model {
                buy_above,
                sell_below,
                ..
            } => require(
                0.0 <= sell_below && sell_below <= buy_above && buy_above <= 1.0,
                "model: sell_below and buy_above must be 0 to 1, and sell_below must not be above buy_above",
            ),
        }
    }
}

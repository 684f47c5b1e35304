//! Price bars: the selection of a request, the reader of their files, and indicators.
//!
//! `backtesting` and `training` both use them.

mod error;
pub mod indicators;
mod read;
mod selection;
mod time;

pub use error::BarsError;
pub use selection::{BarSelection, InvalidSymbol, Symbol, Timeframe};
pub use time::{BarTime, InvalidTime};

/// One bar: the prices of one period of time.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// The start of the bar, as the file writes it.
    pub timestamp: Box<str>,
    /// The start of the bar.
    pub time: BarTime,
    /// First price of the period. All four prices are positive.
    pub open: f64,
    /// Highest price.
    pub high: f64,
    /// Lowest price.
    pub low: f64,
    /// Last price.
    pub close: f64,
}

/// The bars of one selection.
///
/// Times strictly increase. Prices are finite and positive, and lie between `low` and `high`.
#[derive(Debug, Clone, PartialEq)]
pub struct Bars {
    /// The file of the bars, relative to the data directory. Messages name it.
    pub file: String,
    /// The bars, in order of time.
    pub bars: Vec<Bar>,
}

impl Bars {
    /// The number of bars.
    pub fn len(&self) -> usize {
        self.bars.len()
    }

    /// Whether the file has no bar in the range.
    pub fn is_empty(&self) -> bool {
        self.bars.is_empty()
    }

    /// The closing prices.
    pub fn closes(&self) -> Vec<f64> {
        self.bars.iter().map(|bar| bar.close).collect()
    }
}

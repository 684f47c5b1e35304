//! Price bars: which file holds them, how it is read, and the indicators that both market engines compute from them.

mod error;
pub mod indicators;
mod read;
mod selection;
mod time;

pub use error::BarsError;
pub use selection::{BarSelection, InvalidSymbol, Symbol, Timeframe};
pub use time::{BarTime, InvalidTime};

/// One bar: the prices of one period.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// When the bar begins, with the characters of the file.
    pub timestamp: Box<str>,
    /// The same moment.
    pub time: BarTime,
    /// First price of the period; positive, like all four.
    pub open: f64,
    /// Highest price.
    pub high: f64,
    /// Lowest price.
    pub low: f64,
    /// Last price.
    pub close: f64,
}

/// The bars of one selection: times strictly increase, prices are finite and positive, `low` and `high` enclose the others.
#[derive(Debug, Clone, PartialEq)]
pub struct Bars {
    /// The file they came from, relative to the data directory; for messages.
    pub file: String,
    /// The bars in order of time.
    pub bars: Vec<Bar>,
}

impl Bars {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.bars.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bars.is_empty()
    }

    /// The closing prices.
    pub fn closes(&self) -> Vec<f64> {
        self.bars.iter().map(|bar| bar.close).collect()
    }
}

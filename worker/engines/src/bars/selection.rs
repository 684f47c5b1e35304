//! The bars that a request selects.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::BarTime;

/// The longest symbol, in characters.
const MAX_SYMBOL: usize = 32;

/// The name of an instrument, which becomes part of a file name.
///
/// It has letters, digits and `. _ = ^ -`, and does not begin with `.`, `=` or `-`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Symbol(String);

/// The text is not a valid symbol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid symbol {0:?}: use 1 to {MAX_SYMBOL} of A-Z a-z 0-9 . _ = ^ - and begin with a letter, a digit, _ or ^"
)]
pub struct InvalidSymbol(String);

impl TryFrom<String> for Symbol {
    type Error = InvalidSymbol;
    fn try_from(text: String) -> Result<Self, InvalidSymbol> {
        let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '^');
        let good = text.len() <= MAX_SYMBOL
            && text.starts_with(is_letter)
            && text
                .chars()
                .all(|c| is_letter(c) || matches!(c, '.' | '=' | '-'));

        if good {
            Ok(Self(text))
        } else {
            Err(InvalidSymbol(text.chars().take(MAX_SYMBOL + 1).collect()))
        }
    }
}

impl From<Symbol> for String {
    fn from(symbol: Symbol) -> Self {
        symbol.0
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Symbol {
    fn schema_name() -> Cow<'static, str> {
        "Symbol".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[A-Za-z0-9_^][A-Za-z0-9_^.=-]{0,31}$",
            "description": "The instrument, as in the name of its file {symbol}_{timeframe}.csv",
            "examples": ["GOOG", "IBM", "EURUSD"],
        })
    }
}

/// The length of a bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Timeframe {
    /// One minute.
    #[serde(rename = "1m")]
    Minute1,
    /// Five minutes.
    #[serde(rename = "5m")]
    Minute5,
    /// Fifteen minutes.
    #[serde(rename = "15m")]
    Minute15,
    /// Thirty minutes.
    #[serde(rename = "30m")]
    Minute30,
    /// One hour.
    #[serde(rename = "1h")]
    Hour1,
    /// Four hours.
    #[serde(rename = "4h")]
    Hour4,
    /// One day.
    #[serde(rename = "1d")]
    Day,
    /// One week.
    #[serde(rename = "1w")]
    Week,
}

impl Timeframe {
    /// The text in requests and file names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute1 => "1m",
            Self::Minute5 => "5m",
            Self::Minute15 => "15m",
            Self::Minute30 => "30m",
            Self::Hour1 => "1h",
            Self::Hour4 => "4h",
            Self::Day => "1d",
            Self::Week => "1w",
        }
    }

    /// Bars in a trading year: 252 days, 52 weeks, and 260 days of 24 hours for shorter bars.
    pub fn periods_per_year(self) -> f64 {
        match self {
            Self::Minute1 => 374_400.0,
            Self::Minute5 => 374_400.0 / 5.0,
            Self::Minute15 => 374_400.0 / 15.0,
            Self::Minute30 => 374_400.0 / 30.0,
            Self::Hour1 => 6240.0,
            Self::Hour4 => 6240.0 / 4.0,
            Self::Day => 252.0,
            Self::Week => 52.0,
        }
    }
}

/// The bars of one file between two times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BarSelection {
    /// The instrument.
    pub symbol: Symbol,
    /// The length of a bar.
    pub timeframe: Timeframe,
    /// The start of the range. None selects from the first bar on.
    pub start: Option<BarTime>,
    /// The end of the range, inclusive. None selects up to the last bar.
    pub end: Option<BarTime>,
}

impl BarSelection {
    /// The file of the bars, relative to the data directory.
    pub fn file(&self) -> String {
        format!("{}_{}.csv", self.symbol, self.timeframe.as_str())
    }

    /// Whether the range contains `time`.
    pub fn contains(&self, time: BarTime) -> bool {
        self.start.is_none_or(|start| start <= time) && self.end.is_none_or(|end| time <= end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_cannot_lead_elsewhere() {
        for good in [
            "GOOG", "EURUSD", "BRK.B", "^GSPC", "EUR=X", "BTC-USD", "0700.HK", "_x",
        ] {
            assert!(Symbol::try_from(good.to_owned()).is_ok(), "{good}");
        }

        let long = "A".repeat(MAX_SYMBOL + 1);
        for bad in [
            "", ".", "..", "../GOOG", "a/b", "a\\b", "a b", "-x", "a\0", "ü", "a\n", &long,
        ] {
            assert!(Symbol::try_from(bad.to_owned()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names_of_timeframes_agree_with_the_requests() {
        for text in ["1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w"] {
            let timeframe: Timeframe = serde_json::from_value(text.into()).unwrap();
            assert_eq!(timeframe.as_str(), text);
        }
    }
}

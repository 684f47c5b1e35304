//! From bars to signals.

use super::request::Strategy;
use crate::engines::bars::indicators::{Indicator, rsi, sma};
use crate::engines::bars::{Bars, BarsError};
use crate::{Context, OperationError};

/// Averages closer than this part of the slow one count as equal. Exact ties occur where prices have few decimals, and which
/// double comes out larger then depends on the order of summation.
const TIE: f64 = 1e-9;

/// What a strategy wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// To be long.
    Buy,
    /// To be flat.
    Sell,
}

/// The signals of a strategy, asked for bar by bar in order of time.
#[derive(Debug)]
pub(super) struct Signals {
    warm_up: usize,
    rule: Rule,
}

#[derive(Debug)]
enum Rule {
    Cross { fast: Indicator, slow: Indicator, last: f64 },
    Threshold { value: Indicator, buy_below: f64, sell_above: f64 },
}

/// Prepares the signals of `strategy` over `bars`.
pub(super) fn signals(_ctx: &Context, strategy: &Strategy, bars: &Bars) -> Result<Signals, OperationError> {
    let closes = bars.closes();
    let (warm_up, name, rule): (usize, String, Rule) = match *strategy {
        Strategy::SmaCross { fast, slow } => {
            let rule = Rule::Cross { fast: sma(&closes, fast), slow: sma(&closes, slow), last: 0.0 };
            (slow - 1, format!("sma_cross with slow {slow}"), rule)
        }
        Strategy::RsiThreshold { period, lower, upper } => {
            let rule = Rule::Threshold { value: rsi(&closes, period), buy_below: lower, sell_above: upper };
            (period, format!("rsi_threshold with period {period}"), rule)
        }
        Strategy::Model { .. } => return Err(OperationError::invalid("model strategies are not built in yet")),
    };
    // One bar to be ready, one to give a signal, and a last one, whose signal never counts, is among them or follows.
    bars.require(warm_up + 2, || name).map_err(BarsError::into).map(|()| Signals { warm_up, rule })
}

impl Signals {
    /// The first bar where all indicators are defined; signals begin with the next.
    pub(super) fn warm_up(&self) -> usize {
        self.warm_up
    }

    /// The signal of bar `i`. Every bar must be asked about, in order.
    pub(super) fn at(&mut self, i: usize) -> Option<Signal> {
        let signal = self.rule.at(i);
        signal.filter(|_| i > self.warm_up)
    }
}

impl Rule {
    fn at(&mut self, i: usize) -> Option<Signal> {
        match self {
            Self::Cross { fast, slow, last } => {
                let side = side(fast.get(i)?, slow.get(i)?);
                let before = *last;
                if side != 0.0 {
                    *last = side;
                }
                match (before, side) {
                    (-1.0, 1.0) => Some(Signal::Buy),
                    (1.0, -1.0) => Some(Signal::Sell),
                    _ => None,
                }
            }
            Self::Threshold { value, buy_below, sell_above } => match value.get(i)? {
                low if low < *buy_below => Some(Signal::Buy),
                high if high > *sell_above => Some(Signal::Sell),
                _ => None,
            },
        }
    }
}

/// 1 when the fast average is above the slow one, -1 when below, 0 on a tie.
fn side(fast: f64, slow: f64) -> f64 {
    let difference = fast - slow;
    if difference.abs() <= TIE * slow.abs() { 0.0 } else { difference.signum() }
}

//! Strategies: from bars to signals.

use std::cmp::Ordering;
use std::fmt;

use super::request::Strategy;
use crate::bars::Bars;
use crate::bars::indicators::{Indicator, rsi, sma};
use crate::training::Label;
use crate::training::features::{FIRST_BAR, features};
use crate::training::model::Model;
use ktrdr_worker::{Context, OperationError};

/// Averages that differ by at most this fraction of the slow one are equal. Exact ties occur where
/// prices have few decimals; rounding, which depends on the order of summation, must not decide
/// them.
const TIE: f64 = 1e-9;

/// A signal of a strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// Be long.
    Buy,
    /// Be flat.
    Sell,
}

/// The signals of a strategy, computed bar by bar in order of time.
#[derive(Debug)]
pub(super) struct Signals {
    warm_up: usize,
    rule: Rule,
}

#[derive(Debug)]
enum Rule {
    /// The fast average crosses the slow one. `last` is the last side of the slow average that the
    /// fast one was on.
    Cross {
        fast: Indicator,
        slow: Indicator,
        last: Option<Ordering>,
    },
    /// Low values buy, high values sell.
    Strength {
        value: Indicator,
        lower: f64,
        upper: f64,
    },
    /// High values buy, low values sell.
    Probability {
        value: Indicator,
        buy_above: f64,
        sell_below: f64,
    },
}

impl Signals {
    /// Prepares the signals of `strategy` over `bars`.
    pub(super) fn new(
        ctx: &Context,
        strategy: &Strategy,
        bars: &Bars,
    ) -> Result<Self, OperationError> {
        let warm_up = strategy.warm_up();
        bars.require(strategy.bars_needed(), || strategy.to_string())?;
        Ok(Self {
            warm_up,
            rule: Rule::new(ctx, strategy, bars)?,
        })
    }

    /// The first bar where all indicators are defined. Signals start with the next bar.
    pub(super) fn warm_up(&self) -> usize {
        self.warm_up
    }

    /// The signal at bar `i`. Call it for every bar, in order.
    pub(super) fn at(&mut self, i: usize) -> Option<Signal> {
        let signal = self.rule.at(i);
        signal.filter(|_| i > self.warm_up)
    }
}

impl Strategy {
    /// The fewest bars for a run: the warm-up, and one more bar for a signal.
    pub(super) fn bars_needed(&self) -> usize {
        self.warm_up() + 2
    }

    /// The bars before the range that the indicators are computed from, when they may be.
    ///
    /// A moving average needs its period, and one more bar to see on which side it was. Wilder's
    /// index never quite forgets: after ten periods its first value counts for less than 1e-4.
    pub(super) fn lead(&self) -> usize {
        match *self {
            Self::SmaCross { .. } => self.warm_up() + 1,
            Self::RsiThreshold { period, .. } => 10 * period + 1,
            Self::Model { .. } => FIRST_BAR + 10 * 14 + 1,
        }
    }

    /// The first bar where all its indicators are defined.
    fn warm_up(&self) -> usize {
        match *self {
            Self::SmaCross { slow, .. } => slow - 1,
            Self::RsiThreshold { period, .. } => period,
            Self::Model { .. } => FIRST_BAR,
        }
    }
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SmaCross { fast, slow } => write!(f, "sma_cross {fast}/{slow}"),
            Self::RsiThreshold { period, .. } => write!(f, "rsi_threshold with period {period}"),
            Self::Model { model_file, .. } => write!(f, "model {model_file}"),
        }
    }
}

impl Rule {
    fn new(ctx: &Context, strategy: &Strategy, bars: &Bars) -> Result<Self, OperationError> {
        let closes = bars.closes();

        Ok(match *strategy {
            Strategy::SmaCross { fast, slow } => Self::Cross {
                fast: sma(&closes, fast),
                slow: sma(&closes, slow),
                last: None,
            },
            Strategy::RsiThreshold {
                period,
                lower,
                upper,
            } => Self::Strength {
                value: rsi(&closes, period),
                lower,
                upper,
            },
            Strategy::Model {
                ref model_file,
                buy_above,
                sell_below,
            } => Self::Probability {
                value: probabilities(ctx, model_file, bars)?,
                buy_above,
                sell_below,
            },
        })
    }

    fn at(&mut self, i: usize) -> Option<Signal> {
        match self {
            Self::Cross { fast, slow, last } => {
                let side = side(fast.get(i)?, slow.get(i)?)?;
                match (last.replace(side)?, side) {
                    (Ordering::Less, Ordering::Greater) => Some(Signal::Buy),
                    (Ordering::Greater, Ordering::Less) => Some(Signal::Sell),
                    _ => None,
                }
            }
            Self::Strength {
                value,
                lower,
                upper,
            } => match value.get(i)? {
                value if value < *lower => Some(Signal::Buy),
                value if value > *upper => Some(Signal::Sell),
                _ => None,
            },
            Self::Probability {
                value,
                buy_above,
                sell_below,
            } => match value.get(i)? {
                value if value > *buy_above => Some(Signal::Buy),
                value if value < *sell_below => Some(Signal::Sell),
                _ => None,
            },
        }
    }
}

/// The side of the slow average that the fast one is on. None on a tie.
fn side(fast: f64, slow: f64) -> Option<Ordering> {
    let difference = fast - slow;
    if difference.abs() <= TIE * slow.abs() {
        None
    } else {
        difference.partial_cmp(&0.0)
    }
}

/// The prediction of the model in `file` for each bar.
fn probabilities(ctx: &Context, file: &str, bars: &Bars) -> Result<Indicator, OperationError> {
    let model = Model::load(ctx, file)?;
    if model.label() != Label::NextUp {
        return Err(OperationError::invalid(format!(
            "{file}: a backtest needs a model that predicts the direction: train one with label next_up"
        )));
    }

    Ok(Indicator::new(
        FIRST_BAR,
        model.probabilities(ctx, &features(bars))?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The signals of averages over one and two bars.
    fn cross(closes: &[f64]) -> Vec<Option<Signal>> {
        let rule = Rule::Cross {
            fast: sma(closes, 1),
            slow: sma(closes, 2),
            last: None,
        };
        let mut signals = Signals { warm_up: 1, rule };
        (0..closes.len()).map(|i| signals.at(i)).collect()
    }

    #[test]
    fn a_tie_is_no_side_and_does_not_end_one() {
        use Signal::{Buy, Sell};

        assert_eq!(
            cross(&[2.0, 1.0, 2.0, 1.0]),
            [None, None, Some(Buy), Some(Sell)]
        );
        // Below, tie, tie, above: a cross from below. Above, tie, above: none.
        assert_eq!(
            cross(&[2.0, 1.0, 1.0, 1.0, 2.0, 2.0, 3.0]),
            [None, None, None, None, Some(Buy), None, None]
        );
        // A difference as small as a rounding error is a tie.
        assert_eq!(cross(&[2.0, 1.0, 1.0 + 1e-9, 1.0, 0.5]), [None; 5]);
        // The first side after a tie is not a cross.
        assert_eq!(cross(&[1.0, 1.0, 2.0, 1.0]), [None, None, None, Some(Sell)]);
    }

    #[test]
    fn strength_is_read_after_the_warm_up_only() {
        let value = Indicator::new(1, vec![10.0, 30.0, 29.9, 70.0, 70.1]);
        let mut signals = Signals {
            warm_up: 1,
            rule: Rule::Strength {
                value,
                lower: 30.0,
                upper: 70.0,
            },
        };
        let read: Vec<_> = (0..6).map(|i| signals.at(i)).collect();

        assert_eq!(
            read,
            [
                None,
                None,
                None,
                Some(Signal::Buy),
                None,
                Some(Signal::Sell)
            ]
        );
    }
}

//! The inputs of the network (`docs/engines/training.md`, "Features").

use ndarray::Array2;

use crate::bars::Bars;
use crate::bars::indicators::{Indicator, rsi, sma};

/// The names of the features, in the order of a row.
pub const FEATURES: [&str; 8] = [
    "ret_1",
    "ret_5",
    "ret_10",
    "sma_ratio_10",
    "sma_ratio_20",
    "rsi_14",
    "vol_20",
    "range_1",
];

/// The first bar that has all features.
pub const FIRST_BAR: usize = 20;

/// Number of returns in the window of `vol_20`.
const VOLATILITY_WINDOW: usize = 20;

/// The features of one bar.
pub type Row = [f64; FEATURES.len()];

/// The features of every bar from [`FIRST_BAR`] on. No feature uses a later bar.
pub fn features(bars: &Bars) -> Vec<Row> {
    let closes = bars.closes();
    let change = |t: usize, back: usize| closes[t] / closes[t - back] - 1.0;
    let (fast, slow, strength) = (sma(&closes, 10), sma(&closes, 20), rsi(&closes, 14));

    // All three indicators are defined from bar 19 on or earlier.
    let value = |indicator: &Indicator, t| indicator.get(t).unwrap_or(f64::NAN);

    (FIRST_BAR..closes.len())
        .map(|t| {
            let returns: [f64; VOLATILITY_WINDOW] = std::array::from_fn(|back| change(t - back, 1));
            let bar = &bars.bars[t];
            [
                change(t, 1),
                change(t, 5),
                change(t, 10),
                closes[t] / value(&fast, t) - 1.0,
                closes[t] / value(&slow, t) - 1.0,
                value(&strength, t) / 100.0,
                mean_and_deviation(returns.iter().copied()).1,
                (bar.high - bar.low) / closes[t],
            ]
        })
        .collect()
}

/// Mean and population standard deviation (divisor n), in two passes over the values.
pub(super) fn mean_and_deviation(values: impl ExactSizeIterator<Item = f64> + Clone) -> (f64, f64) {
    let count = values.len() as f64;
    let mean = values.clone().sum::<f64>() / count;
    let variance = values.map(|value| (value - mean).powi(2)).sum::<f64>() / count;
    (mean, variance.sqrt())
}

/// The greatest deviation that is nothing but rounding. Features are ratios of prices, near 1 or
/// below: rounding moves them by about 1e-16, and no real price moves by less than 1e-12 of itself.
const ROUNDING: f64 = 1e-12;

fn is_rounding(deviation: f64, mean: f64) -> bool {
    deviation <= ROUNDING * mean.abs().max(1.0)
}

/// The names of the features that are the same in all rows.
pub(super) fn constant_features(rows: &[Row]) -> Vec<&'static str> {
    let is_constant = |column: usize| {
        let (mean, deviation) = mean_and_deviation(rows.iter().map(|row| row[column]));
        is_rounding(deviation, mean)
    };
    let columns = FEATURES.into_iter().enumerate();
    columns
        .filter(|(column, _)| is_constant(*column))
        .map(|(_, name)| name)
        .collect()
}

/// Standardization: gives each feature mean 0 and standard deviation 1 over the training rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaling {
    /// Means over the training rows.
    pub means: Row,
    /// Standard deviations over the training rows. 1 for a constant feature, also when rounding makes
    /// it deviate.
    pub deviations: Row,
}

impl Scaling {
    /// Computes the standardization of `rows`.
    pub fn of(rows: &[Row]) -> Self {
        let mut scaling = Self {
            means: [0.0; FEATURES.len()],
            deviations: [1.0; FEATURES.len()],
        };

        for column in 0..FEATURES.len() {
            let (mean, deviation) = mean_and_deviation(rows.iter().map(|row| row[column]));
            scaling.means[column] = mean;
            if !is_rounding(deviation, mean) {
                scaling.deviations[column] = deviation;
            }
        }

        scaling
    }

    /// Returns `rows`, standardized.
    pub(super) fn apply(&self, rows: &[Row]) -> Array2<f64> {
        Array2::from_shape_fn((rows.len(), FEATURES.len()), |(at, column)| {
            (rows[at][column] - self.means[column]) / self.deviations[column]
        })
    }
}

//! Indicators over closing prices (`docs/engines/backtesting.md`, "Strategies").
//!
//! The relative strength index is defined in J. Welles Wilder, "New Concepts in Technical Trading
//! Systems", 1978.

/// One value per bar. The first bars have none.
#[derive(Debug, Clone, PartialEq)]
pub struct Indicator {
    first: usize,
    values: Vec<f64>,
}

impl Indicator {
    /// Creates an indicator with these values from bar `first` on.
    pub fn new(first: usize, values: Vec<f64>) -> Self {
        Self { first, values }
    }

    /// The value at bar `i`, if the indicator is defined there.
    pub fn get(&self, i: usize) -> Option<f64> {
        i.checked_sub(self.first)
            .and_then(|at| self.values.get(at))
            .copied()
    }
}

/// The simple moving average over `period` closes (at least 1), defined from bar `period - 1`.
pub fn sma(closes: &[f64], period: usize) -> Indicator {
    let mut sum = 0.0;
    let mut values = Vec::with_capacity((closes.len() + 1).saturating_sub(period));

    for (i, close) in closes.iter().enumerate() {
        // A running sum accumulates rounding errors, so it is computed again once per period. That
        // costs no more than the running sum.
        if (i + 1).is_multiple_of(period) {
            sum = closes[i + 1 - period..=i].iter().sum();
        } else {
            sum += close - if i >= period { closes[i - period] } else { 0.0 };
        }
        if i + 1 >= period {
            values.push(sum / period as f64);
        }
    }

    Indicator::new(period - 1, values)
}

/// Wilder's relative strength index over `period` changes (at least 1), 0 to 100, defined from bar
/// `period`.
pub fn rsi(closes: &[f64], period: usize) -> Indicator {
    let p = period as f64;
    let mut values = Vec::with_capacity(closes.len().saturating_sub(period));
    let (mut gain, mut loss) = (0.0, 0.0);

    for (i, pair) in (1..).zip(closes.windows(2)) {
        let change = pair[1] - pair[0];
        let (up, down) = (change.max(0.0), (-change).max(0.0));

        if i <= period {
            // Sum up to the first value; the sums become means there.
            gain += up;
            loss += down;

            if i < period {
                continue;
            }

            gain /= p;
            loss /= p;
        } else {
            gain = (gain * (p - 1.0) + up) / p;
            loss = (loss * (p - 1.0) + down) / p;
        }

        values.push(strength(gain, loss));
    }

    Indicator::new(period, values)
}

fn strength(gain: f64, loss: f64) -> f64 {
    if loss == 0.0 {
        return if gain > 0.0 { 100.0 } else { 50.0 };
    }
    100.0 - 100.0 / (1.0 + gain / loss)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn averages_by_hand() {
        let sma = sma(&[1.0, 2.0, 4.0, 8.0, 16.0], 2);
        assert_eq!(
            (0..6).map(|i| sma.get(i)).collect::<Vec<_>>(),
            [None, Some(1.5), Some(3.0), Some(6.0), Some(12.0), None]
        );
        assert_eq!(super::sma(&[1.0, 2.0], 3).get(2), None);
    }

    #[test]
    fn strength_by_hand() {
        // Changes +1 -1 +2: means 0.5, 0.5; then (0.5+2)/2 and 0.5/2.
        let rsi = rsi(&[10.0, 11.0, 10.0, 12.0], 2);
        assert_eq!((rsi.get(1), rsi.get(2)), (None, Some(50.0)));
        assert!((rsi.get(3).unwrap() - (100.0 - 100.0 / 6.0)).abs() < 1e-12);
        assert_eq!(super::rsi(&[5.0, 5.0, 5.0], 2).get(2), Some(50.0));
        assert_eq!(super::rsi(&[5.0, 6.0, 7.0], 2).get(2), Some(100.0));
        assert_eq!(super::rsi(&[7.0, 6.0, 5.0], 2).get(2), Some(0.0));
    }

    proptest! {
        #[test]
        fn strength_stays_in_its_range(closes in prop::collection::vec(1e-6..1e9f64, 0..200), period in 1usize..30) {
            let rsi = rsi(&closes, period);
            for i in 0..closes.len() {
                prop_assert_eq!(rsi.get(i).is_some(), i >= period);
                prop_assert!(rsi.get(i).is_none_or(|value| (0.0..=100.0).contains(&value)));
            }
        }

        #[test]
        fn averages_do_not_drift(closes in prop::collection::vec(0.5..2.0f64, 1..300), period in 1usize..40) {
            let sma = sma(&closes, period);
            for i in period - 1..closes.len() {
                let direct = closes[i + 1 - period..=i].iter().sum::<f64>() / period as f64;
                prop_assert!((sma.get(i).unwrap() - direct).abs() <= 1e-12 * direct);
            }
        }
    }
}

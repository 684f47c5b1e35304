//! Statistics of a column, learnt in one pass.
//!
//! Sources: Neumaier's compensated sum (A. Neumaier, "Rundungsfehleranalyse einiger Verfahren zur
//! Summation endlicher Summen", 1974) for the mean; Welford's update (B. P. Welford, "Note on a
//! method for calculating corrected sums of squares and products", 1962) for the standard
//! deviation; quickselect for the median.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::numbers::NumberFormat;
use super::text::Places;

/// Count, mean and standard deviation of numbers, computed without losing precision to many or
/// large values.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(super) struct Moments {
    count: u64,
    sum: f64,
    /// The rounding error of `sum` (Neumaier).
    lost: f64,
    /// Mean and sum of squared deviations so far (Welford). Exactly 0 for a constant column; a
    /// difference of two sums would not be.
    running_mean: f64,
    squares: f64,
}

impl Moments {
    pub(super) fn add(&mut self, value: f64) {
        self.count += 1;

        let sum = self.sum + value;

        self.lost += if self.sum.abs() >= value.abs() {
            (self.sum - sum) + value
        } else {
            (value - sum) + self.sum
        };
        self.sum = sum;

        let delta = value - self.running_mean;

        self.running_mean += delta / self.count as f64;
        self.squares += delta * (value - self.running_mean);
    }

    /// The mean. None without numbers or when it is not finite.
    pub(super) fn mean(&self) -> Option<f64> {
        (self.count > 0)
            .then(|| (self.sum + self.lost) / self.count as f64)
            .filter(|mean| mean.is_finite())
    }

    /// The population standard deviation (divisor n). None without numbers or when it is not
    /// finite.
    pub(super) fn std(&self) -> Option<f64> {
        (self.count > 0)
            .then(|| (self.squares / self.count as f64).sqrt())
            .filter(|std| std.is_finite())
    }
}

/// Learns the text that fills missing cells of a column.
#[derive(Serialize, Deserialize)]
pub(super) enum Learner {
    /// The mean of its numbers.
    Mean(Moments),
    /// The median of its numbers: all of them are kept, 8 bytes each.
    Median(Vec<f64>),
    /// Its most frequent text: every distinct text is kept, with its count and its order of first
    /// occurrence.
    Mode(HashMap<Box<[u8]>, Occurrences>),
}

/// How often a text occurred, and its position among the distinct texts in order of first
/// occurrence.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Occurrences {
    count: u64,
    order: usize,
}

impl Learner {
    /// Learns from one cell, whose numbers are written as `numbers`.
    pub(super) fn learn(&mut self, cell: &[u8], numbers: NumberFormat) {
        match self {
            Self::Mean(moments) => numbers
                .number(cell)
                .into_iter()
                .for_each(|value| moments.add(value)),
            Self::Median(values) => values.extend(numbers.number(cell)),
            Self::Mode(_) if cell.is_empty() => {}
            Self::Mode(texts) => match texts.get_mut(cell) {
                Some(occurrences) => occurrences.count += 1,
                None => {
                    let order = texts.len();
                    texts.insert(cell.into(), Occurrences { count: 1, order });
                }
            },
        }
    }

    /// The learnt text, with numbers written as `numbers`. None when there was nothing to learn
    /// from.
    pub(super) fn finish(self, places: Places, numbers: NumberFormat) -> Option<Vec<u8>> {
        let value = match self {
            Self::Mean(moments) => moments.mean()?,
            Self::Median(values) => median(values)?,
            Self::Mode(texts) => {
                let best = |(_, o): &(_, Occurrences)| (o.count, std::cmp::Reverse(o.order));
                return texts
                    .into_iter()
                    .max_by_key(best)
                    .map(|(text, _)| text.into());
            }
        };
        let mut text = Vec::new();

        places.write_value(&mut text, value);
        numbers.localize(&mut text);
        (!text.is_empty()).then_some(text)
    }
}

/// The middle value, or the mean of the middle two. Selection instead of sorting takes linear time:
/// well below a second for tens of millions of numbers.
fn median(mut values: Vec<f64>) -> Option<f64> {
    if values.is_empty() {
        return None;
    }

    let middle = values.len() / 2;
    let even = values.len().is_multiple_of(2);
    let (below, upper, _) = values.select_nth_unstable_by(middle, f64::total_cmp);

    if !even {
        return Some(*upper);
    }

    below
        .iter()
        .copied()
        .max_by(f64::total_cmp)
        .map(|lower| (lower + *upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learnt(mut learner: Learner, cells: &[&str]) -> Option<String> {
        for cell in cells {
            learner.learn(cell.as_bytes(), NumberFormat::default());
        }
        learner
            .finish(Places::new(None), NumberFormat::default())
            .map(|text| String::from_utf8(text).unwrap())
    }

    fn text(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn medians() {
        let median = |cells: &[&str]| learnt(Learner::Median(Vec::new()), cells);
        assert_eq!(median(&["3", "x", "1", "2"]), text("2"));
        assert_eq!(median(&["4", "1", "", "3", "2"]), text("2.5"));
        assert_eq!(median(&["-1", "-1"]), text("-1"));
        assert_eq!(median(&["", "x"]), None);
    }

    #[test]
    fn means() {
        let mean = |cells: &[&str]| learnt(Learner::Mean(Moments::default()), cells);
        assert_eq!(mean(&["1", "2", "x", "2"]), text("1.666667"));
        assert_eq!(mean(&["1e16", "1", "-1e16"]), text("0.333333"));
        assert_eq!(mean(&["1e999", "1"]), None);
        assert_eq!(mean(&[]), None);
    }

    #[test]
    fn modes() {
        let mode = |cells: &[&str]| learnt(Learner::Mode(HashMap::new()), cells);
        assert_eq!(mode(&["b", "a", "a", "b", "c"]), text("b"));
        assert_eq!(mode(&["a", "b", "b", ""]), text("b"));
        assert_eq!(mode(&["", "", "x"]), text("x"));
        assert_eq!(mode(&["", ""]), None);
    }

    #[test]
    fn standard_deviation_of_the_population() {
        let mut moments = Moments::default();
        for value in [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0] {
            moments.add(value);
        }
        assert_eq!((moments.mean(), moments.std()), (Some(5.0), Some(2.0)));
        let mut constant = Moments::default();
        for _ in 0..1000 {
            constant.add(0.1);
        }
        assert_eq!(constant.std(), Some(0.0));
    }
}

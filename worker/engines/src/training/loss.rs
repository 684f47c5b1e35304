//! Binary cross-entropy on logits, in nats (`docs/engines/training.md`, "Loss").
//!
//! The formula max(z, 0) − z·y + ln(1 + e^−|z|) equals −y·ln σ(z) − (1 − y)·ln(1 − σ(z)) and does
//! not overflow for any logit z.

use ndarray::ArrayView1;

/// The loss of one row with logit `z` and label `y` (0 or 1).
pub(super) fn row_loss(z: f64, y: f64) -> f64 {
    z.max(0.0) - z * y + (-z.abs()).exp().ln_1p()
}

/// The derivative of the loss by `z`, also at 0, where single terms of the formula have none.
pub(super) fn row_gradient(z: f64, y: f64) -> f64 {
    probability(z) - y
}

/// The probability of label 1 for logit `z` (logistic function).
pub(super) fn probability(z: f64) -> f64 {
    if z >= 0.0 {
        1.0 / (1.0 + (-z).exp())
    } else {
        let e = z.exp();
        e / (1.0 + e)
    }
}

/// The loss of one row when the predicted probability of label 1 is `p`.
pub(super) fn row_loss_at_probability(p: f64, y: f64) -> f64 {
    if y == 1.0 { -p.ln() } else { -(1.0 - p).ln() }
}

/// The sum of losses and the number of right predictions so far.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct RunningScore {
    loss: f64,
    right: usize,
    rows: usize,
}

impl RunningScore {
    /// Adds rows with these logits and labels.
    pub(super) fn add(&mut self, logits: ArrayView1<'_, f64>, labels: ArrayView1<'_, f64>) {
        for (z, y) in logits.iter().zip(labels) {
            self.loss += row_loss(*z, *y);
            self.right += usize::from((*z > 0.0) == (*y == 1.0));
            self.rows += 1;
        }
    }

    /// Mean loss, in nats.
    pub(super) fn loss(&self) -> f64 {
        self.loss / self.rows as f64
    }

    /// Right predictions as a fraction of all.
    pub(super) fn accuracy(&self) -> f64 {
        self.right as f64 / self.rows as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn saturated_logits_stay_finite() {
        for (z, y, loss, gradient) in [
            (1e4, 1.0, 0.0, 0.0),
            (1e4, 0.0, 1e4, 1.0),
            (-1e4, 1.0, 1e4, -1.0),
            (-1e4, 0.0, 0.0, 0.0),
        ] {
            assert_eq!(
                (row_loss(z, y), row_gradient(z, y)),
                (loss, gradient),
                "{z} {y}"
            );
        }

        assert_eq!(row_gradient(0.0, 1.0), -0.5);
    }

    proptest! {
        #[test]
        fn the_derivative_is_the_slope(z in -20.0..20.0f64, one in any::<bool>()) {
            let (y, step) = (f64::from(u8::from(one)), 1e-5);
            let slope = (row_loss(z + step, y) - row_loss(z - step, y)) / (2.0 * step);
            prop_assert!((slope - row_gradient(z, y)).abs() < 1e-8);
            prop_assert!((row_loss(z, y) - row_loss_at_probability(probability(z), y)).abs() < 1e-6);
        }
    }
}

//! What the epochs of a training measured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::request::EarlyStopping;

/// What one epoch measured. Losses in nats, accuracies as fractions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EpochMetrics {
    /// Its number, from 1.
    pub epoch: u32,
    /// Mean loss of the training rows as the epoch met them, each batch before its step.
    pub train_loss: f64,
    /// Accuracy of the same answers.
    pub train_accuracy: f64,
    /// Mean loss of all validation rows after the epoch.
    pub val_loss: f64,
    /// Accuracy of the same answers.
    pub val_accuracy: f64,
}

impl EpochMetrics {
    /// Names and values, as metrics and progress show them.
    pub(super) fn named(&self) -> [(&'static str, f64); 4] {
        [
            ("train_loss", self.train_loss),
            ("val_loss", self.val_loss),
            ("train_accuracy", self.train_accuracy),
            ("val_accuracy", self.val_accuracy),
        ]
    }
}

/// All epochs so far, in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct History(pub Vec<EpochMetrics>);

impl History {
    /// Epochs that are finished.
    pub fn epochs(&self) -> u32 {
        self.0.last().map_or(0, |last| last.epoch)
    }

    /// The epoch with the least validation loss, the first of equals.
    pub fn best(&self) -> Option<&EpochMetrics> {
        self.0.iter().reduce(|best, epoch| {
            if epoch.val_loss < best.val_loss {
                epoch
            } else {
                best
            }
        })
    }

    /// Whether the validation loss has not fallen for as long as `stopping` lets it.
    ///
    /// It follows from the measured losses alone, so it needs no state that a resumed run could
    /// lose.
    pub fn stops_early(&self, stopping: Option<EarlyStopping>) -> bool {
        let Some(stopping) = stopping else {
            return false;
        };
        let (mut best, mut waited) = (f64::INFINITY, 0);

        for epoch in &self.0 {
            if epoch.val_loss < best - stopping.min_delta {
                (best, waited) = (epoch.val_loss, 0);
            } else {
                waited += 1;
            }
        }

        waited >= stopping.patience
    }

    /// Whether the epochs are numbered from 1 without a gap.
    pub(super) fn is_sound(&self) -> bool {
        (1..)
            .zip(&self.0)
            .all(|(number, epoch)| epoch.epoch == number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(losses: &[f64]) -> History {
        let epoch = |(number, loss): (u32, &f64)| EpochMetrics {
            epoch: number,
            train_loss: 0.5,
            train_accuracy: 0.5,
            val_loss: *loss,
            val_accuracy: 0.5,
        };
        History((1..).zip(losses).map(epoch).collect())
    }

    #[test]
    fn the_first_of_equal_epochs_is_best() {
        assert_eq!(history(&[0.7, 0.6, 0.6, 0.65]).best().unwrap().epoch, 2);
        assert_eq!(history(&[]).best(), None);
    }

    #[test]
    fn patience_counts_epochs_that_were_not_better() {
        let stops = |losses: &[f64], patience, min_delta| {
            history(losses).stops_early(Some(EarlyStopping {
                patience,
                min_delta,
            }))
        };

        assert!(!stops(&[0.7, 0.6, 0.6], 2, 0.0));
        assert!(stops(&[0.7, 0.6, 0.6, 0.6], 2, 0.0));
        assert!(!stops(&[0.7, 0.71, 0.69, 0.7], 2, 0.0));
        assert!(stops(&[0.70, 0.69, 0.68], 2, 0.05));
        assert!(!history(&[0.7; 9]).stops_early(None));
    }
}

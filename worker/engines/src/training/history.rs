//! The measurements of the epochs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::request::EarlyStopping;

/// The measurements of one epoch. Losses are in nats, accuracies are fractions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EpochMetrics {
    /// The number of the epoch, from 1.
    pub epoch: u32,
    /// Mean loss of the training rows, measured on each batch before its update.
    pub train_loss: f64,
    /// Accuracy on the training rows, measured on each batch before its update.
    #[schemars(extend("x-ktrdr-unit" = "percent"))]
    pub train_accuracy: f64,
    /// Mean loss of all validation rows after the epoch.
    pub val_loss: f64,
    /// Accuracy on all validation rows after the epoch.
    #[schemars(extend("x-ktrdr-unit" = "percent"))]
    pub val_accuracy: f64,
}

impl EpochMetrics {
    /// The names and values for metric points and progress.
    pub(super) fn named(&self) -> [(&'static str, f64); 4] {
        [
            ("train_loss", self.train_loss),
            ("val_loss", self.val_loss),
            ("train_accuracy", self.train_accuracy),
            ("val_accuracy", self.val_accuracy),
        ]
    }
}

/// The finished epochs, in order.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct History(pub Vec<EpochMetrics>);

impl History {
    /// Number of finished epochs.
    pub fn epochs(&self) -> u32 {
        self.0.last().map_or(0, |last| last.epoch)
    }

    /// The epoch with the least validation loss. The first one when several are equal.
    pub fn best(&self) -> Option<&EpochMetrics> {
        self.0.iter().reduce(|best, epoch| {
            if epoch.val_loss < best.val_loss {
                epoch
            } else {
                best
            }
        })
    }

    /// Whether the last epoch is the one with the least validation loss.
    pub(super) fn last_is_best(&self) -> bool {
        self.best().map(|best| best.epoch) == self.0.last().map(|last| last.epoch)
    }

    /// Whether the validation loss has not improved for `stopping.patience` epochs.
    ///
    /// This depends on the measured losses alone, so a resumed run decides the same.
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
    use super::super::request::Keep;
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
    fn patience_counts_epochs_without_improvement() {
        let stops = |losses: &[f64], patience, min_delta| {
            history(losses).stops_early(Some(EarlyStopping {
                patience,
                min_delta,
                keep: Keep::Last,
            }))
        };

        assert!(!stops(&[0.7, 0.6, 0.6], 2, 0.0));
        assert!(stops(&[0.7, 0.6, 0.6, 0.6], 2, 0.0));
        assert!(!stops(&[0.7, 0.71, 0.69, 0.7], 2, 0.0));
        assert!(stops(&[0.70, 0.69, 0.68], 2, 0.05));
        assert!(!history(&[0.7; 9]).stops_early(None));
    }
}

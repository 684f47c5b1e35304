//! Figures about the operations that have ended of late.

use std::collections::HashMap;

use ktrdr_protocol::rest::stats::{EndedStats, FailureCount, Quantiles};
use ktrdr_protocol::time::Timestamp;
use roaring::RoaringBitmap;

use super::Model;

/// Operations that the figures are about, at most: to look at them takes a few milliseconds.
const MAX_OPERATIONS: usize = 20_000;

/// Failures of one type and code that are listed, at most.
const MAX_FAILURES: usize = 100;

impl Model {
    /// The numbers of the operations that ended at `time` or later. Some of these may be gone.
    pub(super) fn ended_from(&self, time: Timestamp) -> RoaringBitmap {
        let ends = self.ends.iter().rev();
        let ends = ends.take_while(|(ended_at, _)| *ended_at >= time);
        ends.map(|(_, number)| *number).collect()
    }

    /// Figures about the operations of these types that ended at `since` or later; `None` for all
    /// types.
    pub fn ended_since(&self, types: Option<&[&str]>, since: Timestamp) -> EndedStats {
        let types = types.map(|types| self.numbers_of(types));
        let is_meant = |number: u32| types.as_ref().is_none_or(|types| types.contains(&number));
        let (mut waiting, mut running) = (Vec::new(), Vec::new());
        let mut failures: HashMap<(u32, &str), FailureCount> = HashMap::new();
        let mut figures = EndedStats::default();

        let ends = self.ends.iter().rev();
        for (ended_at, number) in ends.take_while(|(at, _)| *at >= since) {
            let Some(record) = self.record_ref(*number) else {
                continue;
            };
            if !is_meant(record.queue.type_number) {
                continue;
            }
            if figures.operations == MAX_OPERATIONS as u64 {
                figures.is_partial = true;
                break;
            }
            figures.operations += 1;
            if let Some(first) = record.attempts.first() {
                waiting.push(first.started_at.seconds_since(record.waits_since()));
            }
            if let Some(last) = record.attempts.last() {
                running.push(ended_at.seconds_since(last.started_at));
            }
            if let Some(failure) = record.failure() {
                let key = (record.queue.type_number, failure.code.as_str());
                let count = failures.entry(key).or_insert_with(|| FailureCount {
                    operation_type: record.queue.worker_type.clone(),
                    error_code: failure.code.clone(),
                    operations: 0,
                });
                count.operations += 1;
            }
        }

        let mut failures: Vec<FailureCount> = failures.into_values().collect();
        failures.sort_by(|a, b| {
            let key = |one: &FailureCount| (one.operation_type.clone(), one.error_code.clone());
            (b.operations.cmp(&a.operations)).then_with(|| key(a).cmp(&key(b)))
        });
        failures.truncate(MAX_FAILURES);
        EndedStats {
            waiting: quantiles(waiting),
            running: quantiles(running),
            failures,
            ..figures
        }
    }
}

/// The quantiles of these values; `None` when there are none.
fn quantiles(mut values: Vec<f64>) -> Option<Quantiles> {
    let mut at = |share: f64| {
        let rank = (values.len() as f64 * share).ceil() as usize;
        let place = rank.saturating_sub(1);
        if place >= values.len() {
            return None;
        }
        let (_, value, _) = values.select_nth_unstable_by(place, f64::total_cmp);
        Some(*value)
    };
    Some(Quantiles {
        p50: at(0.5)?,
        p95: at(0.95)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        assert_eq!(quantiles(Vec::new()), None);
        let one = quantiles(vec![7.0]).unwrap();
        assert_eq!((one.p50, one.p95), (7.0, 7.0));
        let many = quantiles((1..=100).rev().map(f64::from).collect()).unwrap();
        assert_eq!((many.p50, many.p95), (50.0, 95.0));
    }
}

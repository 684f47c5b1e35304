//! Where an engine's progress and metrics wait until they are sent.

use std::time::{Duration, Instant};

use ktrdr_shared::operation::{MetricPoint, Progress};
use ktrdr_shared::time::Timestamp;
use parking_lot::Mutex;
use serde_json::value::RawValue;

/// How old a report must be before [`crate::Context::progress_with`] replaces it.
const PROGRESS_DUE: Duration = Duration::from_millis(100);

/// Points kept while the broker is away; beyond that the oldest give way, so that a long outage cannot fill the memory.
const MAX_WAITING_POINTS: usize = 100_000;

/// Progress and metrics of one attempt, written by the engine and drained by the SDK.
#[derive(Debug)]
pub(crate) struct Report {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    progress: Progress,
    /// How many times progress was reported.
    reports: u64,
    reported_at: Option<Instant>,
    unsent_progress: bool,
    points: Vec<MetricPoint>,
    /// How many points came before the first of `points`.
    before_points: u64,
    dropped_points: u64,
    checkpoint: Option<Box<RawValue>>,
    checkpoint_taken: Option<Instant>,
}

/// Metric points on their way out.
pub(crate) struct Points {
    pub(crate) points: Vec<MetricPoint>,
    /// How many the attempt had measured before the first of them.
    pub(crate) before: u64,
    /// How many had to give way since points were last taken.
    pub(crate) dropped: u64,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                progress: Progress::default(),
                reports: 0,
                reported_at: None,
                unsent_progress: false,
                points: Vec::new(),
                before_points: 0,
                dropped_points: 0,
                checkpoint: None,
                checkpoint_taken: None,
            }),
        }
    }

    pub(crate) fn progress(&self, mut progress: Progress) {
        let mut state = self.state.lock();
        progress.percentage = progress.percentage.max(state.progress.percentage);
        state.progress = progress;
        state.reports += 1;
        state.reported_at = Some(Instant::now());
        state.unsent_progress = true;
    }

    pub(crate) fn progress_is_due(&self) -> bool {
        self.state.lock().reported_at.is_none_or(|at| at.elapsed() >= PROGRESS_DUE)
    }

    pub(crate) fn metric(&self, name: &str, value: f64) {
        let point = MetricPoint {
            timestamp: Timestamp::now(),
            name: name.to_owned(),
            value: value.is_finite().then_some(value),
        };
        let mut state = self.state.lock();
        if state.points.len() >= MAX_WAITING_POINTS {
            state.points.drain(..MAX_WAITING_POINTS / 10);
            state.dropped_points += (MAX_WAITING_POINTS / 10) as u64;
            state.before_points += (MAX_WAITING_POINTS / 10) as u64;
        }
        state.points.push(point);
    }

    /// Whether the last checkpoint was taken so long ago that a new one would be saved.
    pub(crate) fn checkpoint_is_due(&self, interval: Duration) -> bool {
        let state = self.state.lock();
        state.checkpoint.is_none() && state.checkpoint_taken.is_none_or(|at| at.elapsed() >= interval)
    }

    pub(crate) fn checkpoint(&self, checkpoint: Box<RawValue>) {
        let mut state = self.state.lock();
        state.checkpoint = Some(checkpoint);
        state.checkpoint_taken = Some(Instant::now());
    }

    /// Whether there ever was a checkpoint.
    pub(crate) fn has_checkpointed(&self) -> bool {
        self.state.lock().checkpoint_taken.is_some()
    }

    /// The checkpoint that waits to be saved.
    pub(crate) fn take_checkpoint(&self) -> Option<Box<RawValue>> {
        self.state.lock().checkpoint.take()
    }

    /// The newest progress.
    pub(crate) fn latest_progress(&self) -> Progress {
        self.state.lock().progress.clone()
    }

    /// The newest progress and its number, from 1; 0 before the first.
    pub(crate) fn numbered_progress(&self) -> (u64, Progress) {
        let state = self.state.lock();
        (state.reports, state.progress.clone())
    }

    /// The newest progress and its number, if it has not been taken before.
    pub(crate) fn take_unsent_progress(&self) -> Option<(u64, Progress)> {
        let mut state = self.state.lock();
        std::mem::take(&mut state.unsent_progress).then(|| (state.reports, state.progress.clone()))
    }

    /// All points that wait.
    pub(crate) fn take_points(&self) -> Points {
        let mut state = self.state.lock();
        let points = std::mem::take(&mut state.points);
        let before = state.before_points;
        state.before_points += points.len() as u64;
        Points { points, before, dropped: std::mem::take(&mut state.dropped_points) }
    }

    /// Puts back points that could not be sent, before those that came since.
    pub(crate) fn return_points(&self, mut points: Vec<MetricPoint>) {
        let mut state = self.state.lock();
        state.before_points -= points.len() as u64;
        points.append(&mut state.points);
        state.points = points;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_never_fall() {
        let report = Report::new();
        report.progress(Progress::new(40.0));
        report.progress(Progress::new(30.0).step("second pass"));
        let (number, latest) = report.take_unsent_progress().unwrap();
        assert_eq!(number, 2);
        assert_eq!((latest.percentage, latest.current_step.as_deref()), (40.0, Some("second pass")));
        assert_eq!(report.take_unsent_progress(), None);
    }

    #[test]
    fn points_are_bounded_and_keep_their_order() {
        let report = Report::new();
        for i in 0..MAX_WAITING_POINTS + 1 {
            report.metric("x", i as f64);
        }
        let Points { points, before, dropped } = report.take_points();
        assert_eq!(before, dropped);
        assert_eq!(dropped, (MAX_WAITING_POINTS / 10) as u64);
        assert_eq!(points.len() as u64 + dropped, MAX_WAITING_POINTS as u64 + 1);
        report.metric("y", f64::NAN);
        report.return_points(points.clone());
        let Points { points: again, before: same, .. } = report.take_points();
        assert_eq!(same, before);
        assert_eq!(again[..points.len()], points[..]);
        assert_eq!(again.last().unwrap().value, None);
    }
}

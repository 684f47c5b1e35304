//! Where an engine's progress, metric points and checkpoints wait until they are sent. Its log lines wait
//! in [`crate::reporting::log_lines`].
//!
//! The problem: an engine may report millions of times a second, from any thread, and must not wait
//! for NATS. NATS may be away for hours.
//!
//! The solution: the engine writes into [`Report`] under a short lock, and
//! [`crate::reporting::send`] takes what is new a few times a second. Only the newest progress and
//! the newest checkpoint are kept. Metric points are all kept, up to a bound; beyond it the oldest
//! are dropped. Points that may or may not have been stored are sent again as the same batch, so
//! that the stream recognises the duplicate.
//!
//! Rejected: a channel per report. An unbounded one fills the memory during an outage, and a
//! bounded one either blocks the engine or drops the newest report.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ktrdr_protocol::log_line::LogLevel;
use ktrdr_protocol::metric::MetricPoint;
use ktrdr_protocol::progress::Progress;
use ktrdr_protocol::time::Timestamp;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::reporting::log_lines::{LogLimits, LogLines};

/// Minimum age of the last report before [`crate::Context::progress_with`] makes another one.
const PROGRESS_DUE: Duration = Duration::from_millis(100);

/// Minimum work time between checkpoints, as a multiple of the time that the last checkpoint took.
/// Checkpoints then cost about 5 % of the time, and more only while they grow.
const CHECKPOINT_PAUSE: u32 = 20;

/// No final checkpoint is made when the last one took longer than this: a stop should be quick.
const LAST_CHECKPOINT: Duration = Duration::from_millis(500);

/// Metric points kept while NATS is away. Beyond that the oldest are dropped, so that a long outage
/// cannot fill the memory.
const MAX_WAITING_POINTS: usize = 100_000;

/// Progress and metrics of one attempt, written by the engine and drained by the SDK.
pub(crate) struct Report {
    begun: Instant,
    /// The last sign of life of the engine, in milliseconds since `begun`.
    last_sign: AtomicU64,
    state: Mutex<State>,
    /// What the engine says.
    pub(crate) logs: LogLines,
    /// Takes checkpoints at once, for a test without a worker that saves them.
    sink: Option<CheckpointSink>,
}

/// See [`Report::with_sink`].
pub(crate) type CheckpointSink = Box<dyn Fn(u64, &RawValue) -> bool + Send + Sync>;

struct State {
    progress: Progress,
    /// How many times progress was reported.
    reports: u64,
    reported_at: Option<Instant>,
    unsent_progress: bool,
    points: Vec<MetricPoint>,
    /// How many points the attempt measured before the first of `points`.
    before_points: u64,
    /// How many of the first `points` were sent as one batch whose outcome is unknown.
    uncertain_points: usize,
    dropped_points: u64,
    /// The checkpoint that waits to be saved, with its number.
    checkpoint: Option<(u64, Box<RawValue>)>,
    /// When the last checkpoint was made, and how long that took.
    last_checkpoint: Option<(Instant, Duration)>,
    checkpoints_made: u64,
    /// The number of the newest checkpoint that is saved; 0 before the first.
    checkpoint_saved: u64,
}

/// Metric points on their way out.
pub(crate) struct Points {
    pub(crate) points: Vec<MetricPoint>,
    /// How many points the attempt measured before the first of them.
    pub(crate) before: u64,
    /// How many of the first points must be sent again as the same batch; 0 for none.
    pub(crate) uncertain: usize,
    /// How many were dropped since points were last taken.
    pub(crate) dropped: u64,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self {
            begun: Instant::now(),
            last_sign: AtomicU64::new(0),
            state: Mutex::new(State {
                progress: Progress::default(),
                reports: 0,
                reported_at: None,
                unsent_progress: false,
                points: Vec::new(),
                before_points: 0,
                uncertain_points: 0,
                dropped_points: 0,
                checkpoint: None,
                last_checkpoint: None,
                checkpoints_made: 0,
                checkpoint_saved: 0,
            }),
            logs: LogLines::new(LogLimits::default()),
            sink: None,
        }
    }

    /// With other limits of log lines.
    pub(crate) fn with_logs(limits: LogLimits) -> Self {
        Self {
            logs: LogLines::new(limits),
            ..Self::new()
        }
    }

    /// For tests of engines: `sink` receives every checkpoint at once and returns whether it was
    /// saved.
    pub(crate) fn with_sink(limits: LogLimits, sink: CheckpointSink) -> Self {
        Self {
            sink: Some(sink),
            ..Self::with_logs(limits)
        }
    }

    /// Notes a sign of life of the engine.
    pub(crate) fn alive(&self) {
        let since = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_sign.store(since, Ordering::Relaxed);
    }

    /// How long the engine has given no sign of life.
    pub(crate) fn silence(&self) -> Duration {
        let last = Duration::from_millis(self.last_sign.load(Ordering::Relaxed));
        self.begun.elapsed().saturating_sub(last)
    }

    pub(crate) fn progress(&self, mut progress: Progress) {
        self.alive();
        let mut state = self.state.lock();
        progress.percentage = progress.percentage.max(state.progress.percentage);
        state.progress = progress;
        state.reports += 1;
        state.reported_at = Some(Instant::now());
        state.unsent_progress = true;
    }

    /// Takes a log line. Returns false when it was left out.
    pub(crate) fn log(&self, level: LogLevel, text: &str, fields: Map<String, Value>) -> bool {
        self.alive();
        self.logs.say(level, text, fields)
    }

    pub(crate) fn progress_is_due(&self) -> bool {
        self.state
            .lock()
            .reported_at
            .is_none_or(|at| at.elapsed() >= PROGRESS_DUE)
    }

    pub(crate) fn metric(&self, name: &str, step: Option<f64>, value: f64) {
        self.alive();
        let point = MetricPoint {
            timestamp: Timestamp::now(),
            name: name.to_owned(),
            value: value.is_finite().then_some(value),
            step: step.filter(|step| step.is_finite()),
            attempt: None,
        };
        let mut state = self.state.lock();
        if state.points.len() >= MAX_WAITING_POINTS {
            state.points.drain(..MAX_WAITING_POINTS / 10);
            state.dropped_points += (MAX_WAITING_POINTS / 10) as u64;
            state.before_points += (MAX_WAITING_POINTS / 10) as u64;
            state.uncertain_points = 0;
        }
        state.points.push(point);
    }

    /// The number of the checkpoint to make now; `None` when none is due.
    ///
    /// A checkpoint is due when none waits to be saved, `interval` has passed since the last one or
    /// since the beginning, and the engine has worked [`CHECKPOINT_PAUSE`] times as long as the
    /// last one took. An `interval` of zero makes a checkpoint whenever the last one is saved. An
    /// engine that is asked to stop (`stopping`) may make one more.
    pub(crate) fn next_checkpoint(&self, interval: Duration, stopping: bool) -> Option<u64> {
        let state = self.state.lock();
        let due = match state.last_checkpoint {
            // A run that is shorter than the interval leaves no checkpoint.
            None => !stopping && self.begun.elapsed() >= interval,
            Some((_, cost)) if stopping => cost <= LAST_CHECKPOINT,
            Some(_) if state.checkpoint.is_some() => false,
            Some((at, cost)) => {
                interval.is_zero() || at.elapsed() >= interval.max(cost * CHECKPOINT_PAUSE)
            }
        };
        due.then_some(state.checkpoints_made + 1)
    }

    /// Stores a checkpoint that took `cost` to make; `None` when making it failed.
    pub(crate) fn checkpoint(&self, checkpoint: Option<Box<RawValue>>, cost: Duration) {
        self.alive();
        let mut state = self.state.lock();
        state.checkpoints_made += 1;
        state.last_checkpoint = Some((Instant::now(), cost));
        let number = state.checkpoints_made;
        // After a failure the checkpoint before remains the newest.
        let Some(checkpoint) = checkpoint else { return };
        match &self.sink {
            Some(sink) if sink(number, &checkpoint) => state.checkpoint_saved = number,
            Some(_) => {}
            None => state.checkpoint = Some((number, checkpoint)),
        }
    }

    /// How many checkpoints the engine made.
    pub(crate) fn checkpoints_made(&self) -> u64 {
        self.state.lock().checkpoints_made
    }

    /// Takes the checkpoint that waits to be saved, with its number.
    pub(crate) fn take_checkpoint(&self) -> Option<(u64, Box<RawValue>)> {
        self.state.lock().checkpoint.take()
    }

    /// Notes that a checkpoint is saved.
    pub(crate) fn checkpoint_is_saved(&self, number: u64) {
        self.state.lock().checkpoint_saved = number;
    }

    /// The number of the newest checkpoint that is saved; 0 before the first.
    pub(crate) fn saved_checkpoint(&self) -> u64 {
        self.state.lock().checkpoint_saved
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

    /// Takes the newest progress and its number; `None` when it was taken before.
    pub(crate) fn take_unsent_progress(&self) -> Option<(u64, Progress)> {
        let mut state = self.state.lock();
        std::mem::take(&mut state.unsent_progress).then(|| (state.reports, state.progress.clone()))
    }

    /// Takes all waiting points.
    pub(crate) fn take_points(&self) -> Points {
        let mut state = self.state.lock();
        let points = std::mem::take(&mut state.points);
        let before = state.before_points;
        state.before_points += points.len() as u64;
        let uncertain = std::mem::take(&mut state.uncertain_points);
        Points {
            points,
            before,
            uncertain,
            dropped: std::mem::take(&mut state.dropped_points),
        }
    }

    /// Puts back points that could not be sent, before those that were measured since. The outcome
    /// of the first `uncertain` is unknown.
    pub(crate) fn return_points(&self, mut points: Vec<MetricPoint>, uncertain: usize) {
        let mut state = self.state.lock();
        state.before_points -= points.len() as u64;
        state.uncertain_points = uncertain;
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
        assert_eq!(
            (latest.percentage, latest.current_step.as_deref()),
            (40.0, Some("second pass"))
        );
        assert_eq!(report.take_unsent_progress(), None);
    }

    #[test]
    fn checkpoints_are_made_when_they_are_worth_it() {
        let (report, hour) = (Report::new(), Duration::from_secs(3600));
        assert_eq!(
            (
                report.next_checkpoint(hour, false),
                report.next_checkpoint(hour, true)
            ),
            (None, None)
        );

        assert_eq!(report.next_checkpoint(Duration::ZERO, false), Some(1));
        report.checkpoint(Some(RawValue::NULL.to_owned()), Duration::ZERO);
        assert_eq!(
            report.next_checkpoint(Duration::ZERO, false),
            None,
            "one waits"
        );
        assert_eq!(
            report.next_checkpoint(hour, true),
            Some(2),
            "the last one may replace it"
        );

        assert_eq!(report.take_checkpoint().map(|(number, _)| number), Some(1));
        report.checkpoint_is_saved(1);
        assert_eq!(
            (
                report.saved_checkpoint(),
                report.next_checkpoint(Duration::ZERO, false)
            ),
            (1, Some(2))
        );

        // One that took an hour, and failed.
        report.checkpoint(None, hour);
        assert_eq!(report.next_checkpoint(Duration::from_nanos(1), false), None);
        assert_eq!(
            (
                report.next_checkpoint(hour, true),
                report.next_checkpoint(Duration::ZERO, false)
            ),
            (None, Some(3))
        );
        assert!(report.take_checkpoint().is_none());
    }

    #[test]
    fn points_are_bounded_and_keep_their_order() {
        let report = Report::new();
        for i in 0..=MAX_WAITING_POINTS {
            report.metric("x", None, i as f64);
        }
        let Points {
            points,
            before,
            dropped,
            ..
        } = report.take_points();
        assert_eq!(before, dropped);
        assert_eq!(dropped, (MAX_WAITING_POINTS / 10) as u64);
        assert_eq!(points.len() as u64 + dropped, MAX_WAITING_POINTS as u64 + 1);
        report.metric("y", Some(1.0), f64::NAN);
        report.return_points(points.clone(), 7);
        let Points {
            points: again,
            before: same,
            uncertain,
            ..
        } = report.take_points();
        assert_eq!((same, uncertain), (before, 7));
        assert_eq!(again[..points.len()], points[..]);
        assert_eq!(again.last().unwrap().value, None);
    }
}

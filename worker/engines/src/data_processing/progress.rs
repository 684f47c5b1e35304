//! Progress, metrics and cancellation of a run (`docs/engines/data_processing.md`, "Progress").

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use ktrdr_worker::{Context, OperationError, Progress};

/// Rows between two reports, each of which also checks for cancellation.
const ROWS_PER_REPORT: u64 = 250;

/// Bytes between two reports, for long rows.
const BYTES_PER_REPORT: u64 = 1024 * 1024;

/// Time between two points of a metric.
const METRIC_INTERVAL: Duration = Duration::from_millis(100);

/// A position between two rows of a pass. A checkpoint stores it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Position {
    /// The pass, from 0.
    pub(super) pass: usize,
    /// Rows of the source read in it.
    pub(super) rows: u64,
    /// Bytes of the source read in it.
    pub(super) offset: u64,
    /// The line of the source on which the last row ended.
    pub(super) line: u64,
    /// Most rows read in any pass.
    most_rows: u64,
    /// Rows of the source: known after the first pass, estimated or none before.
    total_rows: Option<u64>,
    /// Records of this pass with another number of cells than the header.
    pub(super) ragged: RaggedRecords,
}

/// What was done with records that have another number of cells than the header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RaggedRecords {
    /// Dropped.
    pub(super) dropped: u64,
    /// Got missing cells.
    pub(super) padded: u64,
    /// Lost cells.
    pub(super) cut: u64,
}

/// Counts rows and bytes, and reports progress and metrics.
pub(super) struct ProgressReporter<'a> {
    ctx: &'a Context,
    started: Instant,
    last_metric: Instant,
    passes: usize,
    pass: usize,
    activity: String,
    bytes_per_pass: u64,
    /// Rows read in this pass.
    rows: u64,
    /// Most rows read in any pass: the value of `rows_processed`.
    most_rows: u64,
    /// Rows of the source: known after the first pass, estimated or none before.
    total_rows: Option<u64>,
    next_rows: u64,
    next_bytes: u64,
    /// Bytes and rows of all passes that an earlier attempt had done.
    before: (u64, u64),
}

impl<'a> ProgressReporter<'a> {
    /// Creates the reporter of a run that reads `bytes_per_pass` bytes `passes` times.
    pub(super) fn new(
        ctx: &'a Context,
        passes: usize,
        bytes_per_pass: u64,
        estimated_rows: Option<u64>,
    ) -> Self {
        let now = Instant::now();

        Self {
            ctx,
            started: now,
            last_metric: now,
            passes,
            pass: 0,
            activity: String::new(),
            bytes_per_pass,
            rows: 0,
            most_rows: 0,
            total_rows: estimated_rows,
            next_rows: 0,
            next_bytes: 0,
            before: (0, 0),
        }
    }

    /// Begins pass `pass` (from 0). `activity` is its name in the progress text.
    pub(super) fn begin_pass(
        &mut self,
        pass: usize,
        activity: String,
    ) -> Result<(), OperationError> {
        (self.pass, self.activity, self.rows) = (pass, activity, 0);
        self.start_reading(0)
    }

    /// Resumes a pass at `position`, where `bytes` of the source are read.
    pub(super) fn resume_pass(
        &mut self,
        position: Position,
        bytes: u64,
        activity: String,
    ) -> Result<(), OperationError> {
        (self.pass, self.activity, self.rows) = (position.pass, activity, position.rows);
        (self.most_rows, self.total_rows) = (position.most_rows, position.total_rows);
        self.before = (self.bytes_done(bytes), self.rows_done());
        self.start_reading(bytes)
    }

    fn start_reading(&mut self, bytes: u64) -> Result<(), OperationError> {
        self.schedule_next_report(bytes);
        self.ctx.check_cancelled()?;
        self.ctx.progress(self.progress(bytes));
        Ok(())
    }

    fn schedule_next_report(&mut self, bytes: u64) {
        (self.next_rows, self.next_bytes) = (self.rows + ROWS_PER_REPORT, bytes + BYTES_PER_REPORT);
    }

    /// The current position, with the reader behind byte `offset` in line `line`.
    pub(super) fn position(&self, offset: u64, line: u64) -> Position {
        let Self {
            pass,
            rows,
            most_rows,
            total_rows,
            ..
        } = *self;
        let ragged = RaggedRecords::default();

        Position {
            pass,
            rows,
            offset,
            line,
            most_rows,
            total_rows,
            ragged,
        }
    }

    /// Ends a pass: the number of rows of the source is known now.
    pub(super) fn end_pass(&mut self) {
        self.most_rows = self.rows;
        self.total_rows = Some(self.rows);
    }

    /// The number of rows of the source read so far: the most of any pass.
    pub(super) fn rows_processed(&self) -> u64 {
        self.most_rows
    }

    /// Counts a row, with `bytes` of the source read in this pass. Returns true when a report is
    /// due.
    #[inline]
    pub(super) fn count_row(&mut self, bytes: u64) -> bool {
        self.rows += 1;
        self.rows >= self.next_rows || bytes >= self.next_bytes
    }

    /// Reports progress, and metrics when they are due. `errors` is called only for metrics.
    pub(super) fn report(&mut self, bytes: u64, errors: impl FnOnce() -> u64) {
        self.schedule_next_report(bytes);
        self.most_rows = self.most_rows.max(self.rows);
        if self.last_metric.elapsed() >= METRIC_INTERVAL {
            self.last_metric = Instant::now();
            self.report_metrics(errors());
        }
        self.ctx.progress_with(|| self.progress(bytes));
    }

    /// Reports the end of the run.
    pub(super) fn finish(&mut self, errors: u64) {
        self.report_metrics(errors);
        self.ctx
            .progress(self.progress(self.bytes_per_pass).finished());
    }

    fn report_metrics(&self, errors: u64) {
        // All passes count, so that the points of a second pass follow those of the first.
        let at = self.rows_done() as f64;
        self.ctx
            .metric_at("rows_processed", at, self.most_rows as f64);
        self.ctx.metric_at("errors", at, errors as f64);
        let rows = self.rows_done().saturating_sub(self.before.1);
        self.ctx.metric_at(
            "rows_per_second",
            at,
            rows as f64 / self.started.elapsed().as_secs_f64(),
        );
    }

    /// Rows read in all passes.
    fn rows_done(&self) -> u64 {
        self.total_rows.filter(|_| self.pass > 0).unwrap_or(0) * self.pass as u64 + self.rows
    }

    /// Bytes read in all passes, `bytes` of them in this one.
    fn bytes_done(&self, bytes: u64) -> u64 {
        self.pass as u64 * self.bytes_per_pass + bytes
    }

    fn progress(&self, bytes: u64) -> Progress {
        let (done, total) = (
            self.bytes_done(bytes),
            self.passes as u64 * self.bytes_per_pass,
        );
        let (before, _) = self.before;

        // The estimate uses only the work of this attempt.
        let remaining = remaining(
            self.started.elapsed(),
            done.saturating_sub(before),
            total.saturating_sub(before),
        );

        Progress::ratio(done, total)
            .step(self.step())
            .remaining_seconds(remaining)
            .field("rows_processed", self.most_rows)
            .field("current_row", self.rows)
            .field("total_rows", self.shown_total())
            .field("current_operation", self.activity.as_str())
    }

    /// Rows of the source, if known or estimated. An estimate that was too low is not shown.
    fn shown_total(&self) -> Option<u64> {
        self.total_rows.filter(|total| self.rows <= *total)
    }

    /// The progress text, such as `Cleaning: 4500/10000 rows`.
    fn step(&self) -> String {
        let mut text = match self.shown_total() {
            Some(total) => format!("{}: {}/{total} rows", self.activity, self.rows),
            None => format!("{}: {} rows", self.activity, self.rows),
        };
        if self.passes > 1 {
            text += &format!(" (pass {} of {})", self.pass + 1, self.passes);
        }
        text
    }
}

/// Estimated seconds left at the speed so far. None before anything is done.
fn remaining(elapsed: Duration, done: u64, total: u64) -> Option<u64> {
    (done > 0).then(|| {
        (elapsed.as_secs_f64() * total.saturating_sub(done) as f64 / done as f64).ceil() as u64
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktrdr_worker::testing::TestRun;

    #[test]
    fn reports_done_and_remaining_work() {
        let run = TestRun::new();
        let mut reporter = ProgressReporter::new(run.ctx(), 2, 1000, Some(10));

        reporter.begin_pass(0, "Cleaning".into()).unwrap();

        let progress = run.progress();

        assert_eq!(
            (progress.percentage, progress.estimated_remaining_seconds),
            (0.0, None)
        );
        assert_eq!(
            progress.current_step.unwrap(),
            "Cleaning: 0/10 rows (pass 1 of 2)"
        );

        for row in 1..=20 {
            reporter.count_row(row * 50);
        }

        assert_eq!(reporter.step(), "Cleaning: 20 rows (pass 1 of 2)");

        reporter.end_pass();
        reporter.begin_pass(1, "Cleaning".into()).unwrap();

        let progress = run.progress();

        assert_eq!(
            (progress.percentage, &progress.fields["rows_processed"]),
            (50.0, &20.into())
        );
        assert_eq!(
            progress.current_step.unwrap(),
            "Cleaning: 0/20 rows (pass 2 of 2)"
        );
        assert_eq!(progress.fields["current_row"], 0);
        assert_eq!(progress.fields["total_rows"], 20);
        assert_eq!(progress.fields["current_operation"], "Cleaning");

        reporter.finish(3);

        assert_eq!(run.progress().percentage, 100.0);
    }

    #[test]
    fn resumes_where_another_attempt_was() {
        let run = TestRun::new();
        let mut reporter = ProgressReporter::new(run.ctx(), 2, 1000, None);

        reporter.begin_pass(0, "Cleaning".into()).unwrap();
        (1..=20).for_each(|row| assert!(!reporter.count_row(row * 50)));
        reporter.end_pass();
        reporter.begin_pass(1, "Cleaning".into()).unwrap();
        (1..=10).for_each(|row| assert!(!reporter.count_row(row * 50)));

        let position = reporter.position(500, 11);
        let second = TestRun::new();
        let mut reporter = ProgressReporter::new(second.ctx(), 2, 1000, None);

        reporter
            .resume_pass(position, 500, "Cleaning".into())
            .unwrap();

        let progress = second.progress();

        assert_eq!(
            (progress.percentage, progress.estimated_remaining_seconds),
            (75.0, None)
        );
        assert_eq!(
            progress.current_step.unwrap(),
            "Cleaning: 10/20 rows (pass 2 of 2)"
        );
        assert_eq!(
            (reporter.rows_processed(), reporter.position(500, 11)),
            (20, position)
        );
        assert_eq!(reporter.before, (1500, 30));
    }

    #[test]
    fn estimates_from_the_rate_so_far() {
        assert_eq!(remaining(Duration::from_secs(10), 25, 100), Some(30));
        assert_eq!(remaining(Duration::from_secs(10), 100, 100), Some(0));
        assert_eq!(remaining(Duration::from_secs(10), 0, 100), None);
    }

    #[test]
    fn a_report_is_due_within_a_thousand_rows_or_a_few_long_ones() {
        let run = TestRun::new();
        let mut reporter = ProgressReporter::new(run.ctx(), 1, 1_000_000, None);

        reporter.begin_pass(0, "Cleaning".into()).unwrap();

        assert_eq!(
            (1..=1000).find(|row| reporter.count_row(row * 10)),
            Some(ROWS_PER_REPORT)
        );

        reporter.report(2500, || 0);

        assert!(!reporter.count_row(BYTES_PER_REPORT));
        assert!(reporter.count_row(BYTES_PER_REPORT + 2500));
    }
}

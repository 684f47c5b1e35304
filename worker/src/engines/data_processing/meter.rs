//! Progress, metrics and cancellation of a run (`docs/engines/data_processing.md`, "Progress").

use std::time::{Duration, Instant};

use crate::{Context, OperationError, Progress};

/// Rows between two looks at the clock and at the cancellation.
const ROWS_PER_LOOK: u64 = 250;

/// Bytes between two looks, for rows that are long.
const BYTES_PER_LOOK: u64 = 1024 * 1024;

/// Time between two points of a metric.
const METRIC_INTERVAL: Duration = Duration::from_millis(100);

/// Counts what was read and tells the world now and then.
pub(super) struct Meter<'a> {
    ctx: &'a Context,
    started: Instant,
    last_metric: Instant,
    passes: usize,
    pass: usize,
    activity: String,
    bytes_per_pass: u64,
    /// Rows read in this pass.
    rows: u64,
    /// Rows of the source read in any pass: what `rows_processed` says.
    most_rows: u64,
    /// Rows of the source, once known; before that, as estimated.
    total_rows: Option<u64>,
    next_rows: u64,
    next_bytes: u64,
}

impl<'a> Meter<'a> {
    /// For a run that reads `bytes_per_pass` bytes `passes` times.
    pub(super) fn new(ctx: &'a Context, passes: usize, bytes_per_pass: u64, estimated_rows: Option<u64>) -> Self {
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
        }
    }

    /// Pass `pass` (from 0) begins; `activity` says what is done in it.
    pub(super) fn begin_pass(&mut self, pass: usize, activity: String) -> Result<(), OperationError> {
        (self.pass, self.activity, self.rows, self.next_rows, self.next_bytes) = (pass, activity, 0, 0, 0);
        self.ctx.check_cancelled()?;
        self.ctx.progress(self.progress(0));
        Ok(())
    }

    /// The source was read to its end: now its rows are known.
    pub(super) fn end_pass(&mut self) {
        self.most_rows = self.rows;
        self.total_rows = Some(self.rows);
    }

    /// The rows of the source.
    pub(super) fn rows_processed(&self) -> u64 {
        self.most_rows
    }

    /// A row was read, `bytes` of the source in this pass. `errors` is asked for only when it is told.
    #[inline]
    pub(super) fn row(&mut self, bytes: u64, errors: impl FnOnce() -> u64) -> Result<(), OperationError> {
        self.rows += 1;
        if self.rows >= self.next_rows || bytes >= self.next_bytes {
            self.next_rows = self.rows + ROWS_PER_LOOK;
            self.next_bytes = bytes + BYTES_PER_LOOK;
            return self.look(bytes, errors);
        }
        Ok(())
    }

    #[cold]
    fn look(&mut self, bytes: u64, errors: impl FnOnce() -> u64) -> Result<(), OperationError> {
        self.ctx.check_cancelled()?;
        self.most_rows = self.most_rows.max(self.rows);
        if self.last_metric.elapsed() >= METRIC_INTERVAL {
            self.last_metric = Instant::now();
            self.metrics(errors());
        }
        self.ctx.progress_with(|| self.progress(bytes));
        Ok(())
    }

    /// The run is complete.
    pub(super) fn finish(&mut self, errors: u64) {
        self.metrics(errors);
        self.ctx.progress(self.progress(self.bytes_per_pass).finished());
    }

    fn metrics(&self, errors: u64) {
        self.ctx.metric("rows_processed", self.most_rows as f64);
        self.ctx.metric("errors", errors as f64);
        let seconds = self.started.elapsed().as_secs_f64();
        let rows = self.total_rows.filter(|_| self.pass > 0).unwrap_or(0) * self.pass as u64 + self.rows;
        self.ctx.metric("rows_per_second", rows as f64 / seconds);
    }

    fn progress(&self, bytes: u64) -> Progress {
        let done = self.pass as u64 * self.bytes_per_pass + bytes;
        let total = self.passes as u64 * self.bytes_per_pass;
        Progress::ratio(done, total)
            .step(self.step())
            .remaining_seconds(remaining(self.started.elapsed(), done, total))
            .field("rows_processed", self.most_rows)
    }

    /// `Cleaning: 4500/10000 rows`. An estimate that has proved too low is not shown.
    fn step(&self) -> String {
        let mut text = match self.total_rows.filter(|total| self.rows <= *total) {
            Some(total) => format!("{}: {}/{total} rows", self.activity, self.rows),
            None => format!("{}: {} rows", self.activity, self.rows),
        };
        if self.passes > 1 {
            text += &format!(" (pass {} of {})", self.pass + 1, self.passes);
        }
        text
    }
}

/// Seconds left if the rest goes as fast; none before there is anything to go by.
fn remaining(elapsed: Duration, done: u64, total: u64) -> Option<u64> {
    (done > 0).then(|| (elapsed.as_secs_f64() * total.saturating_sub(done) as f64 / done as f64).ceil() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestRun;

    #[test]
    fn says_what_is_done_and_what_is_left() {
        let run = TestRun::new();
        let mut meter = Meter::new(run.ctx(), 2, 1000, Some(10));
        meter.begin_pass(0, "Cleaning".into()).unwrap();
        let progress = run.progress();
        assert_eq!((progress.percentage, progress.estimated_remaining_seconds), (0.0, None));
        assert_eq!(progress.current_step.unwrap(), "Cleaning: 0/10 rows (pass 1 of 2)");
        for row in 1..=20 {
            meter.row(row * 50, || 0).unwrap();
        }
        assert_eq!(meter.step(), "Cleaning: 20 rows (pass 1 of 2)");
        meter.end_pass();
        meter.begin_pass(1, "Cleaning".into()).unwrap();
        let progress = run.progress();
        assert_eq!((progress.percentage, &progress.fields["rows_processed"]), (50.0, &20.into()));
        assert_eq!(progress.current_step.unwrap(), "Cleaning: 0/20 rows (pass 2 of 2)");
        meter.finish(3);
        assert_eq!(run.progress().percentage, 100.0);
    }

    #[test]
    fn estimates_from_the_rate_so_far() {
        assert_eq!(remaining(Duration::from_secs(10), 25, 100), Some(30));
        assert_eq!(remaining(Duration::from_secs(10), 100, 100), Some(0));
        assert_eq!(remaining(Duration::from_secs(10), 0, 100), None);
    }

    #[test]
    fn a_cancel_is_seen_within_a_thousand_rows() {
        let run = TestRun::new();
        let mut meter = Meter::new(run.ctx(), 1, 1_000_000, None);
        meter.begin_pass(0, "Cleaning".into()).unwrap();
        meter.row(10, || 0).unwrap();
        run.cancel();
        let seen = (2..=1000).find(|row| meter.row(row * 10, || 0).is_err());
        assert!(seen.is_some());
    }
}

//! Folds a message into an operation. Pure: no I/O, no clock.
//!
//! The problem: what users see of an operation (status, attempts, times, progress, result) must be
//! the same at every backend and after every restart, although nothing but the messages is stored.
//!
//! How it is solved: the shared state machine, [`ktrdr_protocol::state`], decides whether an event
//! may follow. If it may, this module records the content of the event and nothing else. Times are
//! stream times, and they never go backwards. Reported progress is shown only while the operation
//! runs. The end replaces it by the progress of the last event, because some backends receive a
//! report and others do not.
//!
//! Rejected: storing reported progress. It would multiply the stream for values that are old at
//! once.

use std::sync::Arc;
use std::time::Duration;

use ktrdr_protocol::cancel::{CancelIntent, kept_reason};
use ktrdr_protocol::event::{Event, EventKind, Failure, ResultPayload};
use ktrdr_protocol::id::{CopyId, WorkerId};
use ktrdr_protocol::progress::Progress;
use ktrdr_protocol::rest::operation::{Attempt, AttemptOutcome};
use ktrdr_protocol::start_request::NamedCopy;
use ktrdr_protocol::state::{Rejected, Status};
use ktrdr_protocol::time::Timestamp;
use tokio::time::Instant;

use super::record::{CountingRequest, LatestProgress, PutBack, Record, StoredProgress};

/// Progress that a worker reported.
#[derive(Debug)]
pub struct ProgressReport<'a> {
    /// The worker that says so.
    pub worker: &'a WorkerId,
    /// The attempt it is about.
    pub attempt: u32,
    /// Its number among the attempt's reports, from 1; 0 when the worker does not count them.
    pub number: u64,
    /// When it arrived, by this backend's clock.
    pub heard_at: Timestamp,
    /// When it arrived, by the monotonic clock.
    pub heard: Instant,
    /// What it says.
    pub progress: Progress,
}

/// Takes a progress report if it is about the attempt that runs now and says something new; returns
/// whether it was taken. One that is not taken never copies the record, which readers may share.
pub fn apply_progress(record: &mut Arc<Record>, report: ProgressReport<'_>) -> bool {
    let is_accepted = record.accepts(&report);
    if is_accepted {
        Arc::make_mut(record).set_progress(report);
    }
    is_accepted
}

/// How long a report can be on its way while a later one overtakes it. A lower number counts after
/// this time, so that one report with a made-up number does not hide all that follow.
const OVERTAKEN_WITHIN: Duration = Duration::from_secs(3);

/// The code of a failure that says that a worker was lost.
const WORKER_LOST: &str = "worker_lost";

impl Record {
    /// Applies the event at `sequence`. `worker` is the shared copy of the event's worker id.
    ///
    /// # Errors
    /// [`Rejected`] when the event cannot follow; nothing is changed then.
    pub fn apply(
        &mut self,
        sequence: u64,
        event: Event,
        worker: Option<WorkerId>,
    ) -> Result<(), Rejected> {
        self.state.apply(sequence, &event)?;
        // The stream's clock may be set back; times that users see must not.
        let at = event.at.max(self.updated_at);
        self.updated_at = at;

        match event.kind {
            EventKind::Started { start_sequence, .. } => {
                self.begin_attempt(at, event.attempt, start_sequence, worker);
            }
            EventKind::Released {
                error,
                retry_at,
                copy,
                ..
            } => {
                let outcome = match &error {
                    Some(error) if error.code == WORKER_LOST => AttemptOutcome::Lost,
                    Some(_) => AttemptOutcome::Failed,
                    None => AttemptOutcome::Released,
                };
                self.end_attempt(at, outcome, error.map(|error| error.message));
                self.progress = StoredProgress::NotReported;
                if retry_at.is_some() || self.rare.is_some() {
                    self.rare_mut().retry_at = retry_at;
                }
                if let Some(copy) = copy {
                    self.name_copy(sequence, copy, true);
                }
            }
            // The model changes the queue.
            EventKind::Moved { retry_at, copy, .. } => {
                self.rare_mut().retry_at = retry_at;
                self.name_copy(sequence, copy, false);
            }
            EventKind::Completed { result, progress } => {
                self.end_attempt(at, AttemptOutcome::Completed, None);
                match result {
                    ResultPayload::Inline(result) => self.result = Some(result),
                    ResultPayload::Stored(stored) => self.rare_mut().result_ref = Some(stored),
                }
                self.finish(at, progress.map(Progress::finished));
            }
            EventKind::Failed { error, progress } => {
                let lost = error.code == WORKER_LOST;
                let outcome = if lost {
                    AttemptOutcome::Lost
                } else {
                    AttemptOutcome::Failed
                };
                self.end_attempt(at, outcome, Some(error.message.clone()));
                self.fail(error);
                self.finish(at, progress);
            }
            EventKind::Cancelled {
                forced,
                progress,
                reason,
                ..
            } => {
                self.end_attempt(at, AttemptOutcome::Cancelled, None);
                if forced {
                    self.rare_mut().forced = true;
                }
                // A backend cancels an operation that nobody runs without storing an intent first:
                // the request and its confirmation are one event.
                if worker.is_none() && self.cancel_requested_at().is_none() {
                    self.request_cancel(at, reason.as_deref());
                }
                self.finish(at, progress);
            }
        }
        Ok(())
    }

    /// Notes that the event at `sequence` names this copy. An attempt that belongs to a copy names it
    /// again when it is released; the copy stays where it is then.
    fn name_copy(&mut self, sequence: u64, id: CopyId, is_put_back: bool) {
        let rare = self.rare_mut();
        let count = match &rare.put_back {
            Some(known) if known.copy.id == id => return,
            known => known.as_ref().map_or(0, |known| known.count),
        };
        let count = count.saturating_add(is_put_back.into());
        let copy = NamedCopy {
            id,
            named_at: sequence,
        };
        rare.put_back = Some(Box::new(PutBack { copy, count }));
        rare.request = Some(CountingRequest::Missing);
    }

    /// Takes the copy at `sequence` if the log has named it and it was missing; returns whether it
    /// was taken.
    pub fn take_copy(&mut self, sequence: u64, copy: &NamedCopy) -> bool {
        let is_awaited = self.request() == CountingRequest::Missing
            && self
                .put_back()
                .is_some_and(|put_back| put_back.copy.id == copy.id);
        if is_awaited {
            self.rare_mut().request = Some(CountingRequest::Stored(sequence));
        }
        is_awaited
    }

    /// Applies a cancel intent. Only the first one counts; returns whether this is it.
    pub fn intend_cancel(&mut self, intent: &CancelIntent) -> bool {
        if self.state.status.is_terminal() || self.cancel_requested_at().is_some() {
            return false;
        }
        self.updated_at = self.updated_at.max(intent.requested_at);
        self.request_cancel(self.updated_at, intent.reason.as_deref());
        true
    }

    fn request_cancel(&mut self, at: Timestamp, reason: Option<&str>) {
        let rare = self.rare_mut();
        rare.cancel_requested_at = Some(at);
        // Whoever may publish could have stored a longer one.
        rare.cancel_reason = reason.map(|reason| kept_reason(reason).into());
    }

    /// Whether `report` is about the attempt that runs now, and says something new.
    fn accepts(&self, report: &ProgressReport<'_>) -> bool {
        let is_current = self.state.status == Status::Running
            && self.state.attempt == report.attempt
            && self.worker_id() == Some(report.worker);
        let is_new = match &self.progress {
            // Reports come in three ways, and one may overtake another. Their times say nothing
            // about their order: a worker's clock may be set while it runs.
            StoredProgress::Running(latest) => {
                let may_follow = report.number == 0
                    || report.number >= latest.number
                    || report.heard.duration_since(latest.heard) >= OVERTAKEN_WITHIN;
                may_follow && latest.progress != report.progress
            }
            _ => true,
        };
        is_current && is_new
    }

    fn set_progress(&mut self, report: ProgressReport<'_>) {
        let (last_number, last_shown_at) = match &self.progress {
            StoredProgress::Running(latest) => (latest.number, latest.shown_at),
            _ => (0, Timestamp::EPOCH),
        };
        self.progress = StoredProgress::Running(Box::new(LatestProgress {
            number: if report.number == 0 {
                last_number
            } else {
                report.number
            },
            heard: report.heard,
            shown_at: report.heard_at.max(last_shown_at),
            progress: report.progress,
        }));
    }

    fn begin_attempt(
        &mut self,
        at: Timestamp,
        attempt: u32,
        start_sequence: u64,
        worker: Option<WorkerId>,
    ) {
        let lost = "its worker was lost; another one took over".to_owned();
        self.end_attempt(at, AttemptOutcome::Lost, Some(lost));
        self.progress = StoredProgress::NotReported;
        if let Some(rare) = &mut self.rare {
            rare.retry_at = None;
            rare.runs_direct = rare.direct_start == Some(start_sequence);
        }
        let claimed = CountingRequest::Stored(start_sequence);
        if self.request() != claimed {
            self.rare_mut().request = Some(claimed);
        }

        if let Some(worker_id) = worker {
            // Nearly all operations have exactly one attempt; `push` alone would make room for
            // four.
            self.attempts.reserve_exact(1);
            self.attempts.push(Attempt {
                attempt,
                worker_id,
                started_at: at,
                ended_at: None,
                outcome: None,
                error: None,
            });
        }
    }

    fn end_attempt(&mut self, at: Timestamp, outcome: AttemptOutcome, error: Option<String>) {
        if let Some(attempt) = self.attempts.last_mut()
            && attempt.outcome.is_none()
        {
            attempt.ended_at = Some(at.max(attempt.started_at));
            attempt.outcome = Some(outcome);
            attempt.error = error;
        }
    }

    fn fail(&mut self, failure: Failure) {
        self.rare_mut().failure = Some(failure);
    }

    /// Shows the progress of the last event from now on, and no longer the reported one.
    fn finish(&mut self, at: Timestamp, last: Option<Progress>) {
        self.completed_at = Some(at);
        self.progress = match last.as_ref().map(serde_json::value::to_raw_value) {
            Some(Ok(json)) => StoredProgress::Ended(json),
            _ => StoredProgress::NotReported,
        };
    }
}

#[cfg(test)]
mod tests;

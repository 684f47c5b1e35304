//! Runs the engine of one claimed attempt, records the end, and answers the request.
//!
//! The problem: while an engine runs, four things can happen at any time. Its worker stops, a user
//! cancels, the time limit passes, or the attempt is lost. Meanwhile its reports must be sent and
//! the lease must be kept, also during the steps after the engine's end: storing a large result or
//! waiting for NATS may take longer than a lease.
//!
//! The solution: [`RunningAttempt::run`] races the work against a guard that never finishes, so the
//! lease is kept until the end is recorded, and only until then. Every reason to stop goes through
//! [`AttemptHandle::stop`]; the first one counts. The request is answered last, and only if the
//! end is in the log or the operation has ended.
//!
//! Rejected: separate tasks for guard and reports. They would outlive the attempt unless they were
//! joined on every path, and each would cost a spawn per operation.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ktrdr_protocol::event::{EventKind, Failure, ReleaseReason};
use ktrdr_protocol::execution::ExecutionLimits;
use ktrdr_protocol::log_line::LogLevel;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::progress::Progress;
use ktrdr_protocol::rest::operation::AttemptOutcome;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use serde_json::Map;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use crate::attempt::outcome::{EngineHandle, EngineOutcome, Verdict, decide_verdict};
use crate::attempt::ownership::{Guard, NotEnded, OwnedAttempt, owner_check};
use crate::attempt::results::{NotStored, store_result};
use crate::attempt::stop::{Lost, StopReason};
use crate::engine::context::{Context, Inner, Lineage};
use crate::engine::error::OperationError;
use crate::engine::events::Spoken;
use crate::engine::panics::located_steps;
use crate::pulling::lease::Lease;
use crate::reporting::checkpoint;
use crate::reporting::report::Report;
use crate::reporting::send::{flush_checkpoint, flush_metrics, send_reports};
use crate::reporting::send_logs::{count_earlier, flush_logs, send_logs};
use crate::worker::core::Core;
use crate::worker::history::LocalOperation;
use crate::worker::running::AttemptHandle;

/// How long an engine that was killed may take to return. Then its end is recorded without it.
const KILL_GRACE: Duration = Duration::from_secs(5);

/// A timer that is later than this shows that the process was suspended.
const OVERSLEPT: Duration = Duration::from_secs(1);

/// How long unsent metric points may delay the end of an operation.
const FINAL_FLUSH: Duration = Duration::from_secs(5);

/// One claimed attempt.
pub(crate) struct RunningAttempt<'a> {
    pub(crate) core: &'a Arc<Core>,
    pub(crate) request: &'a StartRequest,
    pub(crate) origin: &'a Origin,
    pub(crate) limits: ExecutionLimits,
    pub(crate) lease: &'a Lease,
    pub(crate) handle: &'a Arc<AttemptHandle>,
    pub(crate) owned: &'a OwnedAttempt,
    pub(crate) local: &'a LocalOperation,
    pub(crate) begun: Instant,
}

/// A limit in seconds; none when it is no duration.
fn seconds(limit: Option<f64>) -> Option<Duration> {
    limit.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
}

/// Resolves when the engine has given no sign of life for `limit`.
async fn stalled(report: &Report, limit: Duration) {
    let mut watched_since = Instant::now();
    loop {
        let silence = report.silence().min(watched_since.elapsed());
        let Some(left) = limit.checked_sub(silence).filter(|left| !left.is_zero()) else {
            return;
        };

        let wake_at = Instant::now() + left;
        tokio::time::sleep_until(wake_at).await;
        if wake_at.elapsed() > OVERSLEPT {
            // The whole process stood still, and the engine with it.
            watched_since = Instant::now();
        }
    }
}

/// What is known about the end of the attempt. It decides what may be said about the request.
enum Recorded {
    /// The end is in the log.
    Accepted(Verdict),
    /// The attempt was lost, so its end is not in the log.
    Lost(Lost),
    /// No end could be stored, and none of this attempt ever will be: the lease runs out.
    Nothing,
}

impl RunningAttempt<'_> {
    /// Runs the attempt until its end is recorded. Returns the engine if it did not stop: its slot
    /// stays taken until it does, whatever the log says.
    pub(crate) async fn run(&self) -> Option<EngineHandle> {
        let guard = Guard {
            core: self.core,
            handle: self.handle,
            owned: self.owned,
            lease: self.lease,
        };

        // The lease is kept until the end is recorded, whatever takes its time until then: finding
        // a checkpoint, the engine, storing points or a large result, a full stream.
        let mut unfinished_engine = None;
        let recorded = tokio::select! {
            recorded = self.work(&mut unfinished_engine) => recorded,
            never = guard.keep() => match never {},
        };

        match recorded {
            Recorded::Accepted(verdict) => {
                self.note_end(&verdict);
                self.answer_request(&verdict).await;
            }
            Recorded::Lost(lost) => self.discard_end(lost).await,
            Recorded::Nothing => {}
        }

        // A worker that stops ends its engines with the process.
        unfinished_engine.filter(|_| self.handle.stop_reason() != Some(StopReason::Shutdown))
    }

    /// Runs the engine and records how it ended. An engine that did not stop is left in
    /// `unfinished_engine`.
    async fn work(&self, unfinished_engine: &mut Option<EngineHandle>) -> Recorded {
        let kill = (self.core.info.can_be_killed).then(CancellationToken::new);
        let spoken = Spoken::of(&self.handle.report);
        let context = self.context(kill.as_ref(), &spoken.span);
        let (ctx, ()) = tokio::join!(context, self.count_earlier_lines());

        let outcome = if self.handle.stop_reason().is_some() {
            // Cancelled or lost before the engine began.
            EngineOutcome::Error(OperationError::Cancelled)
        } else {
            let mut engine = self.spawn_engine(ctx);
            let outcome = self.supervise(&mut engine, kill.as_ref()).await;
            if matches!(outcome, EngineOutcome::Abandoned) {
                *unfinished_engine = Some(engine);
            }
            outcome
        };

        if let Some(lost) = self.handle.lost() {
            return Recorded::Lost(lost);
        }

        self.flush_reports(&outcome).await;
        let verdict = decide_verdict(
            outcome,
            self.handle.stop_reason(),
            &self.limits,
            self.owned.attempt,
            self.origin,
        );
        self.record(verdict).await
    }

    async fn count_earlier_lines(&self) {
        if self.owned.attempt > 1 {
            // Boxed because it is rare.
            Box::pin(count_earlier(self.core, self.handle, self.owned)).await;
        }
    }

    async fn context(&self, kill: Option<&CancellationToken>, span: &Span) -> Context {
        Context::new(Inner {
            operation_id: self.owned.operation_id.clone(),
            attempt: self.owned.attempt,
            resumes: self.request.resumes().cloned().collect(),
            cancel: self.handle.cancel.clone(),
            kill: kill.cloned(),
            ended: self.handle.ended.clone(),
            runtime: Some(tokio::runtime::Handle::current()),
            report: self.handle.report.clone(),
            span: span.clone(),
            data_dir: self.core.data_dir.reopened(),
            lineage: Lineage {
                worker_type: self.core.info.worker_type.clone(),
                parameters: self.request.parameters.clone(),
                repeats: self.request.retry_of.is_some(),
            },
            checkpoint: checkpoint::load(self.core, self.request, self.owned, &self.handle.cancel)
                .await,
            checkpoint_interval: self.core.checkpoint_interval,
            owner: owner_check(self.core.clone(), self.handle.clone(), self.owned.clone()),
        })
    }

    fn spawn_engine(&self, ctx: Context) -> EngineHandle {
        let engine = self.core.engine.clone();
        // Within the operation's span, so that what the engine says to the worker's log names the
        // operation.
        let span = ctx.span().clone();
        let work = async move { engine.run(ctx.clone(), &ctx.lineage().parameters).await };
        self.core
            .engines
            .spawn(located_steps(work).instrument(span))
    }

    /// Waits for the engine and sends its reports meanwhile. Stops it when its time is up, or when it
    /// gives no sign of life.
    async fn supervise(
        &self,
        engine: &mut EngineHandle,
        kill: Option<&CancellationToken>,
    ) -> EngineOutcome {
        let time_limit = async {
            match seconds(self.limits.timeout_seconds) {
                Some(limit) => Box::pin(tokio::time::sleep(limit)).await,
                None => std::future::pending().await,
            }
            tracing::warn!("time limit reached; stopping the engine");
            self.tell("the time limit is reached; the engine is asked to stop");
            self.handle.stop(StopReason::Timeout);
            std::future::pending::<Infallible>().await
        };

        let stall = async {
            match seconds(self.limits.stall_timeout_seconds) {
                // Boxed because it is rare: every operation's future would have room for it.
                Some(limit) => Box::pin(stalled(&self.handle.report, limit)).await,
                None => std::future::pending().await,
            }
            tracing::warn!("the engine gives no sign of life; stopping it");
            self.tell(
                "the engine has given no sign of life for its stall timeout; it is asked to stop",
            );
            self.handle.stop(StopReason::Stalled);
            std::future::pending::<Infallible>().await
        };

        let end_of_grace = async {
            self.handle.cancel.cancelled().await;
            if self.handle.stop_reason() == Some(StopReason::Cancel) && kill.is_none() {
                // Only the engine confirms a user's cancel. If it never does, a backend forces it.
                self.handle.gone.cancelled().await;
            }
            tokio::time::sleep(self.core.stop_grace).await;

            if let Some(kill) = kill {
                tracing::warn!(grace = ?self.core.stop_grace, "the engine did not stop in time; killing it");
                self.tell("the engine did not stop in time; it is killed");
                kill.cancel();
                tokio::time::sleep(KILL_GRACE).await;
            }
        };

        // Only the first two arms finish. Dropping `send_reports` half-way is safe: reports that
        // were not confirmed are sent again by the next flush.
        tokio::select! {
            joined = engine => EngineOutcome::of(joined),
            () = end_of_grace => EngineOutcome::Abandoned,
            never = time_limit => match never {},
            never = stall => match never {},
            never = send_reports(self.core, self.handle, self.owned, self.local) => match never {},
            never = send_logs(self.core, self.handle, self.owned) => match never {},
        }
    }

    /// Says something about the attempt in its log lines.
    fn tell(&self, text: &str) {
        let logs = &self.handle.report.logs;
        logs.say(LogLevel::Warn, text, Map::new());
    }

    /// Sends what the engine reported last.
    async fn flush_reports(&self, outcome: &EngineOutcome) {
        if !matches!(outcome, EngineOutcome::Completed(_)) {
            // The next attempt resumes where this one stopped or failed.
            flush_checkpoint(self.core, self.handle, self.owned).await;
        }

        let metrics = flush_metrics(self.core, self.handle, self.owned, self.local, FINAL_FLUSH);
        let logs = async {
            // Boxed because most operations say nothing.
            if self.handle.report.logs.has_lines() {
                Box::pin(flush_logs(self.core, self.handle, self.owned)).await;
            }
        };
        let (all_stored, ()) = tokio::join!(metrics, logs);
        if !all_stored {
            tracing::warn!("metric points could not be stored in time; discarding them");
        }
    }

    /// Records how the attempt ended.
    async fn record(&self, verdict: Verdict) -> Recorded {
        self.handle.set_ending();
        let kind = match self.end_event(&verdict).await {
            Ok(kind) => kind,
            Err(NotStored::Lost(lost)) => return Recorded::Lost(lost),
            Err(NotStored::Refused(failure)) => {
                return Box::pin(self.record_failure(failure)).await;
            }
        };

        match self.owned.end(self.core, kind).await {
            Ok(()) => Recorded::Accepted(verdict),
            Err(NotEnded::Lost(lost)) => Recorded::Lost(lost),
            Err(NotEnded::Unstorable(error)) => {
                let status = verdict.status();
                tracing::error!(%error, %status, "the end of an attempt could not be stored");
                // The event itself is at fault, so the operation fails with a small one.
                let failure = Failure {
                    code: "result_too_large".to_owned(),
                    message: format!("the end of the operation could not be stored: {error}"),
                    permanent: true,
                };
                Box::pin(self.record_failure(failure)).await
            }
        }
    }

    async fn record_failure(&self, failure: Failure) -> Recorded {
        let kind = EventKind::Failed {
            error: failure.clone(),
            progress: None,
        };

        match self.owned.end(self.core, kind).await {
            Ok(()) => Recorded::Accepted(Verdict::Fail(failure)),
            Err(NotEnded::Lost(lost)) => Recorded::Lost(lost),
            Err(NotEnded::Unstorable(error)) => {
                tracing::error!(%error, "the failure of an attempt could not be stored");
                Recorded::Nothing
            }
        }
    }

    /// The event that records a verdict. A large result is stored first.
    ///
    /// # Errors
    /// [`NotStored`] when the result was not.
    async fn end_event(&self, verdict: &Verdict) -> Result<EventKind, NotStored> {
        Ok(match verdict {
            Verdict::Complete(result) => EventKind::Completed {
                result: store_result(self.core, self.owned, result).await?,
                progress: Some(self.handle.report.latest_progress().finished()),
            },
            Verdict::Fail(error) => EventKind::Failed {
                error: error.clone(),
                progress: self.progress_so_far(),
            },
            Verdict::Cancel => EventKind::Cancelled {
                forced: false,
                progress: self.progress_so_far(),
                requested_by: None,
                reason: None,
            },
            Verdict::HandBack => EventKind::Released {
                reason: ReleaseReason::Shutdown,
                error: None,
                retry_at: None,
                copy: self.request.copy_id().cloned(),
            },
            Verdict::Retry { error, delay } => EventKind::Released {
                reason: ReleaseReason::Retry,
                error: Some(error.clone()),
                retry_at: Some(Timestamp::now().plus(*delay)),
                copy: self.request.copy_id().cloned(),
            },
        })
    }

    /// The newest progress; `None` when the engine reported none.
    fn progress_so_far(&self) -> Option<Progress> {
        let (reports, progress) = self.handle.report.numbered_progress();
        (reports > 0).then_some(progress)
    }

    /// Acknowledges the request or hands it back, now that the end is in the log.
    async fn answer_request(&self, verdict: &Verdict) {
        match verdict {
            // After every other end the checkpoint is kept: another operation can resume from it.
            Verdict::Complete(_) if self.may_have_checkpoint() => {
                self.lease.ack().await;
                Box::pin(checkpoint::remove(self.core, &self.owned.operation_id)).await;
            }
            Verdict::HandBack => self.lease.nak(None).await,
            Verdict::Retry { delay, .. } => self.lease.nak(Some(*delay)).await,
            Verdict::Complete(_) | Verdict::Fail(_) | Verdict::Cancel => self.lease.ack().await,
        }
    }

    fn may_have_checkpoint(&self) -> bool {
        self.handle.report.checkpoints_made() > 0
            || self.owned.attempt > 1
            || self.request.resume_from.is_some()
    }

    /// Logs and counts a recorded end, and shows it on the worker's own REST interface.
    fn note_end(&self, verdict: &Verdict) {
        let status = verdict.status();
        self.observe_duration(verdict.outcome_label());

        match verdict {
            Verdict::Fail(error) | Verdict::Retry { error, .. } => {
                tracing::warn!(%status, code = %error.code, error = %error.message, "the attempt failed");
            }
            Verdict::Complete(_) => {
                tracing::info!("Operation completed: {}", self.owned.operation_id);
            }
            Verdict::Cancel | Verdict::HandBack => tracing::info!(%status, "the attempt ended"),
        }

        self.local.ended(|state| {
            state.status = status;
            if let Some(attempt) = state.attempts.last_mut() {
                attempt.ended_at = state.ended_at;
                attempt.outcome = Some(verdict.attempt_outcome());
            }
            match verdict {
                Verdict::Complete(result) => {
                    state.progress = std::mem::take(&mut state.progress).finished();
                    state.result = Some(result.clone());
                }
                Verdict::Fail(error) | Verdict::Retry { error, .. } => {
                    state.error = Some(error.clone());
                }
                Verdict::Cancel | Verdict::HandBack => {}
            }
        });
    }

    fn observe_duration(&self, outcome: &'static str) {
        let worker_type = self.core.worker_type.as_str();
        self.core
            .attempt_durations
            .observe(worker_type, outcome, self.begun.elapsed());
    }

    /// Discards the end of a lost attempt. Nothing is said about the request unless the operation
    /// has ended.
    async fn discard_end(&self, lost: Lost) {
        self.core.counters.fenced.inc();
        self.observe_duration("fenced");
        tracing::warn!(
            attempt = self.owned.attempt,
            terminal = lost.terminal,
            "fenced: the operation went on without this attempt; discarding its end"
        );

        let failure = Failure {
            code: "fenced".to_owned(),
            message: "the operation went on without this attempt; ask the backend for its state"
                .to_owned(),
            permanent: true,
        };
        self.local.ended(|state| {
            state.status = Status::Failed;
            state.error = Some(failure);
            if let Some(attempt) = state.attempts.last_mut() {
                attempt.ended_at = state.ended_at;
                attempt.outcome = Some(AttemptOutcome::Lost);
            }
        });

        if lost.terminal {
            self.lease.ack().await;
        }
    }
}

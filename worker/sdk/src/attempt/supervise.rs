//! One claimed attempt from the claim to the acknowledgement: run the engine, record the end, keep the lease meanwhile.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ktrdr_protocol::event::{EventKind, Failure, ReleaseReason};
use ktrdr_protocol::operation::AttemptOutcome;
use ktrdr_protocol::progress::Progress;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use tokio::time::Instant;
use tracing::Instrument;

use crate::attempt::claim::{Claimer, Ended, Hold};
use crate::attempt::execute::Job;
use crate::attempt::guard::Guard;
use crate::attempt::outcome::{EngineHandle, EngineOutcome, Verdict, decide_verdict};
use crate::attempt::ownership::owner_check;
use crate::attempt::results::store_result;
use crate::engine::context::{Context, Inner};
use crate::engine::error::OperationError;
use crate::reporting::checkpoint;
use crate::reporting::send::{flush_checkpoint, flush_metrics, send_reports};
use crate::worker::core::{Core, Counters};
use crate::worker::history::LocalOperation;
use crate::worker::running::{Execution, StopReason};

/// How long an engine may take to stop, after its time limit or when the worker stops, before its end is recorded without
/// it.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long waiting metric points may hold up the end of an operation.
const FINAL_FLUSH: Duration = Duration::from_secs(5);

/// One claimed attempt.
pub(crate) struct RunningAttempt<'a> {
    pub(crate) core: &'a Arc<Core>,
    pub(crate) job: &'a Job,
    pub(crate) execution: &'a Arc<Execution>,
    pub(crate) hold: &'a Hold,
    pub(crate) claimer: Claimer<'a>,
    pub(crate) local: &'a LocalOperation,
    pub(crate) begun: Instant,
}

/// What is known of the attempt's end, and so what may be said about its request.
enum Recorded {
    /// The end is in the log. A request that is handed back shall wait for `delay`.
    Accepted {
        verdict: Verdict,
        delay: Option<Duration>,
    },
    /// The operation went on, or ended, without this attempt.
    Fenced { terminal: bool },
    /// There is no end in the log, and there will be none of this attempt: the lease runs out.
    Nothing,
}

impl RunningAttempt<'_> {
    /// Runs it, and resolves when its slot is free again.
    pub(crate) async fn run(&self) {
        let mut engine = None;
        let guard = Guard {
            core: self.core,
            execution: self.execution,
            hold: self.hold,
            lease: &self.job.lease,
            claimer: &self.claimer,
        };
        // The lease is kept until the end is recorded, whatever takes its time: a checkpoint that has to be looked for, the
        // engine, points that cannot be stored, a large result, a full stream. Only what ends the lease comes after it.
        let recorded = tokio::select! {
            recorded = self.work(&mut engine) => recorded,
            never = guard.keep() => match never {},
        };
        match recorded {
            Recorded::Accepted { verdict, delay } => {
                self.note(&verdict);
                self.answer_request(&verdict, delay).await;
            }
            Recorded::Fenced { terminal } => self.fenced(terminal).await,
            Recorded::Nothing => {}
        }
        if let Some(engine) = engine
            && self.execution.stop_reason() == Some(StopReason::Timeout)
            && !engine.is_finished()
        {
            // The slot is taken for as long as the engine is at work, whatever the log says.
            let _ = engine.await;
        }
    }

    /// Runs the engine and records how that ended. An engine that did not end is left in `engine`.
    async fn work(&self, engine: &mut Option<EngineHandle>) -> Recorded {
        let ctx = Context::new(Inner {
            operation_id: self.hold.operation_id.clone(),
            attempt: self.hold.attempt,
            cancel: self.execution.cancel.clone(),
            report: self.execution.report.clone(),
            data_dir: self.core.data_dir.clone(),
            checkpoint: checkpoint::load(
                self.core,
                &self.job.request,
                self.hold,
                &self.execution.cancel,
            )
            .await,
            checkpoint_interval: self.core.checkpoint_interval,
            owner: owner_check(self.core.clone(), self.execution.clone(), self.hold.clone()),
        });
        let outcome = if self.execution.stop_reason().is_some() {
            // Cancelled, or taken over, before it began.
            EngineOutcome::Error(OperationError::Cancelled)
        } else {
            let mut running = self.spawn_engine(ctx);
            let outcome = self.supervise(&mut running).await;
            if matches!(outcome, EngineOutcome::Abandoned) {
                *engine = Some(running);
            }
            outcome
        };
        let reason = self.execution.stop_reason();
        if let Some(StopReason::Fenced { terminal }) = reason {
            return Recorded::Fenced { terminal };
        }
        if !matches!(outcome, EngineOutcome::Completed(_)) {
            // Whoever goes on does so where this one was told to stop, or failed.
            flush_checkpoint(self.core, self.execution, self.hold).await;
        }
        if !flush_metrics(
            self.core,
            self.execution,
            self.hold,
            self.local,
            FINAL_FLUSH,
        )
        .await
        {
            tracing::warn!("metric points could not be stored in time; giving them up");
        }
        let request = &self.job.request;
        let queued = !self.job.origin.is_direct();
        self.record(decide_verdict(
            outcome,
            reason,
            &request.execution,
            self.hold.attempt,
            queued,
        ))
        .await
    }

    fn spawn_engine(&self, ctx: Context) -> EngineHandle {
        let engine = self.core.engine.clone();
        let parameters = self.job.request.parameters.clone();
        // In the operation's span: an engine's own log lines name it, too.
        self.core
            .engines
            .spawn(async move { engine.run(ctx, &parameters).await }.in_current_span())
    }

    /// Waits for the engine, meanwhile sends its reports, and stops it when its time is up.
    async fn supervise(&self, engine: &mut EngineHandle) -> EngineOutcome {
        let limit = self
            .job
            .request
            .execution
            .timeout_seconds
            .and_then(|s| Duration::try_from_secs_f64(s).ok());
        let time_limit = async {
            match limit {
                Some(limit) => tokio::time::sleep(limit).await,
                None => std::future::pending().await,
            }
            tracing::warn!("time limit reached; stopping the engine");
            self.execution.stop(StopReason::Timeout);
            std::future::pending::<Infallible>().await
        };
        let patience = async {
            self.execution.cancel.cancelled().await;
            match self.execution.stop_reason() {
                Some(StopReason::Timeout | StopReason::Shutdown) => {
                    tokio::time::sleep(STOP_GRACE).await
                }
                // A user's cancel is confirmed only by the engine; should it never be, a backend decides.
                _ => std::future::pending().await,
            }
        };
        // Only the engine's end and the end of patience complete. What the sending of reports leaves half-done when it is
        // dropped is repeated with the next one.
        tokio::select! {
            joined = engine => EngineOutcome::of(joined),
            () = patience => EngineOutcome::Abandoned,
            never = time_limit => match never {},
            never = send_reports(self.core, self.execution, self.hold, self.local) => match never {},
        }
    }

    /// Records how the attempt ended.
    async fn record(&self, verdict: Verdict) -> Recorded {
        let (kind, delay) = match self.event(&verdict).await {
            Ok(event) => event,
            Err(ended) => return Recorded::of(ended, verdict, None),
        };
        match self.claimer.end(self.hold, kind).await {
            Ok(ended) => Recorded::of(ended, verdict, delay),
            Err(error) => {
                // The event itself is at fault, so the operation fails with a small one.
                let status = verdict.status();
                let message = format!("the end of the operation could not be stored: {error}");
                tracing::error!(%error, %status, "an end could not be stored");
                let failure = Failure {
                    code: "result_too_large".to_owned(),
                    message,
                    permanent: true,
                };
                let kind = EventKind::Failed {
                    error: failure.clone(),
                    progress: None,
                };
                match Box::pin(self.claimer.end(self.hold, kind)).await {
                    Ok(ended) => Recorded::of(ended, Verdict::Fail(failure), None),
                    Err(error) => {
                        tracing::error!(%error, "not even a failure could be stored");
                        Recorded::Nothing
                    }
                }
            }
        }
    }

    /// The event for a verdict, and how long a request that is handed back shall wait. A large result is stored first, and
    /// `Err` says that another attempt took over meanwhile.
    async fn event(&self, verdict: &Verdict) -> Result<(EventKind, Option<Duration>), Ended> {
        Ok(match verdict {
            Verdict::Complete(result) => {
                let result = store_result(self.core, self.hold, &self.claimer, result).await?;
                let progress = Some(self.execution.report.latest_progress().finished());
                (EventKind::Completed { result, progress }, None)
            }
            Verdict::Fail(error) => (
                EventKind::Failed {
                    error: error.clone(),
                    progress: self.progress_so_far(),
                },
                None,
            ),
            Verdict::Cancel => (
                EventKind::Cancelled {
                    forced: false,
                    progress: self.progress_so_far(),
                },
                None,
            ),
            Verdict::HandBack => (
                EventKind::Released {
                    reason: ReleaseReason::Shutdown,
                    error: None,
                    retry_at: None,
                },
                None,
            ),
            Verdict::Retry { error, delay } => {
                let retry_at = Some(Timestamp::now().plus(*delay));
                let kind = EventKind::Released {
                    reason: ReleaseReason::Retry,
                    error: Some(error.clone()),
                    retry_at,
                };
                (kind, Some(*delay))
            }
        })
    }

    /// The newest progress, if there was any.
    fn progress_so_far(&self) -> Option<Progress> {
        let (reports, progress) = self.execution.report.numbered_progress();
        (reports > 0).then_some(progress)
    }

    /// Acknowledges the request or hands it back, now that the end is in the log.
    async fn answer_request(&self, verdict: &Verdict, delay: Option<Duration>) {
        match verdict {
            // Kept for every other end: the operation can be resumed from it.
            Verdict::Complete(_) if self.may_have_checkpoint() => {
                self.job.lease.ack().await;
                Box::pin(checkpoint::remove(self.core, &self.hold.operation_id)).await;
            }
            Verdict::HandBack => self.job.lease.nak(None).await,
            Verdict::Retry { .. } => self.job.lease.nak(delay).await,
            _ => self.job.lease.ack().await,
        }
    }

    fn may_have_checkpoint(&self) -> bool {
        self.execution.report.checkpoints_made() > 0
            || self.hold.attempt > 1
            || self.job.request.resume_from.is_some()
    }

    fn note(&self, verdict: &Verdict) {
        let status = verdict.status();
        self.measure(verdict.outcome());
        match verdict {
            Verdict::Fail(error) | Verdict::Retry { error, .. } => {
                tracing::warn!(%status, code = %error.code, error = %error.message, "the attempt failed");
            }
            Verdict::Complete(_) => tracing::info!("operation completed"),
            _ => tracing::info!(%status, "the attempt ended"),
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
                    state.error = Some(error.clone())
                }
                Verdict::Cancel | Verdict::HandBack => {}
            }
        });
    }

    fn measure(&self, outcome: &str) {
        let kind = self.core.worker_type.as_str();
        self.core
            .attempts
            .observe_duration([kind, outcome], self.begun.elapsed());
    }

    /// This attempt is no longer the operation's: its end is discarded, and nothing is said about the request unless the
    /// operation has ended.
    async fn fenced(&self, terminal: bool) {
        Counters::add(&self.core.counters.fenced);
        self.measure("fenced");
        tracing::warn!(
            attempt = self.hold.attempt,
            terminal,
            "fenced: the operation went on without this attempt; discarding its end"
        );
        self.local.ended(|state| {
            state.status = Status::Failed;
            state.error = Some(Failure {
                code: "fenced".to_owned(),
                message:
                    "the operation went on without this attempt; ask the backend for its state"
                        .to_owned(),
                permanent: true,
            });
            if let Some(attempt) = state.attempts.last_mut() {
                attempt.ended_at = state.ended_at;
                attempt.outcome = Some(AttemptOutcome::Lost);
            }
        });
        if terminal {
            self.job.lease.ack().await;
        }
    }
}

impl Recorded {
    fn of(ended: Ended, verdict: Verdict, delay: Option<Duration>) -> Self {
        match ended {
            Ended::Accepted => Self::Accepted { verdict, delay },
            Ended::Fenced { terminal } => Self::Fenced { terminal },
        }
    }
}

//! One operation from its start request to the acknowledgement: claim, run the engine, keep the lease, record the end.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use ktrdr_shared::claim::Delivery as Delivered;
use ktrdr_shared::event::{EventKind, Failure, ReleaseReason};
use ktrdr_shared::id::Queue;
use ktrdr_shared::operation::{Attempt, AttemptOutcome, StartRequest};
use ktrdr_shared::oplog::AppendError;
use ktrdr_shared::state::Status;
use ktrdr_shared::telemetry::chain;
use ktrdr_shared::time::Timestamp;
use ktrdr_shared::trace::TraceParent;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Instrument;

use crate::checkpoint;
use crate::claim::{ClaimError, Claimed, Claimer, Ended, Hold};
use crate::context::{Context, Inner};
use crate::core::{Core, Counters};
use crate::guard::Guard;
use crate::lease::Lease;
use crate::local::LocalOperation;
use crate::outcome::{EngineHandle, EngineOutcome, Verdict, decide_verdict};
use crate::ownership::owner_check;
use crate::pull::{Delivery, Slot};
use crate::results::store_result;
use crate::running::{Execution, StopReason, register};
use crate::send_report::{flush_checkpoint, flush_metrics, send_reports};

/// How long an engine may take to stop, after its time limit or when the worker stops, before its end is recorded without
/// it.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long waiting metric points may hold up the end of an operation.
const FINAL_FLUSH: Duration = Duration::from_secs(5);

/// A start request with everything needed to run it.
pub(crate) struct Job {
    #[expect(dead_code, reason = "held for as long as the job lives; giving it back is its drop")]
    pub(crate) slot: Slot,
    pub(crate) queue: Queue,
    pub(crate) request: StartRequest,
    pub(crate) delivery: Delivered,
    pub(crate) lease: Lease,
    /// Told once whether the operation was claimed: a direct start answers then.
    pub(crate) claimed: Option<oneshot::Sender<bool>>,
    /// The trace that the start belongs to.
    pub(crate) trace: Option<TraceParent>,
}

/// Runs a delivered request. A payload that is no start request is removed from the queue: no operation exists for it.
pub(crate) async fn run_delivery(core: Arc<Core>, delivery: Delivery) {
    let Delivery { slot, queue, payload, delivery, lease, trace } = delivery;
    let start_sequence = delivery.start_sequence;
    match serde_json::from_slice::<StartRequest>(&payload) {
        Ok(request) if request.operation_type == core.worker_type => {
            run_job(core, Job { slot, queue, request, delivery, lease, claimed: None, trace }).await;
        }
        Ok(request) => {
            Counters::add(&core.counters.malformed);
            tracing::warn!(start_sequence, operation_type = %request.operation_type, "a start request for another worker type was queued here; removed");
            lease.terminate().await;
        }
        Err(error) => {
            Counters::add(&core.counters.malformed);
            tracing::warn!(start_sequence, %error, "a message in the queue is no start request; removed");
            lease.terminate().await;
        }
    }
}

/// Claims and runs an operation, and resolves when its slot is free again.
///
/// Not an `async fn` itself: that would hold the whole future twice, and it is moved and cleared for every operation.
pub(crate) fn run_job(core: Arc<Core>, job: Job) -> impl Future<Output = ()> + Send {
    let span = tracing::info_span!(
        "operation",
        operation_id = %job.request.operation_id,
        trace_id = tracing::field::Empty,
    );
    if let Some(trace) = &job.trace {
        span.record("trace_id", trace.trace_id());
    }
    run(core, job).instrument(span)
}

async fn run(core: Arc<Core>, mut job: Job) {
    let execution = Arc::new(Execution::new(job.request.operation_id.clone()));
    let registered = register(&core, execution.clone());
    // Before the claim: as soon as others see the operation running, this worker can be asked about it.
    let local = core.local.insert(job.request.clone(), job.queue.to_string(), execution.clone());
    let claimer = Claimer { oplog: &core.oplog, worker_type: &core.worker_type, worker_id: &core.worker_id };
    let hold = claim(&claimer, &job).await;
    if let Some(reply) = job.claimed.take() {
        let _ = reply.send(hold.is_some());
    }
    let Some(hold) = hold else { return core.local.remove(&local) };
    execution.claimed(hold.attempt);
    Counters::add(&core.counters.started);
    core.changed.notify_one();
    tracing::info!(attempt = hold.attempt, queue = %job.queue, "operation started");
    local.started(Attempt {
        attempt: hold.attempt,
        worker_id: core.worker_id.clone(),
        started_at: Timestamp::now(),
        ended_at: None,
        outcome: None,
        error: None,
    });
    let running = RunningAttempt {
        core: &core,
        job: &job,
        execution: &execution,
        hold: &hold,
        claimer,
        local: &local,
        begun: Instant::now(),
    };
    running.run().await;
    drop(registered);
    Counters::add(&core.counters.finished);
}

/// Claims the operation; `None` when it is not this worker's to run, and the request has been answered as far as it may be.
async fn claim(claimer: &Claimer<'_>, job: &Job) -> Option<Hold> {
    match claimer.claim(&job.request, job.delivery, job.lease.duration()).await {
        Ok(Claimed::Hold(hold)) => return Some(hold),
        Ok(Claimed::Nothing(why)) => {
            tracing::info!(why, "nothing to run");
            job.lease.ack().await;
        }
        Ok(Claimed::Later(delay)) => job.lease.nak(Some(delay)).await,
        Ok(Claimed::Outdated) => {
            tracing::warn!("this delivery is outdated: the request was given to another worker since");
        }
        Err(error) => {
            // Saying anything about the request could hit another worker's attempt. It comes again when the lease ends.
            tracing::warn!(error = chain(&error), "the claim is undecided; leaving the request alone");
            if matches!(error, ClaimError::Append(AppendError::Full(_))) && !job.lease.is_stale() {
                job.lease.nak(Some(Duration::from_secs(1))).await;
            }
        }
    }
    None
}

/// One claimed attempt.
struct RunningAttempt<'a> {
    core: &'a Arc<Core>,
    job: &'a Job,
    execution: &'a Arc<Execution>,
    hold: &'a Hold,
    claimer: Claimer<'a>,
    local: &'a LocalOperation,
    begun: Instant,
}

impl RunningAttempt<'_> {
    async fn run(&self) {
        let Some(mut engine) = self.spawn_engine().await else {
            return tracing::warn!("the worker is stopping; leaving the operation to the next one");
        };
        let outcome = self.supervise(&mut engine).await;
        let abandoned = matches!(outcome, EngineOutcome::Abandoned);
        match self.execution.stop_reason() {
            Some(StopReason::Fenced { terminal }) => self.fenced(terminal).await,
            reason => {
                if !matches!(outcome, EngineOutcome::Completed(_)) {
                    // Whoever goes on does so where this one was told to stop, or failed.
                    flush_checkpoint(self.core, self.execution, self.hold).await;
                }
                if !flush_metrics(self.core, self.execution, self.hold, self.local, FINAL_FLUSH).await {
                    tracing::warn!("metric points could not be stored in time; giving them up");
                }
                let verdict = decide_verdict(
                    outcome,
                    reason,
                    &self.job.request.execution,
                    self.hold.attempt,
                    self.job.lease.is_queued(),
                );
                self.record(verdict).await;
                if abandoned && reason == Some(StopReason::Timeout) {
                    // The slot is taken for as long as the engine is at work, whatever the log says.
                    let _ = engine.await;
                }
            }
        }
    }

    fn guard(&self) -> Guard<'_> {
        Guard {
            core: self.core,
            execution: self.execution,
            hold: self.hold,
            lease: &self.job.lease,
            claimer: &self.claimer,
        }
    }

    async fn spawn_engine(&self) -> Option<EngineHandle> {
        let ctx = Context::new(Inner {
            operation_id: self.hold.operation_id.clone(),
            attempt: self.hold.attempt,
            cancel: self.execution.cancel.clone(),
            report: self.execution.report.clone(),
            data_dir: self.core.data_dir.clone(),
            checkpoint: checkpoint::load(self.core, &self.job.request, self.hold).await,
            checkpoint_interval: self.core.checkpoint_interval,
            owner: owner_check(self.core.clone(), self.execution.clone(), self.hold.clone()),
        });
        let engine = self.core.engine.clone();
        let parameters = self.job.request.parameters.clone();
        // In the operation's span: an engine's own log lines name it, too.
        self.core.engines.spawn(async move { engine.run(ctx, &parameters).await }.in_current_span())
    }

    /// Waits for the engine, meanwhile sends its reports, keeps the lease, and stops it when its time is up.
    async fn supervise(&self, engine: &mut EngineHandle) -> EngineOutcome {
        let guard = self.guard();
        let limit = self.job.request.execution.timeout_seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
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
                Some(StopReason::Timeout | StopReason::Shutdown) => tokio::time::sleep(STOP_GRACE).await,
                // A user's cancel is confirmed only by the engine; should it never be, a backend decides.
                _ => std::future::pending().await,
            }
        };
        // Only the engine's end and the end of patience complete. What the others leave half-done when they are dropped is
        // repeated: a report is sent with the next one, a lease extension that was not confirmed does not count.
        tokio::select! {
            joined = engine => EngineOutcome::of(joined),
            () = patience => EngineOutcome::Abandoned,
            never = time_limit => match never {},
            never = send_reports(self.core, self.execution, self.hold, self.local) => match never {},
            never = guard.keep() => match never {},
        }
    }

    /// Records how the attempt ended; only then is the request acknowledged or handed back.
    async fn record(&self, verdict: Verdict) {
        let status = verdict.status();
        let guard = self.guard();
        let storing = async {
            let (kind, delay) = match self.event(&verdict).await {
                Ok(event) => event,
                Err(fenced) => return (Ok(fenced), None),
            };
            (self.claimer.end(self.hold, kind).await, delay)
        };
        // A full stream or a large result can take longer than the lease; nobody shall run it again meanwhile.
        let (stored, delay) = tokio::select! {
            stored = storing => stored,
            never = guard.keep() => match never {},
        };
        let ended = match stored {
            Ok(ended) => ended,
            Err(error) => {
                // The event itself is at fault, so the operation fails with a small one.
                let message = format!("the end of the operation could not be stored: {error}");
                tracing::error!(%error, %status, "an end could not be stored");
                let failure = Failure { code: "result_too_large".to_owned(), message, permanent: true };
                let verdict = Verdict::Fail(failure.clone());
                match Box::pin(self.claimer.end(self.hold, EventKind::Failed { error: failure })).await {
                    Ok(ended) => return self.ended(ended, &verdict, None).await,
                    Err(error) => return tracing::error!(%error, "not even a failure could be stored"),
                }
            }
        };
        self.ended(ended, &verdict, delay).await;
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
            Verdict::Fail(error) => (EventKind::Failed { error: error.clone() }, None),
            Verdict::Cancel => (EventKind::Cancelled { forced: false }, None),
            Verdict::HandBack => {
                (EventKind::Released { reason: ReleaseReason::Shutdown, error: None, retry_at: None }, None)
            }
            Verdict::Retry { error, delay } => {
                let retry_at = Some(Timestamp::now().plus(*delay));
                let kind = EventKind::Released { reason: ReleaseReason::Retry, error: Some(error.clone()), retry_at };
                (kind, Some(*delay))
            }
        })
    }

    async fn ended(&self, ended: Ended, verdict: &Verdict, delay: Option<Duration>) {
        match ended {
            Ended::Fenced { terminal } => self.fenced(terminal).await,
            Ended::Accepted => {
                self.note(verdict);
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
        }
    }

    fn may_have_checkpoint(&self) -> bool {
        self.execution.report.checkpoints_made() > 0 || self.hold.attempt > 1 || self.job.request.resume_from.is_some()
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
                Verdict::Fail(error) | Verdict::Retry { error, .. } => state.error = Some(error.clone()),
                Verdict::Cancel | Verdict::HandBack => {}
            }
        });
    }

    fn measure(&self, outcome: &str) {
        let kind = self.core.worker_type.as_str();
        self.core.attempts.observe_duration([kind, outcome], self.begun.elapsed());
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
                message: "the operation went on without this attempt; ask the backend for its state".to_owned(),
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

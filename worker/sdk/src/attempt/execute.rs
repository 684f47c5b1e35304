//! One operation from its start request to its attempt: what a request is, and claiming it. See [`crate::attempt::supervise`] for the
//! rest.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ktrdr_bus::oplog::AppendError;
use ktrdr_bus::telemetry::{chain, short};
use ktrdr_protocol::claim::DeliveryInfo as Delivered;
use ktrdr_protocol::operation::Attempt;
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::trace::TraceParent;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Instrument;

use crate::attempt::claim::{ClaimError, Claimed, Claimer, Hold};
use crate::attempt::supervise::RunningAttempt;
use crate::pulling::lease::Lease;
use crate::pulling::pull::{Delivery, Slot};
use crate::worker::core::{Core, Counters};
use crate::worker::running::Execution;

/// A start request with everything needed to run it.
pub(crate) struct Job {
    #[expect(
        dead_code,
        reason = "held for as long as the job lives; giving it back is its drop"
    )]
    pub(crate) slot: Slot,
    pub(crate) origin: Origin,
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
    let Delivery {
        slot,
        queue,
        payload,
        delivery,
        lease,
        trace,
    } = delivery;
    let start_sequence = delivery.start_sequence;
    match serde_json::from_slice::<StartRequest>(&payload) {
        Ok(request) if request.operation_type == core.worker_type => {
            run_job(
                core,
                Job {
                    slot,
                    origin: Origin::Queued(queue),
                    request,
                    delivery,
                    lease,
                    claimed: None,
                    trace,
                },
            )
            .await;
        }
        Ok(request) => {
            Counters::add(&core.counters.malformed);
            tracing::warn!(start_sequence, operation_type = %request.operation_type, "a start request for another worker type was queued here; removed");
            lease.terminate().await;
        }
        Err(error) => {
            Counters::add(&core.counters.malformed);
            tracing::warn!(
                start_sequence,
                error = short(&error),
                "a message in the queue is no start request; removed"
            );
            lease.terminate().await;
        }
    }
}

/// Claims and runs an operation, and resolves when its slot is free again.
///
/// Boxed: what is spawned is moved several times before it runs, and this one is large.
pub(crate) fn run_job(core: Arc<Core>, job: Job) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let span = tracing::info_span!(
        "operation",
        operation_id = %job.request.operation_id,
        trace_id = tracing::field::Empty,
    );
    if let Some(trace) = &job.trace {
        span.record("trace_id", trace.trace_id());
    }
    Box::pin(run(core, job).instrument(span))
}

async fn run(core: Arc<Core>, mut job: Job) {
    let execution = Arc::new(Execution::new(job.request.operation_id.clone()));
    let registered = Registered::new(&core, execution.clone());
    // Before the claim: as soon as others see the operation running, this worker can be asked about it.
    let local = core.local.insert(
        job.request.clone(),
        job.origin.to_string(),
        execution.clone(),
    );
    let claimer = Claimer { core: &core };
    let hold = claim(&claimer, &job).await;
    if let Some(reply) = job.claimed.take() {
        let _ = reply.send(hold.is_some());
    }
    let Some(hold) = hold else {
        return core.local.remove(&local);
    };
    execution.claimed(hold.attempt);
    Counters::add(&core.counters.started);
    core.changed.notify_one();
    tracing::info!(attempt = hold.attempt, queue = %job.origin, "operation started");
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

/// An execution in the table of those that run; taken out when dropped. Heartbeats tell both.
struct Registered {
    core: Arc<Core>,
    number: u64,
}

impl Registered {
    fn new(core: &Arc<Core>, execution: Arc<Execution>) -> Self {
        let number = core.running.insert(execution);
        core.changed.notify_one();
        Self {
            core: core.clone(),
            number,
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.core.running.remove(self.number);
        self.core.changed.notify_one();
    }
}

/// Claims the operation; `None` when it is not this worker's to run, and the request has been answered as far as it may be.
async fn claim(claimer: &Claimer<'_>, job: &Job) -> Option<Hold> {
    match claimer
        .claim(&job.request, job.delivery, job.lease.duration())
        .await
    {
        Ok(Claimed::Hold(hold)) => return Some(hold),
        Ok(Claimed::Nothing(why)) => {
            tracing::info!(why, "nothing to run");
            job.lease.ack().await;
        }
        Ok(Claimed::Later(delay)) => job.lease.nak(Some(delay)).await,
        Ok(Claimed::Outdated) => {
            tracing::warn!(
                "this delivery is outdated: the request was given to another worker since"
            );
        }
        Err(error) => {
            // Saying anything about the request could hit another worker's attempt. It comes again when the lease ends.
            tracing::warn!(
                error = chain(&error),
                "the claim is undecided; leaving the request alone"
            );
            if matches!(error, ClaimError::Append(AppendError::Full(_))) {
                job.lease.nak(Some(Duration::from_secs(1))).await;
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, F: Future>(_: fn(Arc<Core>, A) -> F) -> usize {
        std::mem::size_of::<F>()
    }

    #[test]
    fn the_futures_of_an_operation_are_small() {
        // Made for every operation, however short; what is rare is boxed.
        let size = size_of_future(run);
        assert!(size <= 5 * 1024, "{size} bytes");
        // Moved several times while it is spawned.
        let size = size_of_future(run_delivery);
        assert!(size <= 2560, "{size} bytes");
    }
}

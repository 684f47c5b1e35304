//! From a start request in a slot to a free slot: registers the attempt, claims the operation, and
//! runs it. [`crate::attempt::supervise`] does the running.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use ktrdr_bus::oplog::AppendError;
use ktrdr_bus::telemetry::{Repeated, chain, short};
use ktrdr_protocol::claim::{DeliveryInfo, Terms};
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::rest::operation::Attempt;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::trace::TraceParent;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::Instrument;

use crate::attempt::claim::{ClaimError, Claimed, claim};
use crate::attempt::outcome::EngineHandle;
use crate::attempt::ownership::OwnedAttempt;
use crate::attempt::supervise::RunningAttempt;
use crate::attempt::trust;
use crate::attempt::version;
use crate::pulling::lease::Lease;
use crate::pulling::puller::{PulledRequest, Slot};
use crate::worker::config::RestRoutes;
use crate::worker::core::Core;
use crate::worker::running::AttemptHandle;

/// Lines about start requests for another worker type.
static OTHER_TYPE: Repeated = Repeated::new();

/// Lines about messages that are no start request.
static NO_REQUEST: Repeated = Repeated::new();

/// A start request with everything needed to run it here.
pub(crate) struct Assignment {
    #[expect(
        dead_code,
        reason = "dropping it returns the slot, so it lives as long as the assignment"
    )]
    pub(crate) slot: Slot,
    pub(crate) origin: Origin,
    pub(crate) request: StartRequest,
    pub(crate) delivery: DeliveryInfo,
    pub(crate) lease: Lease,
    /// Receives once whether the operation was claimed; a direct start then answers its caller.
    pub(crate) claimed: Option<oneshot::Sender<bool>>,
    /// The trace that the start belongs to.
    pub(crate) trace: Option<TraceParent>,
}

/// Runs a pulled request. A payload that is not a start request is removed from the queue, because
/// no operation exists for it.
pub(crate) async fn run_pulled_request(core: Arc<Core>, pulled: PulledRequest) {
    let PulledRequest {
        slot,
        queue,
        payload,
        delivery,
        stored_at,
        lease,
        trace,
        proof,
    } = pulled;
    let start_sequence = delivery.start_sequence;

    match serde_json::from_slice::<StartRequest>(&payload) {
        Ok(mut request) if request.operation_type == core.worker_type => {
            // Its times count from here, whatever the clock of its publisher says.
            request.created_at = stored_at;
            // Boxed because it is rare: every operation's future would otherwise have room for it.
            if core.trusted.is_some()
                && let Err(why) =
                    Box::pin(trust::check(&core, &queue, &request, &payload, proof)).await
            {
                return Box::pin(trust::refuse(&core, &request, delivery, &lease, why)).await;
            }
            if version::may_misfit(&core, &request)
                && Box::pin(version::hand_back_misfit(&core, &request, delivery, &lease)).await
            {
                return;
            }
            let assignment = Assignment {
                slot,
                origin: Origin::Queued(queue),
                request,
                delivery,
                lease,
                claimed: None,
                trace,
            };
            run_assignment(core, assignment).await;
        }
        Ok(request) => {
            core.counters.malformed.inc();
            if let Some(count) = OTHER_TYPE.note() {
                tracing::warn!(
                    start_sequence,
                    operation_type = %request.operation_type,
                    count,
                    "removed a start request for another worker type from the queue"
                );
            }
            Box::pin(lease.terminate()).await;
        }
        Err(error) => {
            core.counters.malformed.inc();
            if let Some(count) = NO_REQUEST.note() {
                tracing::warn!(
                    start_sequence,
                    error = short(&error),
                    count,
                    "removed a message that is not a start request from the queue"
                );
            }
            Box::pin(lease.terminate()).await;
        }
    }
}

/// Claims and runs an operation. Resolves when its slot is free again.
///
/// Boxed, because a spawned future is moved several times before it runs, and this one is large.
pub(crate) fn run_assignment(
    core: Arc<Core>,
    assignment: Assignment,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    let span = tracing::info_span!(
        "operation",
        operation_id = %assignment.request.operation_id,
        trace_id = tracing::field::Empty,
    );
    if let Some(trace) = &assignment.trace {
        span.record("trace_id", trace.trace_id());
    }

    Box::pin(claim_and_run(core, assignment).instrument(span))
}

async fn claim_and_run(core: Arc<Core>, mut assignment: Assignment) {
    let limits = assignment
        .request
        .execution
        .limits(&core.info.execution_defaults);
    let id = assignment.request.operation_id.clone();
    let handle = Arc::new(AttemptHandle::new(id, core.log_limits));
    let registered = Registered::new(&core, handle.clone());
    // Before the claim: as soon as others see the operation running, they can ask this worker.
    let local = core.local.insert(
        assignment.request.clone(),
        assignment.origin.clone(),
        handle.clone(),
    );

    let owned = claim_assignment(&core, &assignment, limits.max_attempts).await;
    if let Some(reply) = assignment.claimed.take() {
        let _ = reply.send(owned.is_some());
    }
    let Some(owned) = owned else {
        return core.local.remove(&local);
    };

    handle.set_claimed(owned.attempt);
    core.counters.started.inc();
    core.changed.notify_one();
    tracing::info!(
        attempt = owned.attempt, queue = %assignment.origin,
        "Starting operation: {}", owned.operation_id
    );
    local.started(Attempt {
        attempt: owned.attempt,
        worker_id: core.worker_id.clone(),
        started_at: Timestamp::now(),
        ended_at: None,
        outcome: None,
        error: None,
    });

    let running = RunningAttempt {
        core: &core,
        request: &assignment.request,
        origin: &assignment.origin,
        limits,
        lease: &assignment.lease,
        handle: &handle,
        owned: &owned,
        local: &local,
        begun: Instant::now(),
    };
    let unfinished_engine = running.run().await;

    drop(registered);
    if let Some(limited) = &assignment.request.execution.concurrency {
        core.permits.has_changed(&limited.key);
    }
    if core.routes == RestRoutes::Health {
        // Nobody can ask for it any more.
        core.local.remove(&local);
    }
    core.counters.finished.inc();
    if let Some(engine) = unfinished_engine {
        // Boxed because it is rare: every operation's future would otherwise have room for it.
        Box::pin(wait_for_slot(&core, engine)).await;
    }
}

/// Waits for an engine that ignores that its attempt is over. Its slot counts as lost until then.
async fn wait_for_slot(core: &Core, engine: EngineHandle) {
    if engine.is_finished() {
        return;
    }

    let slot = core.lost_slots.add();
    core.changed.notify_one();
    tracing::warn!(
        lost_slots = core.lost_slots.count(),
        slots = core.slots,
        "the engine does not return although its attempt is over: its slot takes no work until it does. Restart the worker to have the slot back"
    );

    tokio::select! {
        // Its result comes too late, whatever it is.
        _ = engine => {}
        () = core.lost_slots.given_up() => return,
    }
    drop(slot);
    core.changed.notify_one();
    tracing::info!("the engine has returned; its slot is free again");
}

/// Claims the operation. `None` when it is not this worker's to run; the request has then been
/// answered as far as it may be.
async fn claim_assignment(
    core: &Core,
    assignment: &Assignment,
    max_attempts: u32,
) -> Option<OwnedAttempt> {
    let Assignment { request, lease, .. } = assignment;
    let terms = match assignment.origin {
        Origin::Queued(_) => Terms::of(request, request.created_at, max_attempts),
        // It begins at once, and its time of creation is by this machine's clock.
        Origin::Direct => Terms::new(request.copy_id(), max_attempts),
    };
    let claimed = claim(core, request, assignment.delivery, terms, lease).await;

    match claimed {
        Ok(Claimed::Owned(owned)) => return Some(owned),
        Ok(Claimed::NothingToRun(why)) => {
            tracing::info!(why, "nothing to run");
            lease.ack().await;
        }
        Ok(Claimed::Later(delay)) => lease.nak(Some(delay)).await,
        Ok(Claimed::Outdated) => {
            tracing::warn!(
                "this delivery is outdated: the request was given to another worker since"
            );
        }
        Err(error) => {
            // Whatever is said about the request could hit another worker's attempt. It is
            // delivered again when the lease ends.
            tracing::warn!(
                error = chain(&error),
                "the claim is undecided; leaving the request alone"
            );
            if matches!(error, ClaimError::Append(AppendError::Full(_))) {
                lease.nak(Some(Duration::from_secs(1))).await;
            }
        }
    }
    None
}

/// Keeps an attempt in the table of running ones until dropped. Heartbeats report both changes.
struct Registered {
    core: Arc<Core>,
    handle: Arc<AttemptHandle>,
    number: u64,
}

impl Registered {
    fn new(core: &Arc<Core>, handle: Arc<AttemptHandle>) -> Self {
        let number = core.running.insert(handle.clone());
        core.changed.notify_one();
        Self {
            core: core.clone(),
            handle,
            number,
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.handle.ended.cancel();
        self.core.running.remove(self.number);
        self.core.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, F: Future>(_: fn(Arc<Core>, A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_futures_of_an_operation_are_small() {
        // One is made for every operation, however short; rare work inside it is boxed.
        let size = size_of_future(claim_and_run);
        assert!(size <= 6 * 1024, "{size} bytes");

        // It is moved several times while it is spawned.
        let size = size_of_future(run_pulled_request);
        assert!(size <= 2560, "{size} bytes");
    }
}

//! What backends ask of this worker: its NATS service (`nats micro ls`, `info`, `stats`, `ping`),
//! and cancel intents that are heard live.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use async_nats::Message;
use async_nats::service::{Request, ServiceExt, error::Error as ReplyError};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use ktrdr_bus::telemetry::{chain, short};
use ktrdr_protocol::cancel::CancelIntent;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::worker::{DRAIN, DrainAnswer, OperationAnswer, OperationQuery, UNDRAIN};

use crate::announce::heartbeat::{describe, write};
use crate::attempt::stop::StopReason;
use crate::worker::core::Core;

/// How often the stored intent is looked for after a cancel was heard: for 1.3 seconds.
const CHECKS: u32 = 7;

/// Pause before it is looked for again; doubled each time.
const FIRST_CHECK: Duration = Duration::from_millis(10);

/// Serves `worker.<worker_id>.operation` (fresh state of one operation), `worker.<worker_id>.health`,
/// and `worker.<worker_id>.drain` and `.undrain`.
///
/// # Errors
/// When the service cannot be registered.
pub(crate) async fn serve(core: Arc<Core>) -> Result<(), async_nats::Error> {
    let metadata = HashMap::from([
        ("worker_id".to_owned(), core.worker_id.to_string()),
        ("worker_type".to_owned(), core.worker_type.to_string()),
        ("endpoint_url".to_owned(), core.endpoint_url.clone()),
    ]);

    let service = core
        .connection
        .client
        .service_builder()
        .description(core.info.description.as_ref())
        .metadata(metadata)
        .start(
            format!("ktrdr-worker-{}", core.worker_type),
            env!("CARGO_PKG_VERSION"),
        )
        .await?;

    let add = |verb: &'static str| {
        service
            .endpoint_builder()
            .name(verb)
            .add(core.names.worker(&core.worker_id, verb))
    };
    let mut operation = add("operation").await?;
    let mut health = add("health").await?;
    let mut drain = add(DRAIN).await?;
    let mut undrain = add(UNDRAIN).await?;

    loop {
        // Cancel safe: requests not taken stay in their endpoint.
        tokio::select! {
            Some(request) = operation.next() => {
                let answer = answer_operation(&core, &request);
                let _ = request.respond(answer).await;
            }
            Some(request) = health.next() => {
                let most = core.connection.client.max_payload();
                let answer = write(&describe(&core), most).map(Bytes::from).map_err(internal);
                let _ = request.respond(answer).await;
            }
            Some(request) = drain.next() => {
                let _ = request.respond(answer_drain(&core, true)).await;
            }
            Some(request) = undrain.next() => {
                let _ = request.respond(answer_drain(&core, false)).await;
            }
            else => return Ok(()),
        }
    }
}

/// Takes no more work, or takes it again.
fn answer_drain(core: &Core, draining: bool) -> Result<Bytes, ReplyError> {
    let running = core.running.len();
    if core.drain(draining) {
        if draining {
            tracing::info!(
                running,
                "draining: finishing what runs, taking nothing more"
            );
        } else {
            tracing::info!(running, "draining is over; taking work again");
        }
    }
    let answer = DrainAnswer {
        draining,
        running: running as u64,
    };
    serde_json::to_vec(&answer)
        .map(Bytes::from)
        .map_err(internal)
}

fn answer_operation(core: &Core, request: &Request) -> Result<Bytes, ReplyError> {
    let query: OperationQuery =
        serde_json::from_slice(&request.message.payload).map_err(|error| ReplyError {
            status: format!("send {{\"operation_id\":\"…\"}}: {}", short(&error)),
            code: 400,
        })?;
    let answer = OperationAnswer {
        running: core.running.describe(&query.operation_id),
    };
    serde_json::to_vec(&answer)
        .map(Bytes::from)
        .map_err(internal)
}

fn internal(error: impl std::fmt::Display) -> ReplyError {
    ReplyError {
        status: error.to_string(),
        code: 500,
    }
}

/// Passes cancel intents on to the operations that run here, until the client is closed.
///
/// What is heard proves nothing: anything can be published on the subject, and the stream may
/// refuse it. So an operation stops only when the stored intent was read. Nothing is read for
/// operations that do not run here.
///
/// An intent that is missed during an interruption is repeated by the backends for as long as
/// heartbeats show the operation running.
///
/// # Errors
/// When the client is closed.
pub(crate) async fn listen_for_cancels(core: Arc<Core>) -> Result<(), async_nats::SubscribeError> {
    let mut heard = core
        .connection
        .client
        .subscribe(core.names.cancels_of(&core.worker_type))
        .await?;
    // One check for each operation that runs here, at most.
    let mut checked: HashSet<OperationId> = HashSet::new();
    let mut checks = FuturesUnordered::new();
    loop {
        // Cancel safe: what is not taken stays in the subscription and in the set.
        tokio::select! {
            message = heard.next() => {
                let Some(message) = message else { return Ok(()) };
                let Some(id) = read_intent(&core, &message) else { continue };
                if core.running.find(&id).is_some() && checked.insert(id.clone()) {
                    checks.push(check_intent(&core, id));
                }
            }
            Some((id, is_stored)) = checks.next() => {
                checked.remove(&id);
                if is_stored && core.running.stop(&id, StopReason::Cancel) > 0 {
                    tracing::info!(operation_id = %id, "cancel requested");
                }
            }
        }
    }
}

/// The operation that an intent is about; `None` for anything else than an intent.
fn read_intent(core: &Core, message: &Message) -> Option<OperationId> {
    let subject = message.subject.as_str();
    let read = serde_json::from_slice::<CancelIntent>(&message.payload)
        .map_err(|error| short(&error))
        .and_then(|intent| match core.names.check(subject, &intent) {
            Ok(_) => Ok(intent.operation_id),
            Err(error) => Err(error.to_string()),
        });
    read.inspect_err(|error| {
        core.counters.refused_cancels.inc();
        tracing::debug!(subject, error, "refused a cancel");
    })
    .ok()
}

/// Looks for the stored intent, several times: it is heard before it is stored.
async fn check_intent(core: &Core, id: OperationId) -> (OperationId, bool) {
    let mut pause = FIRST_CHECK;
    for check in 1..=CHECKS {
        match core.oplog.is_cancel_requested(&core.worker_type, &id).await {
            Ok(true) => return (id, true),
            Ok(false) => {}
            Err(error) => {
                tracing::debug!(operation_id = %id, error = chain(&error), "a cancel cannot be checked yet");
            }
        }
        if check < CHECKS {
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }
    core.counters.refused_cancels.inc();
    tracing::warn!(operation_id = %id, "heard a cancel that is not stored; the operation goes on");
    (id, false)
}

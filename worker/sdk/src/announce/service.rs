//! What backends ask of this worker: its NATS service (`nats micro ls`, `info`, `stats`, `ping`),
//! and cancel intents that are heard live.

use std::collections::HashMap;
use std::sync::Arc;

use async_nats::service::{Request, ServiceExt, error::Error as ReplyError};
use bytes::Bytes;
use futures::StreamExt;
use ktrdr_bus::telemetry::short;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::subject::Topic;
use ktrdr_protocol::worker::{OperationAnswer, OperationQuery};

use crate::announce::heartbeat::describe;
use crate::attempt::stop::StopReason;
use crate::worker::core::Core;

/// Serves `worker.<worker_id>.operation` (fresh state of one operation) and
/// `worker.<worker_id>.health`.
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
        .description(core.info.description)
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

    loop {
        // Cancel safe: requests not taken stay in their endpoint.
        tokio::select! {
            Some(request) = operation.next() => {
                let answer = answer_operation(&core, &request);
                let _ = request.respond(answer).await;
            }
            Some(request) = health.next() => {
                let answer = serde_json::to_vec(&describe(&core)).map(Bytes::from).map_err(internal);
                let _ = request.respond(answer).await;
            }
            else => return Ok(()),
        }
    }
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

fn internal(error: serde_json::Error) -> ReplyError {
    ReplyError {
        status: error.to_string(),
        code: 500,
    }
}

/// Passes cancel intents on to the operations that run here, until the client is closed.
///
/// An intent that is missed during an interruption is repeated by the backends for as long as
/// heartbeats show the operation running.
///
/// # Errors
/// When the client is closed.
pub(crate) async fn listen_for_cancels(core: Arc<Core>) -> Result<(), async_nats::SubscribeError> {
    let mut intents = core
        .connection
        .client
        .subscribe(core.names.cancels_of(&core.worker_type))
        .await?;
    while let Some(message) = intents.next().await {
        let Some(Topic::Cancel { operation_id, .. }) = core.names.parse(&message.subject) else {
            continue;
        };
        let Ok(id) = OperationId::new(operation_id) else {
            continue;
        };
        if core.running.stop(&id, StopReason::Cancel) > 0 {
            tracing::info!(operation_id = %id, "cancel requested");
        }
    }
    Ok(())
}

//! Hearing cancel intents live.

use std::sync::Arc;

use futures::StreamExt;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::subject::Topic;

use crate::worker::core::Core;
use crate::worker::running::StopReason;

/// Passes cancel intents on to the operations that run here, for as long as the connection lives.
///
/// One that is missed while there is no connection is repeated by the backends for as long as heartbeats show the operation
/// running.
///
/// # Errors
/// When the client is closed.
pub(crate) async fn listen(core: Arc<Core>) -> Result<(), async_nats::SubscribeError> {
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

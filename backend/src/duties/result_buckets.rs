//! Creates the object store of each worker type's large results, when the type appears.

use std::collections::BTreeSet;
use std::time::Duration;

use ktrdr_bus::topology::{self, TopologyError};
use ktrdr_protocol::id::WorkerType;

use crate::state::AppState;

/// How often the catalogue is looked at. It is in memory and short.
const INTERVAL: Duration = Duration::from_millis(200);

/// Pause after NATS did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// Works until the task is dropped.
pub async fn run(state: &AppState) {
    let mut made = BTreeSet::new();
    loop {
        let round = state.connection.while_up(Box::pin(round(state, &mut made)));
        if let Some(Err(error)) = round.await {
            tracing::warn!(%error, cause = ?std::error::Error::source(&error), "cannot create a bucket of results; trying again");
            tokio::time::sleep(PAUSE).await;
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn round(state: &AppState, made: &mut BTreeSet<WorkerType>) -> Result<(), TopologyError> {
    for entry in state.catalogue.all() {
        let worker_type = &entry.published.worker_type;
        if made.contains(worker_type) {
            continue;
        }
        topology::ensure_results_of(
            &state.connection.jetstream,
            &state.names,
            &state.config.protocol,
            worker_type,
        )
        .await?;
        made.insert(worker_type.clone());
    }
    Ok(())
}

//! Brings streams, buckets and checks in line when the settings in force have changed.
//!
//! `ktrdr-backend configure --apply` changes the operations stream first. If it is interrupted
//! after that, the backends do the rest. The leases of queues change in their own time
//! ([`super::queues`]).

use std::time::Duration;

use ktrdr_bus::telemetry::chain;
use ktrdr_bus::topology::{self, TopologyError};

use crate::state::AppState;

/// Pause before it is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Works until the task is dropped.
pub async fn run(state: &AppState) {
    let mut changes = state.settings.subscribe();
    loop {
        // The sender lives as long as the state.
        if changes.changed().await.is_err() {
            return;
        }
        state.dispatch.set_retention(state.settings.get().retention);
        while let Err(error) = bring_in_line(state).await {
            tracing::warn!(
                error = chain(&error),
                "streams and buckets could not be brought in line with the settings in force; trying again"
            );
            tokio::time::sleep(PAUSE).await;
        }
    }
}

async fn bring_in_line(state: &AppState) -> Result<(), TopologyError> {
    let jetstream = &state.connection.jetstream;
    let settings = topology::ensure(jetstream, &state.names, &state.settings.get()).await?;
    for entry in state.catalogue.all() {
        let worker_type = &entry.published.worker_type;
        topology::ensure_results_of(jetstream, &state.names, &settings, worker_type).await?;
    }
    Ok(())
}

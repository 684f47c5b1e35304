//! Keeps streams and buckets as they must be: makes those that are missing, and brings them in line
//! with the settings in force.
//!
//! They can go missing while the backend runs: by an operator's mistake, a restore that brought back
//! only a part, a lost volume. So the backend looks at regular intervals. What exists and is as it must
//! be is not touched.
//!
//! `ktrdr-backend configure --apply` changes the operations stream first. If it is interrupted
//! after that, the backends do the rest. The leases of queues change in their own time
//! ([`super::queues`]).

use std::time::Duration;

use ktrdr_bus::telemetry::{Repeated, chain};
use ktrdr_bus::topology::{self, TopologyError};

use crate::state::AppState;

/// Pause before it is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// How often streams and buckets are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Works until the task is dropped.
pub async fn run(state: &AppState) {
    let mut changes = state.settings.subscribe();
    let failures = Repeated::new();
    loop {
        // Both arms are cancel safe. The sender lives as long as the state.
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        state.dispatch.set_retention(state.settings.get().retention);

        while let Some(Err(error)) = state
            .connection
            .while_up(Box::pin(bring_in_line(state)))
            .await
        {
            if let Some(count) = failures.note() {
                tracing::warn!(
                    error = chain(&error),
                    count,
                    "streams and buckets could not be brought in line with the settings in force; trying again"
                );
            }
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

//! Everything that runs beside the REST interface, and what its end means.

mod listen;
mod reconcile;

use std::time::Duration;

use ktrdr_bus::topology::{self, Role, TopologyError};
use tokio::task::JoinSet;

use crate::state::AppState;
use crate::{RunError, projection};

/// Pause before provisioning is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs all duties. Returns only when going on makes no sense; dropping it ends them all.
pub async fn run(state: AppState) -> RunError {
    let mut duties = JoinSet::new();
    let listening = state.clone();
    duties.spawn(async move { listen::run(&listening).await });
    if let Err(error) = provision(&state).await {
        return RunError::Topology(error);
    }
    let following = state.clone();
    duties.spawn(async move {
        projection::follow::run(
            &following.projection,
            &following.connection,
            &following.config,
        )
        .await;
    });
    let watching = state.clone();
    duties.spawn(async move {
        watching
            .catalogue
            .follow(&watching.connection, &watching.names)
            .await
    });
    duties.spawn(async move { reconcile::run(&state).await });
    // None of them ever ends by itself. One that does has a bug, and half a backend is worse than one that is restarted.
    match duties.join_next().await {
        Some(Err(error)) => RunError::Duty(error.to_string()),
        _ => RunError::Duty("it ended by itself".to_owned()),
    }
}

/// Streams and buckets as this backend's settings want them, and the lease in every queue. Waits for NATS however long;
/// what exists and cannot be used ends the process, since waiting would not help.
async fn provision(state: &AppState) -> Result<(), TopologyError> {
    loop {
        state.connection.up().await;
        match provision_once(state).await {
            Ok(()) => return Ok(()),
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, cause = ?std::error::Error::source(&error), "trying again");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn provision_once(state: &AppState) -> Result<(), TopologyError> {
    let (jetstream, protocol) = (&state.connection.jetstream, &state.config.protocol);
    topology::ensure(jetstream, &state.names, protocol, Role::Backend).await?;
    topology::apply_lease(jetstream, &state.names, protocol.lease).await
}

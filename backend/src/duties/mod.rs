//! The background duties, which run beside the REST interface.
//!
//! Each duty runs in a loop and survives outages of NATS. If one ends all the same, the backend
//! stops: it would answer with a state that no longer changes.
//!
//! | duty | does |
//! |---|---|
//! | [`ask`] | asks NATS something every second, to know whether it answers |
//! | [`figures`] | looks at what would otherwise fill up or grow old in silence |
//! | [`listen`] | takes heartbeats and progress from the workers |
//! | [`crate::projection::follow`] | keeps the projection up to date |
//! | [`crate::catalogue`] | keeps the worker types up to date |
//! | [`key_entries`] | removes old entries of keys, and permits of operations that are gone |
//! | [`queues`] | makes the queues that are needed, lists them for workers, removes unused ones |
//! | [`crate::queues::lists`] | keeps the lists of queues up to date |
//! | [`keeping`] | keeps the streams as long as operations need them, and removes what is over |
//! | [`settings`] | makes streams and buckets that are missing, and brings them in line with the settings in force |
//! | [`crate::schedules`] | keeps the schedules up to date |
//! | [`schedules`] | starts the operations of schedules |
//! | [`put_back`] | puts operations back that no queue holds |
//! | [`times`] | moves delayed operations that are due, and ends those that have expired |
//! | [`crate::archive`] | writes operations that have ended into the archive, if there is one |
//! | [`reconcile`] | ends operations that can no longer end by themselves |

mod ask;
mod figures;
mod keeping;
mod key_entries;
mod listen;
mod put_back;
mod queues;
mod reconcile;
mod schedules;
mod settings;
mod times;

use std::sync::Arc;
use std::time::Duration;

use ktrdr_bus::telemetry::{Repeated, chain};
use ktrdr_bus::topology::{self, TopologyError};
use tokio::task::JoinSet;

use crate::archive;
use crate::projection;
use crate::state::AppState;

/// Pause before provisioning is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// Why the backend cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum DutyError {
    /// Streams or buckets exist that cannot be used.
    #[error(transparent)]
    Topology(TopologyError),
    /// A duty panicked or returned. Neither ever happens unless there is a bug.
    #[error("{0}")]
    Ended(String),
}

/// Runs all duties. Returns only when the backend cannot continue; dropping the future ends them
/// all.
pub async fn run(state: AppState) -> DutyError {
    let mut duties = JoinSet::new();
    let listening = state.clone();
    duties.spawn(async move { listen::run(&listening).await });
    let asking = state.clone();
    duties.spawn(async move { ask::run(&asking).await });

    if let Err(error) = provision(&state).await {
        return DutyError::Topology(error);
    }

    let following = state.clone();
    duties.spawn(async move {
        projection::follow::run(
            &following.projection,
            &following.connection,
            &following.names,
            &following.settings,
        )
        .await;
    });
    let watching = state.clone();
    duties.spawn(async move {
        watching
            .catalogue
            .follow(&watching.connection, &watching.names)
            .await;
    });
    let listing = state.clone();
    duties.spawn(async move { listing.queues.lists.follow().await });
    let watching = state.clone();
    duties.spawn(async move { watching.schedules.follow().await });
    let starting = state.clone();
    duties.spawn(async move { schedules::run(&starting).await });
    let setting = state.clone();
    duties.spawn(async move { settings::run(&setting).await });
    let watching = state.clone();
    duties.spawn(async move { figures::run(&watching).await });
    if let Some(archive) = &state.archive {
        let sources = archive::Sources {
            projection: Arc::clone(&state.projection),
            connection: state.connection.clone(),
            names: state.names.clone(),
            buckets: Arc::clone(&state.results),
        };
        duties.spawn(archive::run(Arc::clone(archive), sources));
    }
    let keeping = state.clone();
    duties.spawn(async move { keeping::run(&keeping).await });
    let permitting = state.clone();
    duties.spawn(async move { key_entries::run(&permitting).await });
    let serving = state.clone();
    duties.spawn(async move { queues::run(&serving).await });
    let putting_back = state.clone();
    duties.spawn(async move { put_back::run(&putting_back).await });
    let timing = state.clone();
    duties.spawn(async move { times::run(&timing).await });
    duties.spawn(async move { reconcile::run(&state).await });

    // A backend that lacks one duty looks healthy and is not; one that ends is restarted.
    match duties.join_next().await {
        Some(Err(error)) => DutyError::Ended(error.to_string()),
        _ => DutyError::Ended("it ended by itself".to_owned()),
    }
}

/// Creates streams and buckets, and learns the settings in force. Waits for NATS without limit.
///
/// # Errors
/// When something exists that cannot be used: waiting would not help.
async fn provision(state: &AppState) -> Result<(), TopologyError> {
    let failures = Repeated::new();
    loop {
        let Some(provisioned) = state
            .connection
            .while_up(Box::pin(provision_once(state)))
            .await
        else {
            continue;
        };
        match provisioned {
            Ok(()) => return Ok(()),
            Err(error) if error.is_transient() => {
                // `/ready` says it, too.
                state.projection.reader.note_failure(&error);
                if let Some(count) = failures.note() {
                    tracing::warn!(
                        error = chain(&error),
                        count,
                        "cannot prepare JetStream; trying again"
                    );
                }
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn provision_once(state: &AppState) -> Result<(), TopologyError> {
    let jetstream = &state.connection.jetstream;
    let found = topology::ensure(jetstream, &state.names, &state.settings.get()).await?;
    state.settings.note(found);
    state.dispatch.set_retention(found.retention);
    Ok(())
}

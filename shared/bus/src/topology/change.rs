//! Changing what is in force: the settings, and how long the streams keep their messages.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{Context, GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, Info};
use ktrdr_protocol::subject::SubjectNames;

use super::batches::logs_age;
use super::{TopologyError, check_owner, merge, nats, operations_stream, update};
use crate::queues;
use crate::stream_settings::{StoredSettings, StreamSettings};

/// How often settings are written while others write, too, and the pause before they are looked at.
const CHANGE_TRIES: u32 = 5;
const CHANGE_PAUSE: Duration = Duration::from_millis(500);

/// The operations stream as it is, and the settings in force; `None` when no backend has made it.
///
/// # Errors
/// [`TopologyError`], also when the stream is of another prefix.
pub async fn in_force(
    jetstream: &Context,
    names: &SubjectNames,
) -> Result<Option<(Info, StreamSettings)>, TopologyError> {
    let what = format!("stream {}", names.stream());
    let info = match jetstream.get_stream(names.stream()).await {
        Ok(stream) => stream.cached_info().clone(),
        Err(error) if is_not_found(&error) => return Ok(None),
        Err(error) => return Err(nats(&what, error)),
    };
    let defaults = StreamSettings::default();
    check_owner(&info.config, &operations_stream(names, &defaults))?;

    let stored = StoredSettings::of(&info.config);
    let settings = match stored.complete() {
        Some(settings) => settings,
        None => {
            let lease = longest_lease(jetstream, names).await?;
            stored.complete_with(lease.unwrap_or(defaults.lease))
        }
    };
    Ok(Some((info, settings)))
}

/// Puts other settings in force: changes the operations stream. Backends follow, and bring
/// everything else in line.
///
/// The server cannot be told which configuration a change replaces, and backends may write the
/// stream's configuration at the same time. So it is looked at once more, and changed again if
/// necessary.
///
/// # Errors
/// [`TopologyError`]; also when the server refuses a setting, for example more copies than it has
/// servers. Nothing has changed then.
pub async fn change(
    jetstream: &Context,
    names: &SubjectNames,
    settings: &StreamSettings,
) -> Result<(), TopologyError> {
    let what = format!("stream {}", names.stream());
    for _ in 0..CHANGE_TRIES {
        let stream = jetstream.get_stream(names.stream()).await;
        let existing = stream
            .map_err(|error| nats(&what, error))?
            .cached_info()
            .config
            .clone();
        if StoredSettings::of(&existing).complete() == Some(*settings) {
            return Ok(());
        }

        let wanted = operations_stream(names, settings);
        let mut changed = merge(&existing, &wanted);
        // Backends lower it, once they have counted what is still needed.
        changed.max_age = raised(existing.max_age, wanted.max_age);
        changed.metadata.extend(wanted.metadata);
        update(jetstream, &existing, &changed).await?;
        tokio::time::sleep(CHANGE_PAUSE).await;
    }
    Err(TopologyError::Busy { what })
}

/// Gives the streams another age limit: those of operations, metrics, checkpoints, and log lines.
///
/// # Errors
/// [`TopologyError`].
pub async fn set_age(
    jetstream: &Context,
    names: &SubjectNames,
    settings: &StreamSettings,
    max_age: Duration,
) -> Result<(), TopologyError> {
    let checkpoints = SubjectNames::key_values_stream(&names.checkpoints_bucket());
    for name in [names.stream(), names.metrics_stream(), checkpoints] {
        let stream = jetstream.get_stream(&name).await;
        let existing = stream
            .map_err(|error| nats(&format!("stream {name}"), error))?
            .cached_info()
            .config
            .clone();
        let changed = Config {
            max_age,
            // The server refuses to remember message ids for longer than it keeps the messages.
            duplicate_window: existing.duplicate_window.min(max_age),
            ..existing.clone()
        };
        update(jetstream, &existing, &changed).await?;
    }
    set_age_of_logs(jetstream, names, settings, max_age).await
}

/// Log lines have a limit of their own, and may be without their stream.
async fn set_age_of_logs(
    jetstream: &Context,
    names: &SubjectNames,
    settings: &StreamSettings,
    max_age: Duration,
) -> Result<(), TopologyError> {
    let name = names.logs_stream();
    let existing = match jetstream.get_stream(&name).await {
        Ok(stream) => stream.cached_info().config.clone(),
        Err(error) if is_not_found(&error) => return Ok(()),
        Err(error) => return Err(nats(&format!("stream {name}"), error)),
    };
    let max_age = logs_age(settings, max_age);
    let changed = Config {
        max_age,
        duplicate_window: existing.duplicate_window.min(max_age),
        ..existing.clone()
    };
    update(jetstream, &existing, &changed).await
}

/// Whether there is no such stream.
pub fn is_not_found(error: &GetStreamError) -> bool {
    matches!(error.kind(), GetStreamErrorKind::JetStream(ref e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

/// The longer of two age limits. It is lowered only by [`set_age`], when nothing needs it any more.
pub(super) fn raised(existing: Duration, needed: Duration) -> Duration {
    // No limit at all.
    if existing.is_zero() {
        return existing;
    }
    existing.max(needed)
}

/// The longest lease that a queue has; `None` without queues.
pub(super) async fn longest_lease(
    jetstream: &Context,
    names: &SubjectNames,
) -> Result<Option<Duration>, TopologyError> {
    let listing = queues::list(jetstream, names).await?;
    let leases = listing
        .queues
        .iter()
        .map(|found| found.info.config.ack_wait);
    Ok(leases.max())
}

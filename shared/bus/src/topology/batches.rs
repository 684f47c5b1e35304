//! The streams of metric points and of log lines. No operation depends on them, so they drop their oldest
//! batches when they are full.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::context::Context;
use async_nats::jetstream::stream::{Config, DiscardPolicy};
use ktrdr_protocol::subject::SubjectNames;

use super::{
    DUPLICATE_WINDOW, TopologyError, check_usable, find_or_create, merge, operations_stream, update,
};
use crate::stream_settings::StreamSettings;
use crate::telemetry::{Repeated, chain};

/// How long making or changing the stream of log lines may take: a server that does not permit it does
/// not answer.
const LOGS_PATIENCE: Duration = Duration::from_secs(10);

/// The stream of metric batches. When it is full, the oldest batches are dropped: no operation
/// depends on them.
pub fn metrics_stream(names: &SubjectNames, settings: &StreamSettings) -> Config {
    Config {
        name: names.metrics_stream(),
        description: Some("KTRDR metric points, in batches".to_owned()),
        subjects: names.metrics_subjects(),
        discard: DiscardPolicy::Old,
        max_bytes: settings.metrics_max_bytes,
        metadata: HashMap::new(),
        ..operations_stream(names, settings)
    }
}

/// The stream of batches of log lines. When it is full, the oldest batches are dropped: no operation
/// depends on them. `max_age` is how long the other streams keep their messages.
pub fn logs_stream(names: &SubjectNames, settings: &StreamSettings, max_age: Duration) -> Config {
    let max_age = logs_age(settings, max_age);
    Config {
        name: names.logs_stream(),
        description: Some("KTRDR log lines of operations, in batches".to_owned()),
        subjects: names.logs_subjects(),
        discard: DiscardPolicy::Old,
        max_bytes: settings.logs_max_bytes,
        max_age,
        duplicate_window: DUPLICATE_WINDOW.min(max_age),
        metadata: HashMap::new(),
        ..operations_stream(names, settings)
    }
}

/// How long log lines are kept while the other streams keep their messages for `max_age`. Zero stands
/// for no limit there.
pub(super) fn logs_age(settings: &StreamSettings, max_age: Duration) -> Duration {
    match max_age.is_zero() {
        true => settings.logs_max_age,
        false => max_age.min(settings.logs_max_age),
    }
}

/// Makes the stream of metric points, or brings it in line.
pub(super) async fn ensure_metrics(
    jetstream: &Context,
    names: &SubjectNames,
    settings: &StreamSettings,
    max_age: Duration,
) -> Result<(), TopologyError> {
    let wanted = Config {
        max_age,
        ..metrics_stream(names, settings)
    };
    ensure_batches(jetstream, wanted).await
}

/// Creates a stream of batches, or brings it in line.
async fn ensure_batches(jetstream: &Context, wanted: Config) -> Result<(), TopologyError> {
    let Some(existing) = find_or_create(jetstream, &wanted).await? else {
        return Ok(());
    };
    check_usable(&existing, &wanted)?;

    let merged = merge(&existing, &wanted);
    update(jetstream, &existing, &merged).await
}

/// As [`ensure_batches`], for the stream of log lines. Everything else works without it: a server whose
/// disk has no room for it, or that does not permit it yet, must not keep operations from running.
pub(super) async fn ensure_logs(jetstream: &Context, wanted: Config) -> Result<(), TopologyError> {
    static REFUSED: Repeated = Repeated::new();

    let (name, max_bytes) = (wanted.name.clone(), wanted.max_bytes);
    let ensured = tokio::time::timeout(LOGS_PATIENCE, ensure_batches(jetstream, wanted)).await;
    let why = match ensured {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(error)) if !error.is_about_server() => return Err(error),
        Ok(Err(error)) => chain(&error),
        Err(_) => "the server does not answer, perhaps because it does not permit it".to_owned(),
    };
    if let Some(count) = REFUSED.note() {
        tracing::warn!(
            stream = name,
            max_bytes,
            error = why,
            count,
            "log lines of operations are not kept: their stream cannot be made or changed. Give the server more room (max_file_store), lower KTRDR_LOGS_MAX_BYTES, or renew the permissions with `ktrdr-backend nats-config`"
        );
    }
    Ok(())
}

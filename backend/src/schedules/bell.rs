//! The stream whose server rings when a slot comes.
//!
//! A schedule is a message on its own subject; when its time comes, the leader of the stream stores a
//! copy on the subject of rings. A ring only says "look now": which slots are due follows from the
//! schedule and the server's clock. So a ring that is missing, comes twice or was made up does no harm.
//!
//! The stream is made by the first schedule: systems without schedules have none.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::{self, AckPolicy, pull};
use async_nats::jetstream::context::{
    Context, CreateStreamErrorKind, GetStreamError, GetStreamErrorKind,
};
use async_nats::jetstream::stream::{
    Config, ConsumerErrorKind, DiscardPolicy, RetentionPolicy, StorageType,
};
use futures::TryStreamExt;
use ktrdr_bus::nats::Connection;
use ktrdr_bus::topology::TopologyError;
use ktrdr_protocol::id::ScheduleId;
use ktrdr_protocol::subject::{SCHEDULES_CONSUMER, SubjectNames};

use super::cron::Cron;

/// The headers that make a message a schedule.
const PATTERN: &str = "Nats-Schedule";
const TARGET: &str = "Nats-Schedule-Target";
const TIME_ZONE: &str = "Nats-Schedule-Time-Zone";

/// How long a ring belongs to one backend.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// The first server that reads cron lines and time zones.
const NEEDED: (u64, u64) = (2, 14);

/// Why the server does not ring.
#[derive(Debug, thiserror::Error)]
pub enum BellError {
    /// The server is too old.
    #[error("nats-server {0} has no schedules")]
    Unsupported(String),
    /// The server does not take the cron line or the time zone.
    #[error("the NATS server refuses it: {0}")]
    Refused(String),
    /// NATS did not answer, or refused for another reason.
    #[error(transparent)]
    Nats(#[from] TopologyError),
}

fn nats(what: &str, source: impl Into<async_nats::Error>) -> BellError {
    BellError::Nats(TopologyError::Nats {
        what: what.to_owned(),
        source: source.into(),
    })
}

/// Whether the server of this connection has schedules.
///
/// # Errors
/// [`BellError::Unsupported`].
pub fn check_server(connection: &Connection) -> Result<(), BellError> {
    let version = connection.client.server_info().version;
    let mut parts = version.split('.').map(|part| part.parse::<u64>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) < NEEDED => {
            Err(BellError::Unsupported(version))
        }
        // A version that nobody can read is a newer one.
        _ => Ok(()),
    }
}

fn stream_config(names: &SubjectNames, replicas: usize) -> Config {
    Config {
        name: names.schedules_stream(),
        description: Some("KTRDR schedules: the NATS server rings when a slot comes".to_owned()),
        subjects: vec![names.all_schedules(), names.all_rings()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::Old,
        // A second ring says no more than the first.
        max_messages_per_subject: 1,
        num_replicas: replicas,
        allow_direct: true,
        allow_message_schedules: true,
        ..Config::default()
    }
}

/// Makes the stream and the consumer if they are missing, and returns the consumer, which all backends
/// share.
///
/// # Errors
/// [`BellError`].
pub async fn ensure(
    connection: &Connection,
    names: &SubjectNames,
    replicas: usize,
) -> Result<consumer::PullConsumer, BellError> {
    check_server(connection)?;
    let jetstream = &connection.jetstream;
    ensure_stream(jetstream, &stream_config(names, replicas)).await?;

    let what = format!("consumer {SCHEDULES_CONSUMER}");
    let config = pull::Config {
        durable_name: Some(SCHEDULES_CONSUMER.to_owned()),
        description: Some("rings of schedules, for all backends".to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        filter_subject: names.all_rings(),
        ..pull::Config::default()
    };
    let stream = names.schedules_stream();
    // A cluster that has just changed its leader can take a request to create what exists, and then
    // forgets the consumer.
    let found = jetstream
        .get_consumer_from_stream(SCHEDULES_CONSUMER, &stream)
        .await;
    match found {
        Ok(found) => return Ok(found),
        Err(error) => match error.kind() {
            ConsumerErrorKind::JetStream(refusal)
                if refusal.error_code() == ErrorCode::CONSUMER_NOT_FOUND => {}
            _ => return Err(nats(&what, error)),
        },
    }
    jetstream
        .create_consumer_on_stream(config, stream)
        .await
        .map_err(|error| nats(&what, error))
}

async fn ensure_stream(jetstream: &Context, wanted: &Config) -> Result<(), BellError> {
    let what = format!("stream {}", wanted.name);
    let existing = match jetstream.get_stream(&wanted.name).await {
        Ok(stream) => stream.cached_info().config.clone(),
        Err(error) if is_missing(&error) => {
            return match jetstream.create_stream(wanted.clone()).await {
                Ok(_) => Ok(()),
                // Another backend was faster.
                Err(error) => match error.kind() {
                    CreateStreamErrorKind::JetStream(refusal)
                        if refusal.error_code() == ErrorCode::STREAM_NAME_EXIST =>
                    {
                        Ok(())
                    }
                    _ => Err(nats(&what, error)),
                },
            };
        }
        Err(error) => return Err(nats(&what, error)),
    };

    let mut changed = existing.clone();
    changed.subjects.clone_from(&wanted.subjects);
    changed.max_messages_per_subject = wanted.max_messages_per_subject;
    changed.num_replicas = wanted.num_replicas;
    changed.allow_message_schedules = true;
    if changed == existing {
        return Ok(());
    }
    jetstream
        .update_stream(changed)
        .await
        .map(drop)
        .map_err(|error| nats(&what, error))
}

/// Tells the server when to ring for a schedule, in the place of what it was told before.
///
/// # Errors
/// [`BellError`].
pub async fn set(
    jetstream: &Context,
    names: &SubjectNames,
    id: &ScheduleId,
    (cron, time_zone): (&Cron, &str),
) -> Result<(), BellError> {
    let subject = names.schedule(id);
    let mut headers = HeaderMap::new();
    headers.insert(PATTERN, cron.line());
    headers.insert(TARGET, names.ring(id));
    headers.insert(TIME_ZONE, time_zone);
    let sent = jetstream
        .publish_with_headers(subject.clone(), headers, "".into())
        .await;
    let stored = match sent {
        Ok(stored) => stored.await,
        Err(error) => Err(error),
    };
    match stored {
        Ok(_) => Ok(()),
        Err(error) => match refusal(&error) {
            Some(refusal)
                if [
                    ErrorCode::MESSAGE_SCHEDULES_PATTERN_INVALID,
                    ErrorCode::MESSAGE_SCHEDULES_TIME_ZONE_INVALID,
                ]
                .contains(&refusal.error_code()) =>
            {
                Err(BellError::Refused(refusal.to_string()))
            }
            _ => Err(nats(&subject, error)),
        },
    }
}

/// The server's own words in an error of the client library.
fn refusal<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a async_nats::jetstream::Error> {
    error.source()?.downcast_ref()
}

/// Whether the server was told exactly this about a schedule.
///
/// # Errors
/// [`BellError`] when NATS does not answer.
pub async fn is_set(
    jetstream: &Context,
    names: &SubjectNames,
    id: &ScheduleId,
    (cron, time_zone): (&Cron, &str),
) -> Result<bool, BellError> {
    use async_nats::jetstream::stream::LastRawMessageErrorKind;

    let what = names.schedule(id);
    let stream = jetstream
        .get_stream_no_info(names.schedules_stream())
        .await
        .map_err(|error| nats(&what, error))?;
    let message = match stream.get_last_raw_message_by_subject(&what).await {
        Ok(message) => message,
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(false),
        Err(error) => return Err(nats(&what, error)),
    };
    let has = |name: &str, wanted: &str| {
        let found = message.headers.get(name);
        found.is_some_and(|found| found.as_str() == wanted)
    };
    Ok(has(PATTERN, cron.line()) && has(TIME_ZONE, time_zone) && has(TARGET, &names.ring(id)))
}

/// Lets the server ring no more for a schedule.
///
/// # Errors
/// [`BellError`] when NATS does not answer.
pub async fn unset(
    jetstream: &Context,
    names: &SubjectNames,
    id: &ScheduleId,
) -> Result<(), BellError> {
    let what = names.schedule(id);
    let stream = jetstream
        .get_stream_no_info(names.schedules_stream())
        .await
        .map_err(|error| nats(&what, error))?;
    let purged = stream.purge().filter(&what).await;
    purged.map(drop).map_err(|error| nats(&what, error))
}

/// Whether the stream was ever made.
///
/// # Errors
/// [`BellError`] when NATS does not answer.
pub async fn exists(jetstream: &Context, names: &SubjectNames) -> Result<bool, BellError> {
    let what = names.schedules_stream();
    match jetstream.get_stream(&what).await {
        Ok(_) => Ok(true),
        Err(error) if is_missing(&error) => Ok(false),
        Err(error) => Err(nats(&what, error)),
    }
}

fn is_missing(error: &GetStreamError) -> bool {
    let GetStreamErrorKind::JetStream(refusal) = error.kind() else {
        return false;
    };
    refusal.error_code() == ErrorCode::STREAM_NOT_FOUND
}

/// The schedules about which the server was told something.
///
/// # Errors
/// [`BellError`] when NATS does not answer.
pub async fn all_set(
    jetstream: &Context,
    names: &SubjectNames,
) -> Result<Vec<ScheduleId>, BellError> {
    let what = names.schedules_stream();
    let stream = jetstream
        .get_stream_no_info(&what)
        .await
        .map_err(|error| nats(&what, error))?;
    let subjects = stream.info_with_subjects(names.all_schedules()).await;
    let subjects = subjects.map_err(|error| nats(&what, error))?;
    let subjects: Vec<(String, usize)> = subjects
        .try_collect()
        .await
        .map_err(|error| nats(&what, error))?;
    let ids = subjects
        .iter()
        .filter_map(|(subject, _)| names.schedule_of(subject));
    Ok(ids.collect())
}

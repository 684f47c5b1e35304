//! Streams and buckets: what they must look like, and how they are provisioned. The consumers of
//! queues are in [`crate::queues`].
//!
//! The problem: backends and workers may start in any order and at the same time, each with its
//! own settings. A start must not depend on a set-up step, and two processes with different
//! settings must not overwrite each other again and again.
//!
//! How it is solved: every process creates what is missing. Only a backend changes what exists, and
//! only once, when it starts. It changes the settings that the protocol needs and keeps all others,
//! for example the placement that an operator chose. What cannot be changed (storage, retention
//! policy) is an error that says how to get out of it.
//!
//! Rejected: a separate program that provisions, because every demo, test and upgrade would have
//! to run it first. Also rejected: letting workers change streams, because one worker with an old
//! setting could then shorten the retention for all.

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{Context, CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{kv, object_store};

use crate::key_values::{Found, KeyError, KeyValues};
use crate::settings::ProtocolOptions;
use crate::telemetry::short;
use ktrdr_protocol::id::WorkerType;
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_protocol::worker::PREFIX_KEY;

/// How long the server remembers message ids. The server recognises a start that is repeated within
/// this time, and the projection recognises later ones.
const DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// Why something could not be provisioned.
#[derive(Debug, thiserror::Error)]
pub enum TopologyError {
    /// It exists with a setting that does not fit and cannot be changed.
    #[error(
        "{what} exists with {field} {found}, but {wanted} is needed: remove it, or choose another KTRDR_SUBJECT_PREFIX"
    )]
    Incompatible {
        /// The stream, bucket or consumer.
        what: String,
        /// The setting that does not fit.
        field: &'static str,
        /// Its value.
        found: String,
        /// The value that is needed.
        wanted: String,
    },
    /// It belongs to another prefix: `acme.prod` and `acme_prod` have the same names of streams.
    #[error(
        "{what} belongs to another KTRDR_SUBJECT_PREFIX: it has {found}, but {wanted} is needed. Choose another KTRDR_SUBJECT_PREFIX"
    )]
    Foreign {
        /// The stream.
        what: String,
        /// Its subjects.
        found: String,
        /// A subject that it would have if it were of this prefix.
        wanted: String,
    },
    /// The server has as many consumers on the stream as it may have.
    #[error(
        "cannot create {what}: the stream has as many consumers as it may have. Remove consumers that nobody needs, or raise the stream's max_consumers"
    )]
    ConsumerLimit {
        /// The consumer.
        what: String,
    },
    /// NATS refused or did not answer.
    #[error("cannot provision {what}")]
    Nats {
        /// The stream, bucket or consumer.
        what: String,
        /// The error of the client library.
        #[source]
        source: async_nats::Error,
    },
}

impl TopologyError {
    /// Whether trying again later may help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Nats { .. } | Self::ConsumerLimit { .. })
    }
}

pub(crate) fn nats(what: &str, source: impl Into<async_nats::Error>) -> TopologyError {
    TopologyError::Nats {
        what: what.to_owned(),
        source: source.into(),
    }
}

/// Which program provisions. It decides what may be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Creates what is missing and changes what differs.
    Backend,
    /// Creates what is missing.
    Worker,
}

/// The stream of start requests, state changes and cancel intents.
pub fn operations_stream(names: &SubjectNames, options: &ProtocolOptions) -> Config {
    Config {
        name: names.stream(),
        description: Some(
            "KTRDR operations: start requests, state changes, cancel intents".to_owned(),
        ),
        subjects: names.stream_subjects(),
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        // A full stream must refuse new work: discarding old messages would lose operations that
        // were acknowledged.
        discard: DiscardPolicy::New,
        max_bytes: options.stream_max_bytes,
        max_age: options.retention,
        duplicate_window: DUPLICATE_WINDOW.min(options.retention),
        allow_direct: true,
        num_replicas: usize::from(options.stream_replicas),
        ..Config::default()
    }
}

/// The stream of metric batches. When it is full, the oldest batches are dropped: no operation
/// depends on them.
pub fn metrics_stream(names: &SubjectNames, options: &ProtocolOptions) -> Config {
    Config {
        name: names.metrics_stream(),
        description: Some("KTRDR metric points, in batches".to_owned()),
        subjects: names.metrics_subjects(),
        discard: DiscardPolicy::Old,
        max_bytes: -1,
        ..operations_stream(names, options)
    }
}

/// Provisions everything that does not belong to a single worker type.
///
/// # Errors
/// [`TopologyError`].
pub async fn ensure(
    jetstream: &Context,
    names: &SubjectNames,
    options: &ProtocolOptions,
    role: Role,
) -> Result<(), TopologyError> {
    ensure_stream(jetstream, operations_stream(names, options), role).await?;
    ensure_stream(jetstream, metrics_stream(names, options), role).await?;

    let replicas = usize::from(options.stream_replicas);
    ensure_kv(
        jetstream,
        kv::Config {
            bucket: names.worker_types_bucket(),
            description: "KTRDR worker types".to_owned(),
            history: 1,
            num_replicas: replicas,
            ..kv::Config::default()
        },
    )
    .await?;
    ensure_kv(
        jetstream,
        kv::Config {
            bucket: names.checkpoints_bucket(),
            description: "KTRDR checkpoints of unfinished operations".to_owned(),
            history: 1,
            max_age: options.retention,
            num_replicas: replicas,
            ..kv::Config::default()
        },
    )
    .await?;
    ensure_object_store(
        jetstream,
        object_store::Config {
            bucket: names.results_bucket(),
            description: Some("KTRDR results above 256 KiB".to_owned()),
            max_age: options.retention,
            num_replicas: replicas,
            ..object_store::Config::default()
        },
    )
    .await?;
    if role == Role::Backend {
        for (stream, max_age) in [
            (format!("KV_{}", names.worker_types_bucket()), None),
            (
                format!("KV_{}", names.checkpoints_bucket()),
                Some(options.retention),
            ),
            (
                format!("OBJ_{}", names.results_bucket()),
                Some(options.retention),
            ),
        ] {
            adjust_bucket(jetstream, &stream, replicas, max_age).await?;
        }
        record_prefix(jetstream, names).await?;
    }
    Ok(())
}

/// Whether a backend of this prefix has provisioned streams and buckets. A worker then needs to look
/// at none of them. `false` also when all backends are of version 0.1.0.
///
/// # Errors
/// [`TopologyError::Foreign`] when it was a backend of another prefix.
pub async fn is_provisioned(
    jetstream: &Context,
    names: &SubjectNames,
) -> Result<bool, TopologyError> {
    Ok(read_prefix(jetstream, names).await?.is_ok())
}

/// Checks the recorded prefix. Without one, returns the revision to write it behind.
async fn read_prefix(
    jetstream: &Context,
    names: &SubjectNames,
) -> Result<Result<(), u64>, TopologyError> {
    let bucket = names.worker_types_bucket();
    let what = format!("bucket {bucket}");
    let found = match KeyValues::new(jetstream.clone(), bucket)
        .read(PREFIX_KEY)
        .await
    {
        Ok(found) => found,
        Err(KeyError::NoBucket { .. }) => return Ok(Err(0)),
        Err(error) => return Err(nats(&what, error)),
    };
    match found {
        None => Ok(Err(0)),
        Some(Found {
            value: None,
            revision,
        }) => Ok(Err(revision)),
        Some(Found {
            value: Some(value), ..
        }) if *value == *names.prefix().as_bytes() => Ok(Ok(())),
        Some(Found {
            value: Some(value), ..
        }) => Err(TopologyError::Foreign {
            what,
            found: format!("the prefix {}", short(&String::from_utf8_lossy(&value))),
            wanted: names.prefix().to_owned(),
        }),
    }
}

async fn record_prefix(jetstream: &Context, names: &SubjectNames) -> Result<(), TopologyError> {
    let Err(revision) = read_prefix(jetstream, names).await? else {
        return Ok(());
    };
    let bucket = names.worker_types_bucket();
    let what = format!("bucket {bucket}");
    let written = KeyValues::new(jetstream.clone(), bucket)
        .update(PREFIX_KEY, names.prefix().to_owned().into(), revision)
        .await;
    match written {
        Ok(_) => Ok(()),
        // Another backend may have been faster.
        Err(error) => match read_prefix(jetstream, names).await? {
            Ok(()) => Ok(()),
            Err(_) => Err(nats(&what, error)),
        },
    }
}

/// Changes the stream behind a bucket to this number of replicas and this retention. It may have
/// been created with other settings.
///
/// In key-value buckets, nobody may roll up: a message with the header `Nats-Rollup: all` removes
/// every other message of the stream, and permissions are about subjects, not headers. A worker that
/// may write one key could remove those of all others. Object stores need it; each worker type has
/// one of its own.
async fn adjust_bucket(
    jetstream: &Context,
    name: &str,
    replicas: usize,
    max_age: Option<Duration>,
) -> Result<(), TopologyError> {
    let what = format!("stream {name}");
    let existing = jetstream
        .get_stream(name)
        .await
        .map_err(|error| nats(&what, error))?
        .cached_info()
        .config
        .clone();

    let mut wanted = existing.clone();
    wanted.num_replicas = replicas;
    wanted.max_age = max_age.unwrap_or(existing.max_age);
    wanted.allow_rollup = existing.allow_rollup && !name.starts_with("KV_");
    // The server refuses to remember message ids for longer than it keeps the messages.
    if !wanted.max_age.is_zero() {
        wanted.duplicate_window = existing.duplicate_window.min(wanted.max_age);
    }
    if wanted == existing {
        return Ok(());
    }

    tracing::info!(
        stream = name,
        replicas,
        "changing the bucket to this backend's settings"
    );
    jetstream
        .update_stream(&wanted)
        .await
        .map(drop)
        .map_err(|error| nats(&what, error))
}

/// Creates the stream, or checks the existing one. A backend also changes what differs.
///
/// # Errors
/// [`TopologyError`].
pub async fn ensure_stream(
    jetstream: &Context,
    wanted: Config,
    role: Role,
) -> Result<(), TopologyError> {
    let what = format!("stream {}", wanted.name);
    let existing = match jetstream.get_stream(&wanted.name).await {
        Ok(stream) => stream.cached_info().config.clone(),
        Err(error) if matches!(error.kind(), GetStreamErrorKind::JetStream(ref e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND) =>
        {
            match jetstream.create_stream(&wanted).await {
                Ok(_) => return Ok(()),
                // Another process created it in the meantime, maybe with other settings.
                Err(error) if matches!(error.kind(), CreateStreamErrorKind::JetStream(ref e) if e.error_code() == ErrorCode::STREAM_NAME_EXIST) =>
                {
                    let stream = jetstream
                        .get_stream(&wanted.name)
                        .await
                        .map_err(|error| nats(&what, error))?;
                    stream.cached_info().config.clone()
                }
                Err(error) => return Err(nats(&what, error)),
            }
        }
        Err(error) => return Err(nats(&what, error)),
    };

    check_owner(&existing, &wanted)?;

    let incompatible = |field, found: String, wanted: String| {
        Err(TopologyError::Incompatible {
            what: what.clone(),
            field,
            found,
            wanted,
        })
    };
    if existing.retention != wanted.retention {
        return incompatible(
            "retention",
            format!("{:?}", existing.retention),
            format!("{:?}", wanted.retention),
        );
    }
    if existing.storage != wanted.storage {
        return incompatible(
            "storage",
            format!("{:?}", existing.storage),
            format!("{:?}", wanted.storage),
        );
    }
    if existing.sealed || existing.mirror.is_some() {
        return incompatible("a mirror or seal", "set".to_owned(), "none".to_owned());
    }

    // All other settings stay as the operator chose them (placement, compression, more subjects …).
    let mut merged = existing.clone();
    merged.subjects.extend(
        wanted
            .subjects
            .iter()
            .filter(|s| !existing.subjects.contains(s))
            .cloned(),
    );
    merged.discard = wanted.discard;
    merged.max_age = wanted.max_age;
    merged.max_bytes = wanted.max_bytes;
    merged.duplicate_window = wanted.duplicate_window;
    merged.allow_direct = true;
    merged.num_replicas = wanted.num_replicas;
    if merged == existing {
        return Ok(());
    }

    if role == Role::Worker {
        tracing::debug!(stream = %wanted.name, "the stream differs from this worker's settings; only a backend changes it");
        return Ok(());
    }
    tracing::info!(stream = %wanted.name, "changing the stream to this backend's settings");
    jetstream
        .update_stream(&merged)
        .await
        .map(drop)
        .map_err(|error| nats(&what, error))
}

/// Checks that an existing stream is of this prefix: it has at least one of the subjects that it
/// must have. Two prefixes can have the same name of a stream, but never a subject in common.
fn check_owner(existing: &Config, wanted: &Config) -> Result<(), TopologyError> {
    let is_ours = wanted.subjects.iter().any(|subject| {
        let mut found = existing.subjects.iter();
        found.any(|found| covers(found, subject))
    });
    match wanted.subjects.first() {
        Some(subject) if !is_ours => Err(TopologyError::Foreign {
            what: format!("stream {}", wanted.name),
            found: match existing.subjects.as_slice() {
                [] => "no subjects".to_owned(),
                found => found.join(", "),
            },
            wanted: subject.clone(),
        }),
        _ => Ok(()),
    }
}

/// Whether everything on `subject` is also on `pattern`; both may hold wildcards.
fn covers(pattern: &str, subject: &str) -> bool {
    let mut tokens = subject.split('.');
    for wanted in pattern.split('.') {
        match (wanted, tokens.next()) {
            (">", Some(_)) => return true,
            ("*", Some(token)) if token != ">" => {}
            (wanted, Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

/// Creates the object store of one worker type's large results.
///
/// # Errors
/// [`TopologyError`].
pub async fn ensure_results_of(
    jetstream: &Context,
    names: &SubjectNames,
    options: &ProtocolOptions,
    worker_type: &WorkerType,
) -> Result<(), TopologyError> {
    let bucket = names.results_bucket_of(worker_type);
    let replicas = usize::from(options.stream_replicas);
    let config = object_store::Config {
        bucket: bucket.clone(),
        description: Some(format!("KTRDR results above 256 KiB of {worker_type}")),
        max_age: options.retention,
        num_replicas: replicas,
        ..object_store::Config::default()
    };
    ensure_object_store(jetstream, config).await?;
    let stream = format!("OBJ_{bucket}");
    adjust_bucket(jetstream, &stream, replicas, Some(options.retention)).await
}

async fn ensure_kv(jetstream: &Context, config: kv::Config) -> Result<(), TopologyError> {
    if jetstream.get_key_value(&config.bucket).await.is_ok() {
        return Ok(());
    }
    let what = format!("bucket {}", config.bucket);
    match jetstream.create_key_value(config.clone()).await {
        Ok(_) => Ok(()),
        // Another process created it in the meantime.
        Err(_) if jetstream.get_key_value(&config.bucket).await.is_ok() => Ok(()),
        Err(error) => Err(nats(&what, error)),
    }
}

async fn ensure_object_store(
    jetstream: &Context,
    config: object_store::Config,
) -> Result<(), TopologyError> {
    if jetstream.get_object_store(&config.bucket).await.is_ok() {
        return Ok(());
    }
    let what = format!("bucket {}", config.bucket);
    match jetstream.create_object_store(config.clone()).await {
        Ok(_) => Ok(()),
        Err(_) if jetstream.get_object_store(&config.bucket).await.is_ok() => Ok(()),
        Err(error) => Err(nats(&what, error)),
    }
}

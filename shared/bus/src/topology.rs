//! Streams and buckets: what they must look like, and how they are provisioned. The consumers of
//! queues are in [`crate::queues`].
//!
//! The problem: backends and workers may start in any order and at the same time, each with its
//! own settings. A start must not depend on a set-up step, and two processes with different
//! settings must not overwrite each other again and again.
//!
//! How it is solved: backends create what is missing; the first one writes its settings with the
//! operations stream, and all others follow them ([`crate::stream_settings`]). What exists is
//! changed only where it differs from the settings in force or from what the protocol needs. All
//! else stays as it is, for example the placement that an operator chose. What cannot be changed
//! (storage, retention policy) is an error that says how to get out of it. Workers create nothing
//! here: they wait for a backend.
//!
//! Rejected: a separate program that provisions, because every demo, test and upgrade would have
//! to run it first. Also rejected: letting workers create streams, because their settings may be
//! others than those of the backends, and they would need the rights for it.

mod batches;
mod change;
mod refused;

use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{Context, CreateStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{kv, object_store};

use self::batches::{ensure_logs, ensure_metrics};
pub use self::batches::{logs_stream, metrics_stream};
pub use self::change::{change, in_force, is_not_found, set_age};
use self::change::{longest_lease, raised};

use crate::keeping::base_age;
use crate::key_values::{Found, KeyError, KeyValues};
use crate::stream_settings::{StoredSettings, StreamSettings};
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
    /// Others changed the stream at the same time, again and again.
    #[error("others changed {what} at the same time; try again")]
    Busy {
        /// The stream.
        what: String,
    },
    /// The server refuses it, and would refuse it at every further try.
    #[error("the server refuses {what}. {remedy}")]
    Refused {
        /// The stream, bucket or consumer.
        what: String,
        /// What to do.
        remedy: &'static str,
        /// The error of the client library.
        #[source]
        source: async_nats::Error,
    },
    /// NATS refused, or did not answer.
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
        matches!(
            self,
            Self::Nats { .. } | Self::ConsumerLimit { .. } | Self::Busy { .. }
        )
    }
}

impl TopologyError {
    /// Whether the server refused or did not answer. All else is about what exists already.
    fn is_about_server(&self) -> bool {
        matches!(self, Self::Nats { .. } | Self::Refused { .. })
    }
}

pub(crate) fn nats(what: &str, source: impl Into<async_nats::Error>) -> TopologyError {
    let (what, source) = (what.to_owned(), source.into());
    match refused::remedy(&*source) {
        Some(remedy) => TopologyError::Refused {
            what,
            remedy,
            source,
        },
        None => TopologyError::Nats { what, source },
    }
}

/// The stream of start requests, state changes and cancel intents, as a backend makes it.
pub fn operations_stream(names: &SubjectNames, settings: &StreamSettings) -> Config {
    Config {
        name: names.stream(),
        description: Some(
            "KTRDR operations: start requests, state changes, cancel intents, keys".to_owned(),
        ),
        subjects: names.stream_subjects(),
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        // A full stream must refuse new work: discarding old messages would lose operations that
        // were acknowledged.
        discard: DiscardPolicy::New,
        max_bytes: settings.stream_max_bytes,
        max_age: base_age(settings.retention),
        duplicate_window: DUPLICATE_WINDOW.min(settings.retention),
        allow_direct: true,
        num_replicas: usize::from(settings.replicas),
        metadata: settings.metadata(),
        ..Config::default()
    }
}

/// Provisions everything that does not belong to a single worker type, and returns the settings in
/// force. A stream that is made now gets those of `if_new`; one that exists keeps its own.
///
/// # Errors
/// [`TopologyError`].
pub async fn ensure(
    jetstream: &Context,
    names: &SubjectNames,
    if_new: &StreamSettings,
) -> Result<StreamSettings, TopologyError> {
    let (settings, max_age) = ensure_operations(jetstream, names, if_new).await?;
    ensure_metrics(jetstream, names, &settings, max_age).await?;
    ensure_logs(jetstream, logs_stream(names, &settings, max_age)).await?;

    let replicas = usize::from(settings.replicas);
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
            max_age,
            max_bytes: settings.checkpoints_max_bytes,
            num_replicas: replicas,
            ..kv::Config::default()
        },
    )
    .await?;
    let results = names.results_bucket();
    let description = "KTRDR results above 256 KiB".to_owned();
    ensure_object_store(jetstream, results_bucket(&results, description, &settings)).await?;

    let types = SubjectNames::key_values_stream(&names.worker_types_bucket());
    adjust_bucket(jetstream, &types, replicas, None).await?;
    let kept = Kept {
        max_age,
        max_bytes: settings.checkpoints_max_bytes,
    };
    let checkpoints = SubjectNames::key_values_stream(&names.checkpoints_bucket());
    adjust_bucket(jetstream, &checkpoints, replicas, Some(kept)).await?;
    adjust_results(jetstream, &results, &settings).await?;
    record_prefix(jetstream, names).await?;
    Ok(settings)
}

/// How long and how much a bucket keeps.
#[derive(Debug, Clone, Copy)]
struct Kept {
    max_age: Duration,
    max_bytes: i64,
}

fn results_bucket(
    bucket: &str,
    description: String,
    settings: &StreamSettings,
) -> object_store::Config {
    object_store::Config {
        bucket: bucket.to_owned(),
        description: Some(description),
        max_age: base_age(settings.retention),
        max_bytes: settings.results_max_bytes,
        num_replicas: usize::from(settings.replicas),
        ..object_store::Config::default()
    }
}

async fn adjust_results(
    jetstream: &Context,
    bucket: &str,
    settings: &StreamSettings,
) -> Result<(), TopologyError> {
    let kept = Kept {
        max_age: base_age(settings.retention),
        max_bytes: settings.results_max_bytes,
    };
    let replicas = usize::from(settings.replicas);
    adjust_bucket(
        jetstream,
        &SubjectNames::objects_stream(bucket),
        replicas,
        Some(kept),
    )
    .await
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

/// Changes the stream behind a bucket to this number of replicas and to what it is to keep; `None`
/// leaves the latter as it is.
///
/// In key-value buckets, nobody may roll up: a message with the header `Nats-Rollup: all` removes
/// every other message of the stream, and permissions are about subjects, not headers. A worker that
/// may write one key could remove those of all others. Object stores need it; each worker type has
/// one of its own.
async fn adjust_bucket(
    jetstream: &Context,
    name: &str,
    replicas: usize,
    kept: Option<Kept>,
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
    if let Some(kept) = kept {
        wanted.max_age = kept.max_age;
        wanted.max_bytes = kept.max_bytes;
    }
    wanted.allow_rollup = existing.allow_rollup && !name.starts_with("KV_");
    // The server refuses to remember message ids for longer than it keeps the messages.
    if !wanted.max_age.is_zero() {
        wanted.duplicate_window = existing.duplicate_window.min(wanted.max_age);
    }
    update(jetstream, &existing, &wanted).await
}

/// Creates the operations stream, or brings it in line. Returns the settings in force, and the age
/// limit of the stream.
async fn ensure_operations(
    jetstream: &Context,
    names: &SubjectNames,
    if_new: &StreamSettings,
) -> Result<(StreamSettings, Duration), TopologyError> {
    let wanted = operations_stream(names, if_new);
    let Some(existing) = find_or_create(jetstream, &wanted).await? else {
        return Ok((*if_new, wanted.max_age));
    };
    check_usable(&existing, &wanted)?;

    let stored = StoredSettings::of(&existing);
    let settings = match stored.complete() {
        Some(settings) => settings,
        None => {
            let lease = longest_lease(jetstream, names).await?;
            let settings = stored.complete_with(lease.unwrap_or(if_new.lease));
            tracing::info!(
                ?settings,
                "the stream has no settings of its own; writing down what it does"
            );
            settings
        }
    };

    let wanted = operations_stream(names, &settings);
    let mut merged = merge(&existing, &wanted);
    merged.max_bytes = existing.max_bytes;
    merged.max_age = raised(existing.max_age, wanted.max_age);
    merged.metadata.extend(wanted.metadata);
    update(jetstream, &existing, &merged).await?;
    Ok((settings, merged.max_age))
}

/// Creates the stream. Returns the configuration of one that exists already.
async fn find_or_create(
    jetstream: &Context,
    wanted: &Config,
) -> Result<Option<Config>, TopologyError> {
    let what = format!("stream {}", wanted.name);
    match jetstream.get_stream(&wanted.name).await {
        Ok(stream) => return Ok(Some(stream.cached_info().config.clone())),
        Err(error) if is_not_found(&error) => {}
        Err(error) => return Err(nats(&what, error)),
    }
    match jetstream.create_stream(wanted).await {
        Ok(_) => Ok(None),
        // Another backend created it in the meantime, maybe with other settings.
        Err(error) if matches!(error.kind(), CreateStreamErrorKind::JetStream(ref e) if e.error_code() == ErrorCode::STREAM_NAME_EXIST) =>
        {
            let stream = jetstream
                .get_stream(&wanted.name)
                .await
                .map_err(|error| nats(&what, error))?;
            Ok(Some(stream.cached_info().config.clone()))
        }
        Err(error) => Err(nats(&what, error)),
    }
}

/// Checks what cannot be changed.
fn check_usable(existing: &Config, wanted: &Config) -> Result<(), TopologyError> {
    check_owner(existing, wanted)?;

    let incompatible = |field, found: String, needed: String| {
        Err(TopologyError::Incompatible {
            what: format!("stream {}", wanted.name),
            field,
            found,
            wanted: needed,
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
    Ok(())
}

/// The existing configuration with what the protocol and the settings in force need. All else stays
/// as the operator chose it (placement, compression, more subjects …).
fn merge(existing: &Config, wanted: &Config) -> Config {
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
    merged
}

async fn update(
    jetstream: &Context,
    existing: &Config,
    wanted: &Config,
) -> Result<(), TopologyError> {
    if wanted == existing {
        return Ok(());
    }

    tracing::info!(
        stream = %wanted.name,
        replicas = wanted.num_replicas,
        max_age = ?wanted.max_age,
        max_bytes = wanted.max_bytes,
        "bringing the stream in line with the settings in force"
    );
    jetstream
        .update_stream(wanted)
        .await
        .map(drop)
        .map_err(|error| nats(&format!("stream {}", wanted.name), error))
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

/// Creates the object store of one worker type's large results, or brings it in line.
///
/// # Errors
/// [`TopologyError`].
pub async fn ensure_results_of(
    jetstream: &Context,
    names: &SubjectNames,
    settings: &StreamSettings,
    worker_type: &WorkerType,
) -> Result<(), TopologyError> {
    let bucket = names.results_bucket_of(worker_type);
    let description = format!("KTRDR results above 256 KiB of {worker_type}");
    ensure_object_store(jetstream, results_bucket(&bucket, description, settings)).await?;
    adjust_results(jetstream, &bucket, settings).await
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

//! Publishes the worker type into the catalogue.
//!
//! The problem: workers of two versions of one type may run at the same time, and each connects
//! again now and then. If each wrote its own entry, the catalogue would change to and fro, and with
//! it what backends accept.
//!
//! How it is solved: each version has a key of its own ([`version_key`]), which its first worker writes
//! and nobody changes. So the revisions of these keys say in which order versions came, and a
//! backend chooses the newest one that living workers have. The key of the type itself is for
//! backends of the release before: a worker writes it when it is missing, or when its version is
//! new.
//!
//! Rejected: comparing version numbers. An engine has none, and a step back would have to raise it.
//!
//! A domain belongs to the worker type that had it first, and backends write down which one that is
//! ([`domain_key`]). A worker whose domain belongs to another type ends: nobody could start anything
//! on it. It looks before it registers, and then until its own type is on record, because two types
//! may register at the same time. Later it never ends for this reason: it may be at work.

use std::time::Duration;

use ktrdr_bus::key_values::{KeyError, KeyValues};
use ktrdr_bus::telemetry::{Repeated, chain, short};
use ktrdr_bus::topology::TopologyError;
use ktrdr_protocol::schema_text::SchemaText;
use ktrdr_protocol::worker::{WorkerTypeEntry, domain_key, version_key};

use crate::engine::declaration::BadDeclaration;
use crate::engine::erased::digest;
use crate::worker::core::Core;
use crate::worker::error::WorkerError;

/// How long a look at the owner of the domain may take. A worker without the permission gets no
/// answer, and then goes on without: backends say what is wrong.
const LOOK: Duration = Duration::from_secs(2);

/// Lines about a version that could not be published.
static FAILURES: Repeated = Repeated::new();

/// What this worker knows about who has its domain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum DomainOwner {
    /// Nobody is on record.
    #[default]
    Open,
    /// Its own type was.
    Own,
    /// It got no answer.
    Untold,
}

/// The registration of this worker's type, over all connections.
#[derive(Debug, Default)]
pub(crate) struct Registration {
    owner: DomainOwner,
}

impl Registration {
    /// Puts this worker's type into the catalogue, unless it is there already.
    ///
    /// # Errors
    /// [`WorkerError::Topology`] when NATS does not answer, or the bucket is missing.
    /// [`WorkerError::Declaration`] when the domain belongs to another worker type.
    pub(crate) async fn publish(&mut self, core: &Core) -> Result<(), WorkerError> {
        if self.owner == DomainOwner::Untold {
            self.owner = DomainOwner::Open;
        }
        self.look_at_domain(core).await?;
        publish(core).await?;
        Ok(())
    }

    /// Looks who has the domain, while that is open.
    ///
    /// # Errors
    /// [`WorkerError::Declaration`] when it is another worker type.
    pub(crate) async fn look_at_domain(&mut self, core: &Core) -> Result<(), WorkerError> {
        if self.owner != DomainOwner::Open {
            return Ok(());
        }
        let domain = &core.info.domain;
        let store = KeyValues::new(
            core.connection.jetstream.clone(),
            core.names.worker_types_bucket(),
        );
        let found = tokio::time::timeout(LOOK, store.read(&domain_key(domain))).await;
        let Ok(Ok(found)) = found else {
            self.owner = DomainOwner::Untold;
            return Ok(());
        };

        let owner = found.and_then(|found| found.value);
        match owner.as_deref() {
            None => Ok(()),
            Some(owner) if *owner == *core.worker_type.as_str().as_bytes() => {
                self.owner = DomainOwner::Own;
                Ok(())
            }
            Some(owner) => {
                let fault = BadDeclaration::TakenDomain {
                    domain: domain.to_string(),
                    owner: short(&String::from_utf8_lossy(owner)),
                };
                Err(WorkerError::declaration(&core.info, fault))
            }
        }
    }
}

/// Puts this worker's type into the catalogue, unless it is there already.
async fn publish(core: &Core) -> Result<(), TopologyError> {
    let bucket = core.names.worker_types_bucket();
    let failed = |source: async_nats::Error| TopologyError::Nats {
        what: format!("bucket {bucket}"),
        source,
    };
    let entry = WorkerTypeEntry {
        worker_type: core.worker_type.clone(),
        domain: core.info.domain.to_string(),
        description: core.info.description.to_string(),
        request_schema: SchemaText::of(&core.info.request_schema),
        result_schema: SchemaText::of(&core.info.result_schema),
        version: core.info.version.to_string(),
        schema_digest: Some(core.info.schema_digest),
        execution_defaults: core.info.execution_defaults,
    };
    let payload = serde_json::to_vec(&entry).map_err(|error| failed(error.into()))?;

    let store = KeyValues::new(core.connection.jetstream.clone(), bucket.as_str());
    let is_new = add_version(core, &store, &payload)
        .await
        .map_err(|error| failed(error.into()))?;
    let known = store
        .read(core.worker_type.as_str())
        .await
        .map_err(|error| failed(error.into()))?
        .and_then(|found| found.value);
    let is_written = match known {
        None => true,
        Some(known) => is_new && *known != *payload,
    };
    if is_written {
        store
            .put(core.worker_type.as_str(), payload.into())
            .await
            .map_err(|error| failed(error.into()))?;
        tracing::info!(worker_type = %core.worker_type, domain = %core.info.domain, "worker type registered");
    }
    Ok(())
}

/// Whether the catalogue has an entry of this worker's type, in whatever version.
///
/// # Errors
/// [`TopologyError`] when NATS does not answer, or the bucket is missing.
pub(crate) async fn is_registered(core: &Core) -> Result<bool, TopologyError> {
    let bucket = core.names.worker_types_bucket();
    let what = format!("bucket {bucket}");
    let store = KeyValues::new(core.connection.jetstream.clone(), bucket);
    match store.read(core.worker_type.as_str()).await {
        // Also when somebody has removed it: this worker serves the type.
        Ok(found) => Ok(found.is_some_and(|found| found.value.is_some())),
        Err(error) => Err(TopologyError::Nats {
            what,
            source: error.into(),
        }),
    }
}

/// Writes this version of the worker type. Returns whether it was new. A worker without the
/// permission says so, and its version counts as new, as before there were versions.
///
/// # Errors
/// When there is no bucket.
async fn add_version(core: &Core, store: &KeyValues, payload: &[u8]) -> Result<bool, KeyError> {
    let version = digest(payload).to_string();
    let key = version_key(&core.worker_type, &version);
    let revision = match store.read(&key).await {
        Ok(Some(found)) if found.value.is_some() => return Ok(false),
        Ok(Some(removed)) => removed.revision,
        Ok(None) => 0,
        Err(error @ KeyError::NoBucket { .. }) => return Err(error),
        Err(error) => {
            note_failure(&error);
            return Ok(true);
        }
    };

    match store.update(&key, payload.to_vec().into(), revision).await {
        Ok(_) => Ok(true),
        // Another worker of this version was faster, or the permission is missing.
        Err(error) => match store.read(&key).await {
            Ok(Some(found)) if found.value.is_some() => Ok(false),
            _ => {
                note_failure(&error);
                Ok(true)
            }
        },
    }
}

fn note_failure(error: &dyn std::error::Error) {
    let Some(count) = FAILURES.note() else {
        return;
    };
    tracing::warn!(
        error = chain(error),
        count,
        "this version of the worker type could not be published: while workers of other versions run, backends may check start requests against theirs"
    );
}

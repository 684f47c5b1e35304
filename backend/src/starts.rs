//! Starts operations: what `POST …/start`, retries and schedules share.

mod times;
mod unique;

use std::borrow::Cow;
use std::sync::Arc;

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use ktrdr_bus::oplog::Stored;
use ktrdr_http::openapi::{Describe, Description};
use ktrdr_http::repeated::{Asked, check_same};
use ktrdr_http::start_body::StartBody;
use ktrdr_http::tokens::{Principal, Scope};
use ktrdr_protocol::execution::ExecutionOptions;
use ktrdr_protocol::id::{OperationId, ScheduleId};
use ktrdr_protocol::queue_class;
use ktrdr_protocol::requirements::Requirements;
use ktrdr_protocol::rest::start::StartResponse;
use ktrdr_protocol::schedule::Schedule;
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::token_name::TokenName;
use ktrdr_protocol::trace::TraceParent;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::catalogue::CatalogueEntry;
use crate::config::Admission;
use crate::error::{ApiError, ErrorCode};
use crate::projection::READ_YOUR_WRITES;
use crate::projection::record::View;
use crate::state::AppState;

pub use self::times::check_repeated;
use self::unique::Started;

/// The answer to a start, with the operation's address in the header `Location`.
pub struct StartAnswer {
    /// 202, or 200 when it was started before.
    pub status: StatusCode,
    /// The document.
    pub response: StartResponse<'static>,
}

impl StartAnswer {
    /// The answer when nothing was started, because there is this operation.
    fn existing(view: &View, message: String) -> Self {
        let record = &view.record;
        Self {
            status: StatusCode::OK,
            response: StartResponse {
                success: true,
                operation_id: Cow::Owned(record.id.clone()),
                status: view.status(),
                worker_id: record.worker_id().map(|worker| Cow::Owned(worker.clone())),
                queue_position: view.queue_position,
                existed: true,
                message: Some(message),
                warning: None,
            },
        }
    }

    /// The operation that was started, now or before.
    pub fn operation_id(&self) -> &OperationId {
        &self.response.operation_id
    }
}

impl IntoResponse for StartAnswer {
    fn into_response(self) -> Response {
        let location = format!("/api/v1/operations/{}", self.response.operation_id);
        (
            self.status,
            [(header::LOCATION, location)],
            Json(self.response),
        )
            .into_response()
    }
}

impl Describe for StartAnswer {
    fn describe(description: &mut Description<'_>) {
        let answers = [
            (202, "Accepted: stored, and visible to the next request."),
            (
                200,
                "The operation was started before, or holds the unique key; this is its state.",
            ),
        ];
        for (status, text) in answers {
            description.json::<StartResponse<'_>>(status, text);
            description.answer_header(status, "Location", "The address of the operation.");
        }
    }
}

/// A start whose body was checked.
pub enum Prepared {
    /// It is to be published, with this warning in the answer.
    New(Box<StartRequest>, Option<String>),
    /// It was started before.
    Before(StartAnswer),
}

/// Looks whether the operation was started before, and makes its start request if not.
///
/// # Errors
/// Those of a start.
pub async fn prepare(
    state: &AppState,
    requester: &Requester,
    entry: &CatalogueEntry,
    body: StartBody,
) -> Result<Prepared, ApiError> {
    // Each of the two ids says whether the operation was started before.
    let known = [&body.task_id, &requester.key]
        .into_iter()
        .flatten()
        .find_map(|id| state.projection.get(id.as_str()));
    let chosen = body.task_id.as_ref().or(requester.key.as_ref());
    let known = match (known, chosen) {
        (None, Some(id)) => used_before(state, entry, id).await?,
        (known, _) => known,
    };
    if let Some(known) = known {
        let asked = Asked {
            parameters: &body.parameters,
            execution: &body.execution,
        };
        let answer = requester.repeated(entry, &known, asked).await?;
        return Ok(Prepared::Before(answer));
    }

    let warning = admit(state, entry, &body.execution)?;
    let request = StartRequest::new(
        chosen.cloned().unwrap_or_else(OperationId::generate),
        entry.published.worker_type.clone(),
        body.parameters,
        body.execution,
    )
    .checked_against(entry.published.schema_digest)
    .requested_by(requester.principal.token_name().cloned());
    Ok(Prepared::New(Box::new(request), warning))
}

/// The worker type with this domain, if the client sees it.
///
/// # Errors
/// 404 with the domains that there are.
pub fn entry_of(
    state: &AppState,
    principal: &Principal,
    domain: &str,
) -> Result<Arc<CatalogueEntry>, ApiError> {
    state
        .catalogue
        .by_domain(domain)
        .filter(|entry| principal.sees(entry.published.worker_type.as_str()))
        .ok_or_else(|| unknown_domain(state, principal, domain))
}

/// Looks for the operation with this id. One that this projection does not know and that has a log was
/// either started by another backend a moment ago, or is so old that its start request has left the
/// stream before its events. The second case is refused: a worker would take a new start with this id
/// for the operation that has ended. Without a log, it may be in the archive.
///
/// # Errors
/// 409 `task_id_conflict`, or 503 when NATS does not answer.
pub async fn used_before(
    state: &AppState,
    entry: &CatalogueEntry,
    id: &OperationId,
) -> Result<Option<View>, ApiError> {
    if let Some(known) = state.projection.get(id.as_str()) {
        return Ok(Some(known));
    }
    let tail = state
        .dispatch
        .log_tail(&entry.published.worker_type, id)
        .await?;
    if tail == 0 {
        return Ok(archived(state, id).await);
    }

    let read = state.projection.reached(tail, READ_YOUR_WRITES).await;
    match state.projection.get(id.as_str()) {
        Some(known) => Ok(Some(known)),
        None if !read => {
            let text = format!(
                "The id {id} was used a moment ago, and this backend has not read that far. Try again"
            );
            Err(ApiError::new(ErrorCode::NotReady, text).with("operation_id", id.as_str()))
        }
        None => {
            let text = format!(
                "The id {id} was used before, by an operation that is no longer kept; choose another"
            );
            Err(ApiError::new(ErrorCode::TaskIdConflict, text).with("operation_id", id.as_str()))
        }
    }
}

/// The operation of the archive with this id. An archive that cannot be read keeps nobody from
/// starting operations; it logs that itself.
async fn archived(state: &AppState, id: &OperationId) -> Option<View> {
    let archive = state.archive.as_ref()?;
    archive.find(id.as_str()).await.ok().flatten()
}

/// Publishes a start request, and waits until this backend shows the operation.
///
/// # Errors
/// [`ApiError`]; only `outcome_unknown` leaves open whether it was stored.
pub async fn publish(
    state: &AppState,
    requester: &Requester,
    entry: &CatalogueEntry,
    request: StartRequest,
    warning: Option<String>,
    trace: Option<TraceParent>,
) -> Result<StartAnswer, ApiError> {
    tracing::Span::current().record("operation_id", request.operation_id.as_str());
    let stored = store(state, requester, request, warning, trace.as_ref()).await?;
    let is_shown = stored.is_shown(state).await;
    stored.answer(state, requester, entry, is_shown).await
}

/// A start request that is in the stream, or whose unique key another operation holds.
pub struct StoredStart {
    request: StartRequest,
    warning: Option<String>,
    started: Started,
}

/// Stores a start request, and does not wait until this backend shows the operation.
///
/// # Errors
/// As [`publish`].
pub async fn store(
    state: &AppState,
    requester: &Requester,
    request: StartRequest,
    warning: Option<String>,
    trace: Option<&TraceParent>,
) -> Result<StoredStart, ApiError> {
    let id = &request.operation_id;
    // Otherwise who guesses the id of a schedule could keep its slots from ever being started.
    if request.schedule_id.is_none()
        && let Some(of_slot) = state.schedules.type_of_slot(id)
        && of_slot != request.operation_type
    {
        return Err(taken(id));
    }
    check_room(state, id, &request.parameters)?;
    let started = store_request(state, requester, &request, trace).await?;
    Ok(StoredStart {
        request,
        warning,
        started,
    })
}

/// Refuses a start request, or a copy of one, for which the stream has no room.
///
/// # Errors
/// 507 `storage_full`.
pub fn check_room(
    state: &AppState,
    id: &OperationId,
    parameters: &RawValue,
) -> Result<(), ApiError> {
    if state.projection.has_room(parameters.get().len()) {
        return Ok(());
    }
    Err(ApiError::storage_full().with("operation_id", id.as_str()))
}

impl StoredStart {
    /// Behind which message a backend knows the operation.
    pub fn sequence(&self) -> u64 {
        match &self.started {
            Started::Stored(stored) => stored.sequence,
            Started::Other(_) => 0,
        }
    }

    /// Waits until this backend shows the operation. False when that takes too long.
    async fn is_shown(&self, state: &AppState) -> bool {
        let sequence = self.sequence();
        state.projection.reached(sequence, READ_YOUR_WRITES).await
    }

    /// The answer to the start.
    ///
    /// # Errors
    /// 409 when another operation with this id came first.
    pub async fn answer(
        self,
        state: &AppState,
        requester: &Requester,
        entry: &CatalogueEntry,
        is_shown: bool,
    ) -> Result<StartAnswer, ApiError> {
        let Self {
            request,
            warning,
            started,
        } = self;
        let Stored {
            sequence,
            was_known,
        } = match started {
            Started::Stored(stored) => stored,
            Started::Other(open) => return Ok(holder_of_key(&open)),
        };

        let id = &request.operation_id;
        let view = state.projection.get(id.as_str());
        if let Some(view) = view.as_ref()
            // Another request with the same id was faster, at this backend or at another one.
            && (was_known || view.record.start_sequence != sequence)
        {
            let asked = Asked {
                parameters: &request.parameters,
                execution: &request.execution,
            };
            return requester.repeated(entry, view, asked).await;
        }

        tracing::debug!(operation_id = %id, worker_type = %entry.published.worker_type, sequence, requested_by = requester.principal.name(), "accepted");
        // Of many starts, those that were stored first may be shown although the last one is not.
        let late = (view.is_none() && !is_shown).then(|| {
            "The operation is stored, but this backend lags behind and does not show it yet"
                .to_owned()
        });

        let view = view.as_ref();
        Ok(StartAnswer {
            status: StatusCode::ACCEPTED,
            response: StartResponse {
                success: true,
                operation_id: Cow::Owned(id.clone()),
                status: view.map_or(Status::Pending, View::status),
                worker_id: view
                    .and_then(|view| view.record.worker_id())
                    .map(|worker| Cow::Owned(worker.clone())),
                queue_position: view.and_then(|view| view.queue_position),
                existed: false,
                message: None,
                warning: late.or(warning),
            },
        })
    }
}

/// Stores a start request; one with a unique key only if no other operation holds the key.
async fn store_request(
    state: &AppState,
    requester: &Requester,
    request: &StartRequest,
    trace: Option<&TraceParent>,
) -> Result<Started, ApiError> {
    if let Some(unique) = &request.execution.unique {
        // Boxed because it is rare: every start's future would otherwise have room for it.
        return Box::pin(unique::start(state, requester, request, unique, trace)).await;
    }
    let now = state.projection.now();
    let stored = state.dispatch.start(request, trace, now, None).await?;
    let stored = stored.ok_or_else(|| ApiError::internal("a start without a key lost its key"))?;
    Ok(Started::Stored(stored))
}

/// The answer to a start that returns the operation which holds its unique key.
fn holder_of_key(view: &View) -> StartAnswer {
    let status = view.status();
    let message = format!(
        "Operation {} with the same unique key is {status}; nothing was started",
        view.record.id
    );
    StartAnswer::existing(view, message)
}

/// Starts an operation of a schedule for `requester`, beside its slots.
///
/// # Errors
/// Those of a start.
pub async fn now(
    state: &AppState,
    requester: &Requester,
    id: &ScheduleId,
    schedule: &Schedule,
    operation_id: OperationId,
    trace: Option<TraceParent>,
) -> Result<StartAnswer, ApiError> {
    let requested_by = requester.principal.token_name().cloned();
    let request = (operation_id, requested_by);
    from_schedule(state, requester, (id, schedule), request, trace).await
}

/// Starts the operation of a slot, in the name of the token that wrote the schedule. It must still be in
/// force, and allow that. With a unique key, the answer may be the operation that holds it.
///
/// # Errors
/// Those of a start.
pub async fn of_schedule(
    state: &AppState,
    id: &ScheduleId,
    schedule: &Schedule,
    operation_id: OperationId,
) -> Result<StartAnswer, ApiError> {
    let owner = schedule.created_by.as_ref();
    let principal = state.tokens.on_behalf_of(owner, Scope::Start);
    let principal = principal.map_err(|refused| {
        let name = owner.map_or("", TokenName::as_str);
        let text = format!(
            "The schedule was written with the token {name}, which may not start its operations any more: {refused}. Write it again with another token"
        );
        ApiError::new(refused.code(), text)
    })?;
    let requester = Requester {
        principal,
        key: None,
    };
    let request = (operation_id, schedule.created_by.clone());
    from_schedule(state, &requester, (id, schedule), request, None).await
}

async fn from_schedule(
    state: &AppState,
    requester: &Requester,
    (id, schedule): (&ScheduleId, &Schedule),
    (operation_id, requested_by): (OperationId, Option<TokenName>),
    trace: Option<TraceParent>,
) -> Result<StartAnswer, ApiError> {
    state.need_reader()?;
    let principal = &requester.principal;
    // The domain may belong to another type by now, which the writer of the schedule may not use.
    let entry = entry_of(state, principal, &schedule.domain)?;
    if entry.published.worker_type != schedule.worker_type {
        return Err(unknown_domain(state, principal, &schedule.domain));
    }
    let text = schedule.body.get().as_bytes().to_vec();
    let mut body = StartBody::check(text.into(), Some(entry.usable_schema().await?)).await?;
    body.task_id = Some(operation_id);

    let (request, warning) = match prepare(state, requester, &entry, body).await? {
        Prepared::New(request, warning) => (*request, warning),
        Prepared::Before(answer) => return Ok(answer),
    };
    let request = request.requested_by(requested_by).scheduled_by(id.clone());
    publish(state, requester, &entry, request, warning, trace).await
}

/// Who asks for a start.
#[derive(Clone)]
pub struct Requester {
    /// What it sees, and its name.
    pub principal: Principal,
    /// The id that belongs to its `Idempotency-Key`, if it sent one.
    pub key: Option<OperationId>,
}

impl Requester {
    /// The answer to an id that was started before: the operation now. Nothing is started.
    ///
    /// # Errors
    /// 409 `task_id_conflict` when it is another operation than the requester means, and
    /// `idempotency_mismatch` when it was started with another body.
    pub async fn repeated(
        &self,
        entry: &CatalogueEntry,
        view: &View,
        asked: Asked<'_>,
    ) -> Result<StartAnswer, ApiError> {
        let record = &view.record;
        let known_type = &record.queue.worker_type;
        if !self.principal.sees(known_type.as_str()) || self.is_foreign(view) {
            return Err(taken(&record.id));
        }
        if *known_type != entry.published.worker_type {
            let text = format!(
                "Operation {} exists already, as a {known_type} operation; choose another task_id",
                record.id
            );
            return Err(ApiError::new(ErrorCode::TaskIdConflict, text)
                .with("operation_id", record.id.as_str())
                .with("operation_type", known_type.as_str()));
        }

        let identified_by = if self.key.as_ref() == Some(&record.id) {
            "Idempotency-Key"
        } else {
            "task_id"
        };
        let default = ExecutionOptions::default();
        let execution = record
            .rare
            .as_ref()
            .and_then(|rare| rare.execution.as_ref());
        let first = Asked {
            parameters: &record.parameters,
            execution: execution.unwrap_or(&default),
        };
        check_same(&record.id, identified_by, first, asked).await?;

        let status = view.status();
        let message = format!(
            "Operation {} was started before and is {status}; nothing was started. Another {identified_by} starts another operation",
            record.id
        );
        Ok(StartAnswer::existing(view, message))
    }

    /// Whether the operation has the id of the key and was started by somebody else. That cannot
    /// come about by chance: somebody chose the id as `task_id`, to be taken for the operation of
    /// this token.
    fn is_foreign(&self, view: &View) -> bool {
        let (record, token) = (&view.record, self.principal.token_name());
        token.is_some()
            && self.key.as_ref() == Some(&record.id)
            && record.requested_by.as_ref() != token
    }
}

/// The refusal of an id that somebody else has.
fn taken(id: &OperationId) -> ApiError {
    let text = format!("The id {id} is taken; choose another task_id or Idempotency-Key");
    ApiError::new(ErrorCode::TaskIdConflict, text).with("operation_id", id.as_str())
}

/// The domains that the client may use, in order.
pub fn known_domains(state: &AppState, principal: &Principal) -> Vec<String> {
    state
        .catalogue
        .domains(|owner| principal.sees(owner.as_str()))
}

/// Checks whether a listed worker could run it now. If none can: a warning, or a refusal with strict
/// admission. A pause of the type is a warning.
///
/// # Errors
/// 503 `no_workers_available`, or 422 for requirements that no queue covers and for times that
/// contradict each other.
pub fn admit(
    state: &AppState,
    entry: &CatalogueEntry,
    execution: &ExecutionOptions,
) -> Result<Option<String>, ApiError> {
    times::check(state, execution)?;
    let worker_type = &entry.published.worker_type;
    // A worker serves the queue of a class when it meets the class, not only the request.
    let class = queue_class::covering(&execution.requirements).map_err(ApiError::beyond_largest)?;
    let candidates = state
        .registry
        .candidates(worker_type.as_str(), &class, Instant::now());
    let missing = candidates.why_none(worker_type, &class);
    if let (Some(missing), Admission::Strict) = (&missing, state.config.admission) {
        let text = format!("No workers available: {missing}");
        return Err(ApiError::new(ErrorCode::NoWorkers, text));
    }
    let paused = state.queues.lists.pauses.why(worker_type);
    let why = match (paused, missing) {
        (None, None) => return Ok(None),
        (Some(paused), None) => paused,
        (None, Some(missing)) => format!("{missing}; it waits until there is one"),
        (Some(paused), Some(missing)) => format!("{paused}, and {missing}"),
    };
    // The class may ask for more than the request.
    let class_name = match class == Requirements::default() {
        true => String::new(),
        false => format!(" as {}", class.queue()),
    };
    Ok(Some(format!(
        "The operation is queued{class_name}, but {why}"
    )))
}

/// The refusal of a domain that nobody has, or that the client does not see.
pub fn unknown_domain(state: &AppState, principal: &Principal, domain: &str) -> ApiError {
    let domain: String = domain.chars().take(128).collect();
    let known = known_domains(state, principal);
    let list = match (known.is_empty(), principal.types()) {
        (false, _) => known.join(", "),
        (true, None) => "none: no worker was ever started".to_owned(),
        (true, Some(_)) => "none that this token may use".to_owned(),
    };
    ApiError::new(
        ErrorCode::UnknownDomain,
        format!("Unknown domain {domain}; known domains: {list}"),
    )
    .with("known_domains", known)
}

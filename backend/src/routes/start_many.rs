//! `POST /api/v1/{domain}/start-many`.
//!
//! Every start is checked, compared with earlier ones and published like one of its own; only what is
//! around it (the request, its log line, its answer) is there once. Starts with the same id take their
//! turns in the order of the body, all others go side by side. These are stored first, and then the
//! request waits once until the backend shows all of them: to wait for each of them would wake the
//! request a thousand times, and keep a place among those that are on their way.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use futures::{StreamExt, stream};
use ktrdr_http::answer::RenderedJson;
use ktrdr_http::body::{BodyOf, read_body};
use ktrdr_http::many::start_bodies;
use ktrdr_http::schema::Schema;
use ktrdr_http::start_body::StartBody;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::rest::many::{ManyStarted, OneStarted, StartMany, StartManyResponse};
use ktrdr_protocol::trace::TraceParent;
use serde::Deserialize;
use tokio::time::Instant;

use super::PathText;
use crate::catalogue::CatalogueEntry;
use crate::error::{ApiError, ErrorCode};
use crate::idempotency::id_from_key;
use crate::middleware::request_id::trace_of;
use crate::projection::READ_YOUR_WRITES;
use crate::starts::{Prepared, Requester, StartAnswer, StoredStart, entry_of, prepare, store};
use crate::state::AppState;

/// Bytes of a body, at most, unless one start body may be larger.
const MAX_BODY: usize = 16 * 1024 * 1024;

/// Start bodies that are checked at a time.
const CHECKS: usize = 4;

/// Starts that are on their way to NATS at a time.
const UNDER_WAY: usize = 256;

/// How long a request may take before it begins no further start. Clients wait for 30 s, usually.
const PATIENCE: Duration = Duration::from_secs(20);

/// Characters of an error in the answer, at most.
const MAX_ERROR: usize = 512;

/// Bytes of one result in the answer, about.
const RESULT: usize = 1024;

/// Starts many operations of one worker type.
pub async fn start_many(
    State(state): State<AppState>,
    principal: Principal,
    PathText(domain): PathText,
    headers: HeaderMap,
    BodyOf { body, .. }: BodyOf<StartMany>,
) -> Result<RenderedJson<StartManyResponse>, ApiError> {
    state.need_nats()?;
    state.need_reader()?;
    let entry = entry_of(&state, &principal, &domain)?;

    let limit = state.config.max_body.max(MAX_BODY);
    let (body, share) = read_body(body, limit, &state.bodies).await?;
    principal.check_still_valid()?;
    let schema = entry.usable_schema().await?;
    let bodies = tokio::task::spawn_blocking(move || start_bodies(&body))
        .await
        .map_err(ApiError::internal)??;
    let answer = state
        .answers
        .share(&principal, bodies.len() * RESULT)
        .await?;
    let keys = keys(&principal, &domain, &headers, bodies.len())?;

    let starts = Starts {
        state: state.clone(),
        principal,
        entry,
        trace: trace_of(&headers),
        until: Instant::now() + PATIENCE,
    };
    let results = state
        .detached(async move {
            let _held_to_the_end = share;
            Ok(starts.all(bodies, schema, keys).await)
        })
        .await?;

    let refused = results.iter().filter(|one| one.code.is_some()).count() as u64;
    let data = ManyStarted {
        accepted: results.len() as u64 - refused,
        refused,
        results,
    };
    let success = true;
    RenderedJson::write(&StartManyResponse { success, data }, answer)
}

/// The id behind the `Idempotency-Key` for each start: the key and the place in the body make it.
fn keys(
    principal: &Principal,
    domain: &str,
    headers: &HeaderMap,
    count: usize,
) -> Result<Vec<Option<OperationId>>, ApiError> {
    let Some(key) = headers.get("idempotency-key") else {
        return Ok(vec![None; count]);
    };
    (0..count)
        .map(|place| {
            let what = format!("{domain} {place}");
            id_from_key(principal.token_name(), &what, key.as_bytes()).map(Some)
        })
        .collect()
}

/// The id in a start body.
#[derive(Deserialize)]
struct Chosen {
    task_id: Option<String>,
}

/// The starts of one request.
struct Starts {
    state: AppState,
    principal: Principal,
    entry: Arc<CatalogueEntry>,
    trace: Option<TraceParent>,
    until: Instant,
}

/// A start whose body was checked, and its place among the others.
struct Checked {
    place: usize,
    body: StartBody,
    key: Option<OperationId>,
}

/// What became of a start so far.
enum Beginning {
    /// It was started before.
    Before(StartAnswer),
    /// It is stored.
    Stored(Box<StoredAt>),
}

/// A start that is stored, its place among the others, and the id that the client chose.
struct StoredAt {
    place: usize,
    id: Option<OperationId>,
    requester: Requester,
    start: StoredStart,
}

/// What became of starts with the same id.
enum Turn {
    /// There was one, and it is stored.
    Stored(Box<StoredAt>),
    /// All results.
    Over(Vec<(usize, OneStarted)>),
}

impl Starts {
    /// Starts all of them; the results are in the same order.
    async fn all(
        &self,
        bodies: Vec<Bytes>,
        schema: Schema,
        keys: Vec<Option<OperationId>>,
    ) -> Vec<OneStarted> {
        let mut results: Vec<Option<OneStarted>> = vec![None; bodies.len()];
        let checks = bodies
            .into_iter()
            .map(|body| self.check(body, schema.clone()));
        let mut checks = stream::iter(checks)
            .buffered(CHECKS)
            .zip(stream::iter(keys));

        let mut turns: Vec<Vec<Checked>> = Vec::with_capacity(results.len());
        let mut turn_of: HashMap<OperationId, usize> = HashMap::new();
        let mut place = 0;
        while let Some((checked, key)) = checks.next().await {
            match checked {
                Err((id, error)) => results[place] = Some(refused(id, &error)),
                Ok(body) => {
                    let id = body.task_id.as_ref().or(key.as_ref()).cloned();
                    // An id that the client chose for itself makes the key needless.
                    let key = key.filter(|_| body.task_id.is_none());
                    let start = Checked { place, body, key };
                    match id.map(|id| turn_of.entry(id)) {
                        Some(Entry::Occupied(turn)) => turns[*turn.get()].push(start),
                        Some(Entry::Vacant(new)) => {
                            new.insert(turns.len());
                            turns.push(vec![start]);
                        }
                        None => turns.push(vec![start]),
                    }
                }
            }
            place += 1;
        }

        let turns = turns.into_iter().map(|turn| self.take_turn(turn));
        let mut done = stream::iter(turns).buffer_unordered(UNDER_WAY);
        let mut stored = Vec::new();
        while let Some(turn) = done.next().await {
            match turn {
                Turn::Stored(start) => stored.push(*start),
                Turn::Over(turn) => {
                    for (place, result) in turn {
                        results[place] = Some(result);
                    }
                }
            }
        }
        for (place, result) in self.shown(stored).await {
            results[place] = Some(result);
        }
        let missing = || refused(None, &ApiError::internal("a start without a result"));
        results
            .into_iter()
            .map(|result| result.unwrap_or_else(missing))
            .collect()
    }

    /// The results of starts that are stored, once this backend shows the operations.
    async fn shown(&self, stored: Vec<StoredAt>) -> Vec<(usize, OneStarted)> {
        let last = stored.iter().map(|one| one.start.sequence()).max();
        let projection = &self.state.projection;
        let last = last.unwrap_or_default();
        let is_shown = projection.reached(last, READ_YOUR_WRITES).await;

        let mut results = Vec::with_capacity(stored.len());
        for StoredAt {
            place,
            id,
            requester,
            start,
        } in stored
        {
            let answer = start.answer(&self.state, &requester, &self.entry, is_shown);
            let result = match answer.await {
                Ok(answer) => accepted(answer),
                Err(error) => refused(id, &error),
            };
            results.push((place, result));
        }
        results
    }

    /// Checks one start body. A refusal names the id that the client chose, if it can be read.
    async fn check(
        &self,
        body: Bytes,
        schema: Schema,
    ) -> Result<StartBody, (Option<OperationId>, ApiError)> {
        match self.check_body(body.clone(), schema).await {
            Ok(body) => Ok(body),
            Err(error) => {
                let chosen = serde_json::from_slice::<Chosen>(&body).ok();
                let id = chosen.and_then(|chosen| OperationId::new(chosen.task_id?).ok());
                Err((id, error))
            }
        }
    }

    async fn check_body(&self, body: Bytes, schema: Schema) -> Result<StartBody, ApiError> {
        self.in_time()?;
        if body.len() > self.state.config.max_body {
            return Err(ApiError::too_large(Some(self.state.config.max_body)));
        }
        Ok(StartBody::check(body, Some(schema)).await?)
    }

    /// Starts with the same id, in the order of the body.
    async fn take_turn(&self, turn: Vec<Checked>) -> Turn {
        let is_alone = turn.len() == 1;
        let mut results = Vec::with_capacity(turn.len());
        for Checked { place, body, key } in turn {
            let id = body.task_id.clone();
            let result = match self.store(place, body, key).await {
                Ok(Beginning::Before(answer)) => accepted(answer),
                Ok(Beginning::Stored(stored)) if is_alone => return Turn::Stored(stored),
                Ok(Beginning::Stored(stored)) => {
                    // The next one is compared with it.
                    results.extend(self.shown(vec![*stored]).await);
                    continue;
                }
                Err(error) => refused(id, &error),
            };
            results.push((place, result));
        }
        Turn::Over(results)
    }

    async fn store(
        &self,
        place: usize,
        body: StartBody,
        key: Option<OperationId>,
    ) -> Result<Beginning, ApiError> {
        self.in_time()?;
        // Asked for each: without NATS the others are refused at once.
        self.state.need_nats()?;
        self.principal.check_still_valid()?;
        let id = body.task_id.clone();
        let requester = Requester {
            principal: self.principal.clone(),
            key,
        };
        match prepare(&self.state, &requester, &self.entry, body).await? {
            Prepared::Before(answer) => Ok(Beginning::Before(answer)),
            Prepared::New(request, warning) => {
                let trace = self.trace.as_ref();
                let start = store(&self.state, &requester, *request, warning, trace).await?;
                Ok(Beginning::Stored(Box::new(StoredAt {
                    place,
                    id,
                    requester,
                    start,
                })))
            }
        }
    }

    fn in_time(&self) -> Result<(), ApiError> {
        if Instant::now() < self.until {
            return Ok(());
        }
        let text = format!(
            "The request took more than {} s before this operation had its turn; it was not started. Send it again, or fewer at a time",
            PATIENCE.as_secs()
        );
        Err(ApiError::new(ErrorCode::Overloaded, text))
    }
}

fn accepted(answer: StartAnswer) -> OneStarted {
    let response = answer.response;
    OneStarted {
        operation_id: Some(response.operation_id.into_owned()),
        status: Some(response.status),
        status_code: answer.status.as_u16(),
        error: None,
        code: None,
        warning: response.warning,
    }
}

fn refused(id: Option<OperationId>, error: &ApiError) -> OneStarted {
    error.log_cause();
    let problem = error.problem();
    let named = problem
        .fields
        .get("operation_id")
        .and_then(|id| id.as_str());
    OneStarted {
        operation_id: id.or_else(|| OperationId::new(named?).ok()),
        status: None,
        status_code: problem.status_code,
        error: Some(problem.error.chars().take(MAX_ERROR).collect()),
        code: Some(problem.code),
        warning: None,
    }
}

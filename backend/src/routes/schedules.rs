//! `/api/v1/schedules`: schedules, and starting one now.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use ktrdr_bus::telemetry::chain;
use ktrdr_http::answer::RenderedJson;
use ktrdr_http::body::{BodyOf, NoBody};
use ktrdr_http::openapi::{Describe, Description};
use ktrdr_http::start_body::{BodyError, StartBody};
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::id::{OperationId, ScheduleId, WorkerType};
use ktrdr_protocol::rest::Violation;
use ktrdr_protocol::rest::schedules::{
    DeletedScheduleResponse, PutSchedule, ScheduleDocument, ScheduleResponse, SchedulesPage,
    SchedulesResponse,
};
use ktrdr_protocol::schedule::{LastRun, MAX_SCHEDULE_ID, Overlap, Schedule, ScheduleRun};

use super::PathText;
use crate::error::{ApiError, ErrorCode};
use crate::idempotency::id_from_key;
use crate::middleware::request_id::trace_of;
use crate::schedules::bell::{self, BellError};
use crate::schedules::cron::{self, Cron};
use crate::schedules::due::{self, MOST_COUNTED};
use crate::schedules::{ChangeError, Known, MAX_BODIES, MAX_SCHEDULES};
use crate::starts::{self, Requester, StartAnswer};
use crate::state::AppState;

/// How many of the next slots are shown.
const NEXT_RUNS: usize = 5;

/// Most waiting slots that are counted for a document.
const MOST_WAITING: usize = 100;

/// A schedule that was written: 201 when it is a new one.
pub struct PutAnswer {
    is_new: bool,
    response: ScheduleResponse,
}

impl IntoResponse for PutAnswer {
    fn into_response(self) -> Response {
        let status = if self.is_new {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        (status, Json(self.response)).into_response()
    }
}

impl Describe for PutAnswer {
    fn describe(description: &mut Description<'_>) {
        description.json::<ScheduleResponse>(201, "A new schedule.");
        description.json::<ScheduleResponse>(200, "The schedule was there and is this one now.");
    }
}

/// Bytes of a schedule in a list beside its body, about.
const DOCUMENT: usize = 1024;

/// All schedules of the types that the client sees.
pub async fn list(
    State(state): State<AppState>,
    principal: Principal,
) -> Result<RenderedJson<SchedulesResponse>, ApiError> {
    let mut seen = state.schedules.all();
    seen.retain(|(_, known)| principal.sees(known.schedule.worker_type.as_str()));
    let sizes = seen
        .iter()
        .map(|(_, known)| DOCUMENT + known.schedule.body.get().len());
    let bytes = sizes.sum();

    let share = state.answers.share(&principal, bytes).await?;
    let documents = seen
        .into_iter()
        .map(|(id, known)| document(&state, id, &known))
        .collect();
    let frame = SchedulesResponse {
        success: true,
        data: SchedulesPage { schedules: vec![] },
    };
    RenderedJson::list::<ScheduleDocument>(&frame, documents, bytes, share)
}

/// One schedule.
pub async fn show(
    State(state): State<AppState>,
    principal: Principal,
    PathText(id): PathText,
) -> Result<Json<ScheduleResponse>, ApiError> {
    let (id, known) = find(&state, &principal, &id).await?;
    Ok(answer(document(&state, id, &known)))
}

/// Writes a schedule.
pub async fn put(
    State(state): State<AppState>,
    principal: Principal,
    PathText(id): PathText,
    body: BodyOf<PutSchedule>,
) -> Result<PutAnswer, ApiError> {
    state.need_nats()?;
    bell::check_server(&state.connection).map_err(not_set)?;
    let (asked, share) = body.read(state.config.max_body, &state.bodies).await?;
    // The body may have taken a while.
    principal.check_still_valid()?;
    let id = ScheduleId::new(&id)
        .ok()
        .filter(|id| id.as_str().len() <= MAX_SCHEDULE_ID)
        .ok_or_else(|| {
            let text = format!(
                "the id in the path must be 1 to {MAX_SCHEDULE_ID} of the characters A-Z a-z 0-9 _ -"
            );
            violation("", text)
        })?;
    let (wanted, cron) = check(&state, &principal, asked).await?;

    let (writing, owner, schedule_id) = (state.clone(), principal.clone(), id.clone());
    let is_new = state
        .detached(async move {
            let _held_to_the_end = share;
            write(&writing, &owner, &schedule_id, &wanted, &cron).await
        })
        .await?;
    tracing::info!(schedule = %id, is_new, requested_by = principal.name(), "the schedule was written");

    let (id, known) = find(&state, &principal, id.as_str()).await?;
    Ok(PutAnswer {
        is_new,
        response: ScheduleResponse {
            success: true,
            data: document(&state, id, &known),
        },
    })
}

/// Checks everything that can be wrong.
async fn check(
    state: &AppState,
    principal: &Principal,
    asked: PutSchedule,
) -> Result<(Schedule, Cron), ApiError> {
    let zone = cron::zone(&asked.time_zone);
    let zone = zone.map_err(|error| violation("/time_zone", error.to_string()))?;
    let cron = Cron::read(&asked.cron, zone);
    let cron = cron.map_err(|error| violation("/cron", error.to_string()))?;

    let entry = state.catalogue.by_domain(&asked.domain);
    let entry = entry
        .filter(|entry| principal.sees(entry.published.worker_type.as_str()))
        .ok_or_else(|| starts::unknown_domain(state, principal, &asked.domain))?;
    let text = asked.body.get().as_bytes().to_vec();
    let body = StartBody::check(text.into(), Some(entry.usable_schema().await?)).await;
    let body = body.map_err(within_body)?;
    if body.task_id.is_some() {
        let text = "is not taken: the id of each operation is made of the schedule and its slot";
        return Err(violation("/body/task_id", text.to_owned()));
    }

    starts::check_repeated(state, &body.execution).map_err(within_body)?;

    let now = state.projection.now();
    let schedule = Schedule {
        domain: asked.domain,
        worker_type: entry.published.worker_type.clone(),
        body: asked.body,
        cron: asked.cron,
        time_zone: asked.time_zone,
        overlap: asked.overlap,
        catch_up: asked.catch_up,
        paused: asked.paused,
        since: now,
        created_at: now,
        updated_at: now,
        created_by: principal.token_name().cloned(),
    };
    Ok((schedule, cron))
}

/// Stores a schedule and tells the server. Returns whether it is a new one.
async fn write(
    state: &AppState,
    principal: &Principal,
    id: &ScheduleId,
    wanted: &Schedule,
    cron: &Cron,
) -> Result<bool, ApiError> {
    let replicas = usize::from(state.settings.get().replicas);
    // Before the schedule: one that the server cannot ring for is not stored.
    bell::ensure(&state.connection, &state.names, replicas)
        .await
        .map_err(not_set)?;
    let changed = state
        .schedules
        .change(id, |before| match before {
            Some(before) if !principal.sees(before.schedule.worker_type.as_str()) => {
                let text = format!("The id {id} is taken; choose another one");
                Err(ApiError::new(ErrorCode::TaskIdConflict, text))
            }
            None if state.schedules.count() >= MAX_SCHEDULES => {
                let text = format!("there are {MAX_SCHEDULES} schedules already; delete some");
                Err(violation("", text))
            }
            _ if state.schedules.bodies_beside(id) + wanted.body.get().len() > MAX_BODIES => {
                let text = format!(
                    "the bodies of all schedules may have {MAX_BODIES} bytes together; write shorter ones, or delete some"
                );
                Err(violation("/body", text))
            }
            before => Ok(Some(following(before, wanted.clone()))),
        })
        .await
        .map_err(not_stored)??;
    let (before, revision) = changed;
    if let Some(before) = &before {
        note_change(state, id, (before, wanted), true).await;
    }

    let told = if wanted.paused {
        bell::unset(&state.connection.jetstream, &state.names, id).await
    } else {
        let wanted = (cron, wanted.time_zone.as_str());
        bell::set(&state.connection.jetstream, &state.names, id, wanted).await
    };
    match told {
        Ok(()) => Ok(before.is_none()),
        // The time zones of the server's computer are others than this backend's.
        Err(BellError::Refused(why)) => {
            let earlier = before.map(|known| (*known.schedule).clone());
            let undo = |now: Option<&Known>| match now {
                Some(now) if now.revision == revision => Ok(earlier.clone()),
                // Somebody has changed it since.
                _ => Err(()),
            };
            let _ = state.schedules.change(id, undo).await;
            Err(violation(
                "/cron",
                format!("the NATS server refuses it: {why}"),
            ))
        }
        // It is stored, and the duty tells the server.
        Err(error) => {
            tracing::warn!(schedule = %id, error = chain(&error), "the server was not told yet");
            Ok(before.is_none())
        }
    }
}

/// The schedule to store after this one. Slots before now count no more when it got other times or was
/// paused.
fn following(before: Option<&Known>, wanted: Schedule) -> Schedule {
    let Some(before) = before.map(|known| &known.schedule) else {
        return wanted;
    };
    Schedule {
        since: if has_same_times(before, &wanted) {
            before.since
        } else {
            wanted.since
        },
        created_at: before.created_at,
        ..wanted
    }
}

fn has_same_times(before: &Schedule, after: &Schedule) -> bool {
    before.cron == after.cron
        && before.time_zone == after.time_zone
        && before.paused == after.paused
}

/// Writes down what a change means for slots: those that waited count no more when the schedule got other
/// times or was paused. A last error that the change may have mended is forgotten. The change counts also
/// when this does not succeed.
async fn note_change(
    state: &AppState,
    id: &ScheduleId,
    (before, after): (&Known, &Schedule),
    forgets_error: bool,
) {
    let cron = before.cron();
    let cron = cron.filter(|_| !has_same_times(&before.schedule, after));
    let mut dropped = 0;
    let change = |run: &mut ScheduleRun| {
        dropped = cron.as_ref().map_or(0, |cron| {
            due::waiting(&before.schedule, cron, run, after.since, MOST_COUNTED)
        });
        run.skipped += dropped;
        let is_forgotten = forgets_error && run.last_error.take().is_some();
        dropped > 0 || is_forgotten
    };
    match state.schedules.change_run(id, change).await {
        Ok(()) => {
            state.schedules.counters.skipped.inc_by(dropped);
        }
        Err(error) => {
            tracing::warn!(schedule = %id, error = chain(&error), "what the change means for slots was not written down");
        }
    }
}

/// Deletes a schedule. Its operations stay.
pub async fn delete(
    State(state): State<AppState>,
    principal: Principal,
    PathText(id): PathText,
    _: NoBody,
) -> Result<Json<DeletedScheduleResponse>, ApiError> {
    let (id, _) = find(&state, &principal, &id).await?;
    state.need_nats()?;
    let (deleting, owner, schedule_id) = (state.clone(), principal.clone(), id.clone());
    state
        .detached(async move {
            let schedules = &deleting.schedules;
            // One that somebody has deleted meanwhile, and made again as another type's, stays.
            let remove = |now: Option<&Known>| match now {
                Some(now) if owner.sees(now.schedule.worker_type.as_str()) => Ok(None),
                _ => Err(unknown(schedule_id.as_str())),
            };
            let removed = schedules.change(&schedule_id, remove).await;
            removed.map_err(not_stored)?.map(drop)?;
            schedules.forget_run(&schedule_id).await.map_err(not_stored)?;
            let (jetstream, names) = (&deleting.connection.jetstream, &deleting.names);
            // The duty does it otherwise.
            if let Err(error) = bell::unset(jetstream, names, &schedule_id).await {
                tracing::debug!(schedule = %schedule_id, error = chain(&error), "the server was not told yet");
            }
            Ok(())
        })
        .await?;
    tracing::info!(schedule = %id, requested_by = principal.name(), "the schedule was deleted");
    Ok(Json(DeletedScheduleResponse {
        success: true,
        schedule_id: id,
    }))
}

/// Lets a schedule start nothing by itself.
pub async fn pause(
    state: State<AppState>,
    principal: Principal,
    path: PathText,
    _: NoBody,
) -> Result<Json<ScheduleResponse>, ApiError> {
    set_paused(state, principal, path, true).await
}

/// Lets a paused schedule go on. Slots that came meanwhile are not made up for.
pub async fn resume(
    state: State<AppState>,
    principal: Principal,
    path: PathText,
    _: NoBody,
) -> Result<Json<ScheduleResponse>, ApiError> {
    set_paused(state, principal, path, false).await
}

async fn set_paused(
    State(state): State<AppState>,
    principal: Principal,
    PathText(id): PathText,
    paused: bool,
) -> Result<Json<ScheduleResponse>, ApiError> {
    let (id, _) = find(&state, &principal, &id).await?;
    state.need_nats()?;
    let (changing, schedule_id, now) = (state.clone(), id.clone(), state.projection.now());
    let owner = principal.clone();
    state
        .detached(async move {
            // One that somebody has deleted meanwhile, and made again as another type's, stays as it is.
            let change = |before: Option<&Known>| {
                let seen = |known: &&Known| owner.sees(known.schedule.worker_type.as_str());
                let Some(before) = before.filter(seen) else {
                    return Err(unknown(schedule_id.as_str()));
                };
                let mut wanted = (*before.schedule).clone();
                (wanted.paused, wanted.since, wanted.updated_at) = (paused, now, now);
                Ok(Some(following(Some(before), wanted)))
            };
            let changed = changing.schedules.change(&schedule_id, change).await;
            let (before, _) = changed.map_err(not_stored)??;
            if let Some(before) = before {
                let mut after = (*before.schedule).clone();
                (after.paused, after.since) = (paused, now);
                note_change(&changing, &schedule_id, (&before, &after), false).await;
            }
            Ok(())
        })
        .await?;
    tracing::info!(schedule = %id, paused, requested_by = principal.name(), "the schedule was paused or resumed");

    // The duty tells the server.
    let (id, known) = find(&state, &principal, id.as_str()).await?;
    Ok(answer(document(&state, id, &known)))
}

/// Starts an operation of a schedule now, beside its slots.
pub async fn run(
    State(state): State<AppState>,
    principal: Principal,
    PathText(id): PathText,
    headers: HeaderMap,
    _: NoBody,
) -> Result<StartAnswer, ApiError> {
    state.need_nats()?;
    state.need_reader()?;
    let (id, known) = find(&state, &principal, &id).await?;
    let key = headers
        .get("idempotency-key")
        .map(|key| {
            let what = format!("schedule {id}");
            id_from_key(principal.token_name(), &what, key.as_bytes())
        })
        .transpose()?;
    let requester = Requester { principal, key };

    let (starting, trace) = (state.clone(), trace_of(&headers));
    state
        .detached(async move {
            let operation_id = requester.key.clone();
            let operation_id = operation_id.unwrap_or_else(OperationId::generate);
            let answer = starts::now(
                &starting,
                &requester,
                &id,
                &known.schedule,
                operation_id,
                trace,
            );
            let answer = answer.await?;
            let worker_type = &known.schedule.worker_type;
            note_run(&starting, &id, worker_type, answer.operation_id()).await;
            Ok(answer)
        })
        .await
}

/// Writes down the last operation of a schedule. The operation runs also when that does not succeed.
async fn note_run(
    state: &AppState,
    id: &ScheduleId,
    worker_type: &WorkerType,
    operation_id: &OperationId,
) {
    let created_at = |operation_id: &OperationId| {
        let view = state.projection.get(operation_id.as_str())?;
        Some(view.record.created_at)
    };
    let now = state.projection.now();
    let began = created_at(operation_id).unwrap_or(now);
    let change = |run: &mut ScheduleRun| {
        // A request that is repeated is answered with an operation that others may have followed.
        let is_noted = run.last_run.as_ref().is_some_and(|last| {
            let noted = &last.operation_id;
            noted == operation_id || began < created_at(noted).unwrap_or(last.at)
        });
        if !is_noted {
            run.last_run = Some(LastRun {
                operation_id: operation_id.clone(),
                slot: None,
                at: now,
            });
            run.last_type = Some(worker_type.clone());
        }
        !is_noted
    };
    if let Err(error) = state.schedules.change_run(id, change).await {
        tracing::warn!(schedule = %id, %operation_id, error = chain(&error), "the last operation of the schedule was not written down; the next slot does not wait for it");
    }
}

/// The schedule, or 404. One of a type that the client does not see is answered as if it did not exist.
async fn find(
    state: &AppState,
    principal: &Principal,
    id: &str,
) -> Result<(ScheduleId, Known), ApiError> {
    let Ok(schedule_id) = ScheduleId::new(id) else {
        return Err(unknown(id));
    };
    let newest = state.schedules.newest(&schedule_id).await;
    newest
        .map_err(|error| ApiError::nats_read(chain(&error)))?
        .filter(|known| principal.sees(known.schedule.worker_type.as_str()))
        .map(|known| (schedule_id, known))
        .ok_or_else(|| unknown(id))
}

fn unknown(id: &str) -> ApiError {
    let shown: String = id.chars().take(128).collect();
    let text = format!("Schedule {shown} not found; GET /api/v1/schedules lists all");
    ApiError::new(ErrorCode::ScheduleNotFound, text).with("schedule_id", shown)
}

fn answer(data: ScheduleDocument) -> Json<ScheduleResponse> {
    let success = true;
    Json(ScheduleResponse { success, data })
}

fn document(state: &AppState, schedule_id: ScheduleId, known: &Known) -> ScheduleDocument {
    let schedule = &known.schedule;
    let (cron, now) = (known.cron(), state.projection.now());
    let waiting_slots = cron
        .as_ref()
        .filter(|_| schedule.overlap == Overlap::Queue)
        .map(|cron| due::waiting(schedule, cron, &known.run, now, MOST_WAITING));
    let next_runs = cron
        .filter(|_| !schedule.paused)
        .map_or_else(Vec::new, |cron| cron.next(now, NEXT_RUNS));
    ScheduleDocument {
        schedule_id,
        domain: schedule.domain.clone(),
        operation_type: schedule.worker_type.clone(),
        body: schedule.body.clone(),
        cron: schedule.cron.clone(),
        time_zone: schedule.time_zone.clone(),
        overlap: schedule.overlap,
        catch_up: schedule.catch_up,
        paused: schedule.paused,
        next_runs,
        last_run: known.run.last_run.clone(),
        last_error: known.run.last_error.clone(),
        skipped: known.run.skipped,
        missed: known.run.missed,
        waiting_slots,
        created_at: schedule.created_at,
        updated_at: schedule.updated_at,
        created_by: schedule.created_by.clone(),
    }
}

fn violation(path: &str, message: String) -> ApiError {
    let path = path.to_owned();
    BodyError::Violations(vec![Violation { path, message }]).into()
}

/// The violations of a start body, with their place in the schedule.
fn within_body(error: BodyError) -> ApiError {
    let BodyError::Violations(mut found) = error else {
        return error.into();
    };
    for violation in &mut found {
        violation.path.insert_str(0, "/body");
    }
    BodyError::Violations(found).into()
}

fn not_stored(error: ChangeError) -> ApiError {
    match error {
        ChangeError::Busy => {
            let text = "Others changed the schedule again and again meanwhile; try again";
            ApiError::new(ErrorCode::Overloaded, text)
        }
        ChangeError::Key(_) => {
            tracing::warn!(error = chain(&error), "a schedule cannot be stored");
            ApiError::nats_unavailable()
        }
        ChangeError::Unwritable(_) | ChangeError::Unreadable => ApiError::internal(error),
    }
}

fn not_set(error: BellError) -> ApiError {
    match error {
        BellError::Unsupported(version) => {
            let text = format!(
                "Schedules need nats-server 2.14 or later, and this one is {version}. Everything else works"
            );
            ApiError::new(ErrorCode::SchedulesUnsupported, text)
        }
        BellError::Refused(why) => violation("/cron", format!("the NATS server refuses it: {why}")),
        BellError::Nats(error) => {
            tracing::warn!(
                error = chain(&error),
                "the stream of schedules cannot be made"
            );
            ApiError::nats_unavailable()
        }
    }
}

//! `GET /api/v1/queues`, `POST /api/v1/queues/{worker_type}/pause` and `…/resume`.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use ktrdr_bus::telemetry::chain;
use ktrdr_http::body::{BodyOf, NoBody};
use ktrdr_http::start_body::BodyError;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::id::{Queue, WorkerType};
use ktrdr_protocol::origin::Origin;
use ktrdr_protocol::priority::Priority;
use ktrdr_protocol::queue_name::QueueName;
use ktrdr_protocol::queue_pause::QueuePause;
use ktrdr_protocol::requirements::Requirements;
use ktrdr_protocol::rest::Violation;
use ktrdr_protocol::rest::queues::{
    PauseQueues, PausedQueues, PausedQueuesResponse, QueueOverview, QueuesPage, QueuesResponse,
};
use tokio::time::Instant;

use super::PathText;
use crate::error::{ApiError, ErrorCode};
use crate::projection::model::QueueState;
use crate::queues::pauses::PauseError;
use crate::state::AppState;

/// Largest body, in bytes.
const MAX_BODY: usize = 4 * 1024;

/// The operations of one queue.
#[derive(Default)]
struct Counts {
    /// Those that are due.
    due: Option<QueueState>,
    /// How many wait for their time.
    delayed: u64,
}

/// All queues that exist, or in which an operation waits or runs.
pub async fn list(State(state): State<AppState>, principal: Principal) -> Json<QueuesResponse> {
    let (now, monotonic_now) = (state.projection.now(), Instant::now());
    let pauses = state.queues.lists.pauses.all();

    let mut found: BTreeMap<(WorkerType, Queue), Counts> = BTreeMap::new();
    for (worker_type, known) in state.queues.lists.all() {
        for listed in known.list.queues {
            found.insert((worker_type.clone(), listed.queue), Counts::default());
        }
    }
    for queue in state.projection.queues() {
        if let Origin::Queued(name) = &queue.info.origin {
            // What is delayed is shown where it will wait.
            let delayed = queue.info.name.filter(|name| name.is_delayed);
            let shown_in = delayed.map_or_else(|| name.clone(), |name| name.due().queue());
            let key = (queue.info.worker_type.clone(), shown_in);
            let is_listed = found.contains_key(&key);
            if is_listed || queue.pending + queue.running > 0 {
                let counts = found.entry(key).or_default();
                match delayed {
                    Some(_) => counts.delayed = queue.pending,
                    None => counts.due = Some(queue),
                }
            }
        }
    }

    let seen = found
        .into_iter()
        .filter(|((worker_type, _), _)| principal.sees(worker_type.as_str()));
    let queues = seen
        .map(|((worker_type, queue), Counts { due, delayed })| {
            let pause = pauses.get(&worker_type);
            let name = QueueName::parse(queue.as_str());
            let requirements = name.map_or_else(Requirements::default, |name| name.class);
            let candidates =
                state
                    .registry
                    .candidates(worker_type.as_str(), &requirements, monotonic_now);
            let oldest = due.as_ref().and_then(|counts| counts.oldest_pending);
            QueueOverview {
                priority: name.map_or(Priority::USUAL, |name| name.priority),
                waiting: due.as_ref().map_or(0, |counts| counts.pending),
                waiting_for_permit: due.as_ref().map_or(0, |counts| counts.waiting_for_permit),
                running: due.as_ref().map_or(0, |counts| counts.running),
                delayed,
                oldest_seconds: oldest.map(|created| now.seconds_since(created)),
                workers: candidates.able as u64,
                paused: pause.is_some(),
                paused_until: pause.and_then(|pause| pause.until),
                worker_type,
                queue,
            }
        })
        .collect();
    Json(QueuesResponse {
        success: true,
        data: QueuesPage { queues },
    })
}

/// Lets no operation of a worker type start, for a time or until it is resumed. What runs goes on.
pub async fn pause(
    State(state): State<AppState>,
    principal: Principal,
    PathText(worker_type): PathText,
    body: BodyOf<PauseQueues>,
) -> Result<Json<PausedQueuesResponse>, ApiError> {
    let worker_type = known_type(&state, &principal, &worker_type)?;
    let (PauseQueues { until }, _) = body.read(MAX_BODY, &state.bodies).await?;
    // The body may have taken a while.
    principal.check_still_valid()?;
    if until.is_some_and(|until| until <= state.projection.now()) {
        return Err(BodyError::Violations(vec![Violation {
            path: "/until".to_owned(),
            message: "must be a time to come, or null".to_owned(),
        }])
        .into());
    }

    set(state, &principal, worker_type, Some(QueuePause { until })).await
}

/// Lets the operations of a worker type start again.
pub async fn resume(
    State(state): State<AppState>,
    principal: Principal,
    PathText(worker_type): PathText,
    _: NoBody,
) -> Result<Json<PausedQueuesResponse>, ApiError> {
    let worker_type = known_type(&state, &principal, &worker_type)?;
    set(state, &principal, worker_type, None).await
}

async fn set(
    state: AppState,
    principal: &Principal,
    worker_type: WorkerType,
    pause: Option<QueuePause>,
) -> Result<Json<PausedQueuesResponse>, ApiError> {
    state.need_nats()?;
    let (changing, of) = (state.clone(), worker_type.clone());
    let followed = state
        .detached(async move { Ok(changing.queues.set_pause(&of, pause).await) })
        .await?;
    let queues = match followed {
        Ok(queues) => queues,
        Err(error) => return Err(not_set(&worker_type, &error)),
    };
    let (paused, until) = (pause.is_some(), pause.and_then(|pause| pause.until));
    tracing::info!(%worker_type, paused, ?until, queues, requested_by = principal.name(), "the queues were paused or resumed");

    let data = PausedQueues {
        worker_type,
        paused,
        paused_until: until,
        queues: queues as u64,
    };
    Ok(Json(PausedQueuesResponse {
        success: true,
        data,
    }))
}

fn not_set(worker_type: &WorkerType, error: &PauseError) -> ApiError {
    tracing::warn!(%worker_type, error = chain(error), "the queues could not be paused or resumed");
    match error {
        PauseError::NotStored(_) | PauseError::Busy => ApiError::nats_unavailable(),
        PauseError::NotFollowed(_) => {
            let text = format!(
                "It is stored what the queues of {worker_type} are to do, but the NATS server did not confirm it for each. They follow within seconds; repeat the request to be sure"
            );
            ApiError::new(ErrorCode::OutcomeUnknown, text)
        }
    }
}

/// The worker type, if the client sees it and there is something to pause or to resume.
fn known_type(
    state: &AppState,
    principal: &Principal,
    worker_type: &str,
) -> Result<WorkerType, ApiError> {
    let is_known = |name: &WorkerType| {
        state.catalogue.by_type(name.as_str()).is_some()
            || state.queues.lists.pauses.of(name).is_some()
    };
    WorkerType::new(worker_type)
        .ok()
        .filter(|name| principal.sees(name.as_str()) && is_known(name))
        .ok_or_else(|| {
            let shown: String = worker_type.chars().take(128).collect();
            let text =
                format!("Worker type {shown} is not known; GET /api/v1/worker-types lists all");
            ApiError::new(ErrorCode::WorkerTypeNotFound, text).with("worker_type", shown)
        })
}

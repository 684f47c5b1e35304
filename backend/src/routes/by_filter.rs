//! `POST /api/v1/operations/cancel` and `…/retry`: the same as for one operation, for all that match a
//! filter.
//!
//! Operations that it can be done for come first, and the others only if the limit leaves room for them:
//! whoever repeats a request with a limit gets on. Those for which it was done before come last: running
//! ones that are asked to stop already, and those that were retried or replaced. Pages of the list are
//! walked one after the other, so that a filter that matches a million operations takes the memory of one
//! page. A cancel begins with the newest operation. A retry begins with the oldest: what was started
//! first is started first again.

use std::collections::HashSet;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue};
use futures::{StreamExt, future, stream};
use ktrdr_http::answer::RenderedJson;
use ktrdr_http::body::{BodyOf, read_body};
use ktrdr_http::many;
use ktrdr_http::start_body::BodyError;
use ktrdr_http::tokens::Principal;
use ktrdr_protocol::cancel::{CancelIntent, is_replaced};
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::rest::Violation;
use ktrdr_protocol::rest::many::{
    ByFilter, ByFilterResponse, DoneByFilter, MAX_OPERATIONS, OneByFilter,
};
use ktrdr_protocol::rest::query::ListOrder;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::trace::TraceParent;
use tokio::time::Instant;

use super::operations::{MAX_PAGE, filter, page};
use super::retry::{How, Key, Prepared, check_repeatable, id_of_retry, prepare};
use crate::dispatch::Cancel;
use crate::error::{ApiError, ErrorCode};
use crate::middleware::request_id::trace_of;
use crate::projection::READ_YOUR_WRITES;
use crate::projection::filter::{Filter, Wanted};
use crate::projection::record::{Extent, View};
use crate::starts::StartAnswer;
use crate::state::AppState;

/// Operations that are on their way to NATS at a time.
const UNDER_WAY: usize = 64;

/// How long a request may take before it begins nothing more. Clients wait for 30 s, usually.
const PATIENCE: Duration = Duration::from_secs(20);

/// Bytes of one result in the answer, about.
const RESULT: usize = 192;

/// Cancels all operations that match. The answer does not wait for workers.
pub async fn cancel(
    State(state): State<AppState>,
    principal: Principal,
    headers: HeaderMap,
    body: BodyOf<ByFilter>,
) -> Result<RenderedJson<ByFilterResponse>, ApiError> {
    answer(state, principal, headers, body, Verb::Cancel).await
}

/// Runs all failed and cancelled operations that match again, from the beginning.
pub async fn retry(
    State(state): State<AppState>,
    principal: Principal,
    headers: HeaderMap,
    body: BodyOf<ByFilter>,
) -> Result<RenderedJson<ByFilterResponse>, ApiError> {
    state.need_reader()?;
    answer(state, principal, headers, body, Verb::Retry).await
}

async fn answer(
    state: AppState,
    principal: Principal,
    headers: HeaderMap,
    BodyOf { body, .. }: BodyOf<ByFilter>,
    verb: Verb,
) -> Result<RenderedJson<ByFilterResponse>, ApiError> {
    state.need_nats()?;
    let (body, share) = read_body(body, state.config.max_body, &state.bodies).await?;
    principal.check_still_valid()?;
    let asked = many::by_filter(&body)?;
    drop((body, share));

    let limit = asked.limit.map_or(MAX_OPERATIONS, |limit| limit as usize);
    let filter = filter(&state, &principal, asked.filter)
        .await
        .map_err(in_body)?;
    let share = state.answers.share(&principal, limit * RESULT).await?;
    let mut walk = Walk {
        state: state.clone(),
        principal,
        verb,
        key: headers.get("idempotency-key").cloned(),
        trace: trace_of(&headers),
        limit,
        is_dry: asked.dry_run,
        until: Instant::now() + PATIENCE,
        done: DoneByFilter::default(),
        seen: HashSet::new(),
        asked_or_retried_before: Vec::new(),
        warning: None,
    };
    let walk = state
        .detached(async move {
            walk.all(&filter).await?;
            Ok(walk)
        })
        .await?;
    let response = ByFilterResponse {
        success: true,
        data: walk.done,
        warning: walk.warning,
    };
    RenderedJson::write(&response, share)
}

/// A refusal of a value of the filter, which stands in the body here.
fn in_body(error: ApiError) -> ApiError {
    let problem = error.problem();
    match problem
        .fields
        .get("parameter")
        .and_then(|name| name.as_str())
    {
        Some(name) if problem.code == ErrorCode::InvalidQuery => {
            let path = format!("/filter/{name}");
            let message = problem.error.clone();
            BodyError::Violations(vec![Violation { path, message }]).into()
        }
        _ => error,
    }
}

/// What is done.
#[derive(Debug, Clone, Copy)]
enum Verb {
    Cancel,
    Retry,
}

impl Verb {
    /// The statuses in which it can be done, and the others.
    fn statuses(self) -> (&'static [Status], &'static [Status]) {
        use Status::{Cancelled, Completed, Failed, Pending, Running};
        match self {
            Self::Cancel => (&[Pending, Running], &[Completed, Failed, Cancelled]),
            Self::Retry => (&[Failed, Cancelled], &[Pending, Running, Completed]),
        }
    }

    fn order(self) -> ListOrder {
        match self {
            Self::Cancel => ListOrder::Newest,
            Self::Retry => ListOrder::Oldest,
        }
    }
}

fn first_page(filter: Filter, order: ListOrder) -> Wanted {
    Wanted {
        filter,
        order,
        offset: 0,
        after: None,
        limit: MAX_OPERATIONS,
        bytes: MAX_PAGE,
        extent: Extent::Whole,
    }
}

/// One request on its way through the operations that match.
struct Walk {
    state: AppState,
    principal: Principal,
    verb: Verb,
    key: Option<HeaderValue>,
    trace: Option<TraceParent>,
    limit: usize,
    is_dry: bool,
    until: Instant,
    done: DoneByFilter,
    /// Operations with a result, which may match another status since, and those that were started.
    seen: HashSet<OperationId>,
    /// Operations that were asked to stop, retried or replaced before this request: they come last.
    asked_or_retried_before: Vec<OneByFilter>,
    warning: Option<String>,
}

impl Walk {
    async fn all(&mut self, filter: &Filter) -> Result<(), ApiError> {
        // Counted before anything is done: what is cancelled now matches another status afterwards.
        let wanted = Wanted {
            limit: 1,
            ..first_page(filter.clone(), self.verb.order())
        };
        let (first, ..) = page(&self.state, wanted).await?;
        self.done.matched = first.total;

        let (fitting, others) = self.verb.statuses();
        for statuses in [fitting, others] {
            let wanted =
                |status: &&Status| filter.statuses.is_empty() || filter.statuses.contains(status);
            let statuses: Vec<Status> = statuses.iter().filter(wanted).copied().collect();
            if !statuses.is_empty() {
                let filter = Filter {
                    statuses,
                    ..filter.clone()
                };
                if let Err(error) = self.pages(filter).await {
                    self.stop(error)?;
                    break;
                }
            }
        }
        let room = self.limit - self.done.results.len();
        self.done
            .results
            .extend(self.asked_or_retried_before.drain(..).take(room));
        self.done.has_more = self.done.matched > self.done.results.len() as u64;
        Ok(())
    }

    /// Ends the walk because of an error: what was done before it is answered all the same.
    ///
    /// # Errors
    /// The error, when nothing was done, or when the token is not valid any more.
    fn stop(&mut self, error: ApiError) -> Result<(), ApiError> {
        if self.done.results.is_empty() || self.principal.is_revoked() {
            return Err(error);
        }
        error.log_cause();
        let text = format!(
            "Stopped before the end, and these are the results until then. Repeat the request for the others. The reason: {}",
            error.problem().error
        );
        self.warning = Some(text);
        Ok(())
    }

    /// All pages of this filter, up to the limit.
    async fn pages(&mut self, filter: Filter) -> Result<(), ApiError> {
        let mut wanted = first_page(filter, self.verb.order());
        while self.done.results.len() < self.limit && Instant::now() < self.until {
            let (page, turn, warning) = page(&self.state, wanted.clone()).await?;
            let _share = self
                .state
                .answers
                .share(&self.principal, page.bytes)
                .await?;
            drop(turn);
            self.warning = self.warning.take().or(warning);
            self.principal.check_still_valid()?;
            let (mut views, asked_or_retried_before) = self.split_off_earlier(page.views);
            let room = self
                .limit
                .saturating_sub(self.asked_or_retried_before.len());
            for result in asked_or_retried_before.into_iter().take(room) {
                self.seen.insert(result.operation_id.clone());
                self.asked_or_retried_before.push(result);
            }
            views.retain(|view| !self.seen.contains(&view.record.id));
            views.truncate(self.limit - self.done.results.len());
            let ids = views.iter().map(|view| view.record.id.clone());
            self.seen.extend(ids);
            self.one_page(views).await;
            match page.next {
                Some(next) => wanted.after = Some(next),
                None => break,
            }
        }
        Ok(())
    }

    /// Takes out those that were asked to stop, retried or replaced before. A retry of all that failed, asked for
    /// twice, must not start each of them twice; whoever repeats a request with its `Idempotency-Key` gets the same answers.
    /// Running operations that are asked to stop already need no second cancel, and must not stand in the
    /// way of others: they may ignore it. A retry of an operation that another one has replaced would cancel that
    /// one, and be retried itself the next time.
    fn split_off_earlier(&self, views: Vec<View>) -> (Vec<View>, Vec<OneByFilter>) {
        let key = self.key.as_ref().map(HeaderValue::as_bytes);
        let is_repeated = |view: &View| {
            let id = key.and_then(|key| id_of_retry(&self.principal, &view.record.id, key).ok());
            id.is_some_and(|id| self.state.projection.get(id.as_str()).is_some())
        };
        let is_due = |view: &View| match self.verb {
            Verb::Cancel => {
                view.status() != Status::Running || view.record.cancel_requested_at().is_none()
            }
            Verb::Retry => view.retried_as.is_none() && !was_replaced(view) || is_repeated(view),
        };
        let (due, before): (Vec<View>, Vec<View>) = views.into_iter().partition(is_due);
        let code = match self.verb {
            Verb::Cancel => None,
            Verb::Retry => Some(ErrorCode::NotRepeatable),
        };
        let results = before.into_iter().map(|view| OneByFilter {
            operation_id: view.record.id.clone(),
            status_code: code.map_or(200, ErrorCode::status),
            code,
            retried_as: view.retried_as.clone(),
            asked_before: matches!(self.verb, Verb::Cancel),
            replaced: matches!(self.verb, Verb::Retry) && was_replaced(&view),
        });
        (due, results.collect())
    }

    async fn one_page(&mut self, views: Vec<View>) {
        let this = &*self;
        // With a unique key, a later one may replace an earlier one, so their order must stay.
        let is_ordered =
            |view: &View| matches!(this.verb, Verb::Retry) && view.record.unique().is_some();
        let (ordered, free): (Vec<_>, Vec<_>) =
            (views.into_iter().enumerate()).partition(|(_, view)| is_ordered(view));
        let one = |(place, view): (usize, View)| async move {
            // One that is begun is brought to its end.
            match Instant::now() < this.until {
                true => Some((place, this.one(&view).await)),
                false => None,
            }
        };
        let free = stream::iter(free).map(one).buffered(UNDER_WAY);
        let ordered = stream::iter(ordered).then(one);
        let results = free.chain(ordered).filter_map(future::ready);
        let mut results: Vec<(usize, (OneByFilter, u64))> = results.collect().await;
        results.sort_by_key(|(place, _)| *place);
        let results: Vec<_> = results.into_iter().map(|(_, result)| result).collect();

        // Once for all: whoever reads next sees what was done.
        let last = results.iter().map(|(_, sequence)| *sequence).max();
        let projection = &self.state.projection;
        projection
            .reached(last.unwrap_or_default(), READ_YOUR_WRITES)
            .await;
        let results = results.into_iter().map(|(result, _)| result);
        for result in results {
            let is_done = result.code.is_none() && !result.asked_before && !self.is_dry;
            self.done.done += u64::from(is_done);
            // What was started now may match as well, and did not before.
            if result.status_code == 202 {
                self.seen.extend(result.retried_as.clone());
            }
            self.done.results.push(result);
        }
    }

    /// Does it for one operation. Returns also the sequence of what was stored, or 0.
    async fn one(&self, view: &View) -> (OneByFilter, u64) {
        let mut result = OneByFilter {
            operation_id: view.record.id.clone(),
            status_code: 200,
            code: None,
            retried_as: None,
            asked_before: false,
            replaced: false,
        };
        let mut stored = 0;
        let refused = match self.verb {
            Verb::Cancel => match self.cancel(view).await {
                Ok((sequence, is_first)) => {
                    stored = sequence;
                    result.asked_before = !is_first;
                    None
                }
                Err(error) => Some(error),
            },
            Verb::Retry => match self.retry(view).await {
                Ok(Some(answer)) => {
                    result.status_code = answer.status.as_u16();
                    result.retried_as = Some(answer.response.operation_id.into_owned());
                    None
                }
                Ok(None) => {
                    result.status_code = 202;
                    None
                }
                Err(error) => Some(error),
            },
        };
        if let Some(error) = refused {
            error.log_cause();
            result.status_code = error.problem().status_code;
            result.code = Some(error.problem().code);
        }
        (result, stored)
    }

    /// Returns the sequence of the cancel, and whether it is this one.
    async fn cancel(&self, view: &View) -> Result<(u64, bool), ApiError> {
        let record = &view.record;
        match view.status() {
            status @ (Status::Completed | Status::Failed | Status::Cancelled) => {
                return Err(ApiError::already_finished(&record.id, status));
            }
            Status::Pending | Status::Running if self.is_dry => return Ok((0, true)),
            Status::Pending | Status::Running => {}
        }
        self.state.need_nats()?;
        let intent = CancelIntent::new(record.id.clone(), None)
            .requested_by(self.principal.token_name().cloned());
        let outcome = self.state.dispatch.cancel(record, intent).await?;
        tracing::debug!(operation_id = %record.id, ?outcome, requested_by = self.principal.name(), "cancel");
        match outcome {
            Cancel::Done(sequence) | Cancel::Asked(sequence) => Ok((sequence, true)),
            Cancel::Before(sequence) => Ok((sequence, false)),
            Cancel::Ended(status) => Err(ApiError::already_finished(&record.id, status)),
        }
    }

    /// `None` in a dry run.
    async fn retry(&self, view: &View) -> Result<Option<StartAnswer>, ApiError> {
        check_repeatable(&view.record)?;
        if self.is_dry {
            return Ok(None);
        }
        self.state.need_nats()?;
        let how = How {
            key: match &self.key {
                Some(key) => Key::Client(key.as_bytes()),
                // Two requests at the same time mean the same operations.
                None => Key::Once,
            },
            from_checkpoint: false,
            trace: self.trace.clone(),
        };
        match prepare(&self.state, self.principal.clone(), view, how).await? {
            Prepared::Before(answer) => Ok(Some(answer)),
            Prepared::New(again) => {
                let id = again.operation_id().clone();
                let answer = again.publish(&self.state).await?;
                // Another operation holds the unique key, so this one was not retried.
                match *answer.operation_id() == id {
                    true => Ok(Some(answer)),
                    false => Err(not_unique(answer.operation_id())),
                }
            }
        }
    }
}

/// Whether it was cancelled because another operation took its place.
fn was_replaced(view: &View) -> bool {
    let is_cancelled = view.status() == Status::Cancelled;
    is_cancelled && view.record.cancel_reason().is_some_and(is_replaced)
}

fn not_unique(holder: &OperationId) -> ApiError {
    let text = format!("Operation {holder} with the same unique key is open; nothing was started");
    ApiError::new(ErrorCode::NotUnique, text).with("operation_id", holder.as_str())
}

//! Starts with a unique key: the entry of the key first, then the start request behind it.
//!
//! [`ktrdr_protocol::keys`] has the problem and the rule. Everything here may be repeated: whoever dies
//! in between leaves an entry that names an operation which does not appear, and that is void after a
//! while.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use ktrdr_bus::backoff::Backoff;
use ktrdr_bus::oplog::{Behind, Stored, StoredEntry};
use ktrdr_http::tokens::Scope;
use ktrdr_protocol::cancel::{CancelIntent, replaced_by};
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::keys::{Holder, OnConflict, Unique, UniqueClaim, VOID_AFTER, claim_unique};
use ktrdr_protocol::start_request::StartRequest;
use ktrdr_protocol::trace::TraceParent;
use tokio::time::Instant;

use super::{Requester, check_room};
use crate::dispatch::Cancel;
use crate::error::{ApiError, ErrorCode};
use crate::projection::READ_YOUR_WRITES;
use crate::projection::record::View;
use crate::state::AppState;

/// How long a start may take to get its key: it may have to wait until an entry is void.
const PATIENCE: Duration = VOID_AFTER.saturating_add(Duration::from_secs(5));

/// Pause before an entry is looked at again, whose operation has not appeared yet.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const MAX_PAUSE: Duration = Duration::from_millis(500);

/// What became of a start with a unique key.
pub(super) enum Started {
    /// It was stored.
    Stored(Stored),
    /// Another one is open, and is the answer.
    Other(Box<View>),
}

/// Publishes the start request if no other operation with its unique key is open.
///
/// # Errors
/// 409 `not_unique`, 403 when another one would be cancelled by a token that may not, or what a start
/// may be refused for.
pub(super) async fn start(
    state: &AppState,
    requester: &Requester,
    request: &StartRequest,
    unique: &Unique,
    trace: Option<&TraceParent>,
) -> Result<Started, ApiError> {
    let mut attempt = Attempt {
        state,
        requester,
        request,
        unique,
        trace,
        least: 0,
        replaced: HashSet::new(),
        until: Instant::now() + PATIENCE,
    };
    let started = attempt.start().await;
    started.map_err(|error| attempt.tell_replaced(error))
}

/// The outcome of a claim.
enum Claim {
    /// The start request may be published behind this entry.
    Mine(Behind),
    /// This operation is the answer.
    Other(Box<View>),
}

/// A start that wants its key.
struct Attempt<'a> {
    state: &'a AppState,
    requester: &'a Requester,
    request: &'a StartRequest,
    unique: &'a Unique,
    trace: Option<&'a TraceParent>,
    /// The last entry of the key is here or behind it.
    least: u64,
    /// The operations that were asked to stop for this one.
    replaced: HashSet<OperationId>,
    until: Instant,
}

impl Attempt<'_> {
    async fn start(&mut self) -> Result<Started, ApiError> {
        let (state, request, trace) = (self.state, self.request, self.trace);
        loop {
            let behind = match self.claim().await? {
                Claim::Mine(behind) => behind,
                Claim::Other(view) => return Ok(Started::Other(view)),
            };

            let now = state.projection.now();
            let stored = state.dispatch.start(request, trace, now, Some(&behind));
            if let Some(stored) = stored.await? {
                return Ok(Started::Stored(stored));
            }
            if let Some(stored) = self.stored_before().await? {
                return Ok(Started::Stored(stored));
            }
            self.in_time()?;
        }
    }

    /// Says of a refusal which operations were asked to stop before it. Nothing takes that back.
    fn tell_replaced(&self, error: ApiError) -> ApiError {
        if self.replaced.is_empty() {
            return error;
        }
        let mut ids: Vec<&str> = self.replaced.iter().map(OperationId::as_str).collect();
        ids.sort_unstable();
        let text = format!(
            "The operations that this one was to replace were asked to stop before: {}",
            ids.join(", ")
        );
        error.also(&text).with("replaced", ids)
    }

    /// Becomes the last holder that the key's entry names.
    async fn claim(&mut self) -> Result<Claim, ApiError> {
        let (worker_type, id) = (&self.request.operation_type, &self.request.operation_id);
        let (dispatch, key) = (&self.state.dispatch, &self.unique.key);
        let mut pause = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
        loop {
            let last = dispatch.unique_key(worker_type, key, self.least).await?;
            self.least = last.sequence;
            let holders = self.holders(&last).await?;
            let age = self.state.projection.now().after(last.stored_at);

            let known = |id: &OperationId| holders.get(id).copied().unwrap_or(Holder::Missing);
            match claim_unique(&last.entry, id, age, known) {
                UniqueClaim::Start => {
                    let behind = dispatch.behind(worker_type, key, last.sequence);
                    return Ok(Claim::Mine(behind));
                }
                UniqueClaim::Take(next) => {
                    let replaced =
                        dispatch.replace_unique_key(worker_type, &next, last.sequence, id);
                    match replaced.await? {
                        // Nobody else is in question.
                        Ok(sequence) if next.holders.len() == 1 => {
                            let behind = dispatch.behind(worker_type, key, sequence);
                            return Ok(Claim::Mine(behind));
                        }
                        Ok(sequence) | Err(sequence) => self.least = sequence,
                    }
                }
                UniqueClaim::Taken(open) => {
                    if let Some(view) = self.conflict(&open).await? {
                        return Ok(Claim::Other(view));
                    }
                }
                UniqueClaim::Wait => pause.wait().await,
            }
            self.in_time()?;
        }
    }

    /// What is known of the other holders that an entry names.
    async fn holders(&self, last: &StoredEntry) -> Result<HashMap<OperationId, Holder>, ApiError> {
        let id = &self.request.operation_id;
        let others: Vec<_> = last
            .entry
            .holders
            .iter()
            .filter(|other| *other != id)
            .collect();
        let mut found = HashMap::with_capacity(others.len());
        if others.is_empty() {
            return Ok(found);
        }
        // Whatever was started before the entry is known then.
        self.read_to(last.sequence).await?;
        for other in others {
            found.insert(other.clone(), self.holder(other).await?);
        }
        Ok(found)
    }

    async fn holder(&self, id: &OperationId) -> Result<Holder, ApiError> {
        let worker_type = &self.request.operation_type;
        let known = self.state.projection.get(id.as_str());
        let known = known.filter(|view| view.record.queue.worker_type == *worker_type);
        let Some(view) = known else {
            return Ok(Holder::Missing);
        };
        // The projection may not have read its end yet.
        let has_ended =
            view.status().is_terminal() || self.state.dispatch.has_ended(worker_type, id).await?;
        Ok(match has_ended {
            true => Holder::Ended,
            false if self.replaced.contains(id) => Holder::Replaced,
            false => Holder::Open,
        })
    }

    /// Does what the start wants while others are open. `None`: decide again.
    async fn conflict(&mut self, open: &[OperationId]) -> Result<Option<Box<View>>, ApiError> {
        // The last one will hold the key; earlier ones were replaced, and have not stopped yet.
        let Some(holder) = open.last() else {
            return Ok(None);
        };
        match self.unique.on_conflict {
            OnConflict::Reject => Err(not_unique(self.unique, holder)),
            OnConflict::Return => Ok(self.state.projection.get(holder.as_str()).map(Box::new)),
            OnConflict::Replace => {
                self.check_replacing(holder).await?;
                for id in open {
                    self.replace(id).await?;
                }
                Ok(None)
            }
        }
    }

    /// Refuses whatever can be refused, before anything is cancelled for this start.
    async fn check_replacing(&self, id: &OperationId) -> Result<(), ApiError> {
        let (state, request) = (self.state, self.request);
        if !self.requester.principal.may(Scope::Cancel) {
            let text = format!(
                "Operation {id} has the same unique key, and the token may not cancel it: that needs the scope cancel"
            );
            return Err(ApiError::new(ErrorCode::Forbidden, text).with("scope", "cancel"));
        }
        // It may have waited for its key since this was checked first.
        check_room(state, &request.operation_id, &request.parameters)?;
        let now = state.projection.now();
        state.dispatch.check_start(request, self.trace, now).await
    }

    /// Cancels an operation for this one, and waits until the projection shows it.
    async fn replace(&mut self, id: &OperationId) -> Result<(), ApiError> {
        let Some(view) = self.state.projection.get(id.as_str()) else {
            return Ok(());
        };

        let reason = replaced_by(&self.request.operation_id);
        let requested_by = self.requester.principal.token_name();
        let intent =
            CancelIntent::new(id.clone(), Some(reason)).requested_by(requested_by.cloned());
        let cancelled = self.state.dispatch.cancel(&view.record, intent).await?;
        match cancelled {
            Cancel::Done(sequence) | Cancel::Asked(sequence) => {
                self.replaced.insert(id.clone());
                self.read_to(sequence).await
            }
            Cancel::Before(sequence) => self.read_to(sequence).await,
            Cancel::Ended(_) => Ok(()),
        }
    }

    /// The start request, when an earlier try to publish it was stored although its answer got lost.
    /// Another entry has followed the one that it stands behind, so this is certain then.
    async fn stored_before(&mut self) -> Result<Option<Stored>, ApiError> {
        let (worker_type, id) = (&self.request.operation_type, &self.request.operation_id);
        let dispatch = &self.state.dispatch;
        let last = dispatch
            .unique_key(worker_type, &self.unique.key, self.least)
            .await?;
        self.read_to(last.sequence).await?;
        let known = self.state.projection.get(id.as_str());
        Ok(known.map(|view| Stored {
            sequence: view.record.start_sequence,
            was_known: true,
        }))
    }

    async fn read_to(&self, sequence: u64) -> Result<(), ApiError> {
        if self
            .state
            .projection
            .reached(sequence, READ_YOUR_WRITES)
            .await
        {
            return Ok(());
        }
        let text =
            "This backend has not read who holds the unique key. Nothing was started; try again";
        Err(ApiError::new(ErrorCode::NotReady, text))
    }

    fn in_time(&self) -> Result<(), ApiError> {
        if Instant::now() < self.until {
            return Ok(());
        }
        let text =
            "Others want the same unique key at the same time. Nothing was started; try again";
        Err(ApiError::new(ErrorCode::NotReady, text))
    }
}

fn not_unique(unique: &Unique, id: &OperationId) -> ApiError {
    let text = format!(
        "Operation {id} with the unique key {:?} is open; nothing was started. Wait for its end, or choose another on_conflict",
        unique.key.as_str()
    );
    ApiError::new(ErrorCode::NotUnique, text).with("operation_id", id.as_str())
}

//! One client that follows live events. It does nothing until there is something to send, and holds
//! nothing but its subscription.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures::Stream;
use ktrdr_http::answer::{AnswerBudget, Share};
use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::rest::metrics::Cursor;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::frame::{Batch, Frame, FrameKind, all_sent, prelude};
use super::{Broadcaster, Subscription};
use crate::projection::Projection;
use crate::projection::record::View;

/// Operations sent to a client that comes back, at most. With more it is cheaper to fetch a page.
const MAX_MISSED_OPERATIONS: usize = 1000;

/// Bytes sent to a client that comes back, at most.
const MAX_MISSED_BYTES: usize = 4 * 1024 * 1024;

/// Which of all events a client gets. The first two fields filter their own kind of events.
#[derive(Debug, Default)]
pub struct Filter {
    /// Only operations, progress and metric points of this worker type.
    pub operation_type: Option<String>,
    /// Only workers of this type.
    pub worker_type: Option<String>,
    /// The only worker types that the client may see; `None` when it sees all.
    pub visible: Option<Vec<WorkerType>>,
}

impl Filter {
    fn is_empty(&self) -> bool {
        self.operation_type.is_none() && self.worker_type.is_none() && self.visible.is_none()
    }

    fn accepts(&self, frame: &Frame) -> bool {
        let wanted = match frame.kind {
            FrameKind::Operation | FrameKind::Progress | FrameKind::Metrics => &self.operation_type,
            FrameKind::Worker => &self.worker_type,
            FrameKind::Reset | FrameKind::Comment => return true,
        };

        let own = frame.worker_type.as_ref();
        let is_wanted = wanted
            .as_deref()
            .is_none_or(|wanted| own.is_some_and(|own| own.as_str() == wanted));
        let is_visible = self
            .visible
            .as_ref()
            .is_none_or(|visible| own.is_some_and(|own| visible.contains(own)));
        is_wanted && is_visible
    }
}

/// A client that follows all events.
struct AllEvents {
    broadcaster: Broadcaster,
    batches: broadcast::Receiver<Arc<Batch>>,
    filter: Filter,
    /// The client has seen the changes up to this sequence, or sees them in what it fetches.
    seen: u64,
    waiting: VecDeque<Bytes>,
    /// The share of what was missed, until it is sent.
    share: Option<Share>,
}

/// All events from now on, after those that were missed since `last_id`.
pub fn all_events(
    broadcaster: &Broadcaster,
    answers: &AnswerBudget,
    filter: Filter,
    last_id: Option<u64>,
) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
    // Before the projection is read: a change in between comes twice rather than never.
    let batches = broadcaster.subscribe_all();
    let projection = &broadcaster.0.sources.projection;
    let mut waiting = VecDeque::new();
    let mut share = None;
    let seen = match last_id {
        None => {
            let last_change = projection.last_change();
            waiting.push_back(prelude(last_change));
            last_change
        }
        Some(last_id) => {
            let (last_change, missed) = missed_since(projection, &filter, last_id);
            let missed = missed.and_then(|frames| {
                share = Some(answers.try_share(size(&frames))?);
                Some(frames)
            });
            catch_up(last_change, missed, &mut waiting);
            last_change
        }
    };

    let client = AllEvents {
        broadcaster: broadcaster.clone(),
        batches,
        filter,
        seen,
        waiting,
        share,
    };
    futures::stream::unfold(client, |mut client| async move {
        let bytes = client.next().await?;
        Some((Ok(bytes), client))
    })
}

fn size(frames: &[Bytes]) -> usize {
    frames.iter().map(Bytes::len).sum()
}

/// The sequence of the newest change, and what was missed since `last_id`; `None` when that is too
/// much.
fn missed_since(
    projection: &Projection,
    filter: &Filter,
    last_id: u64,
) -> (u64, Option<Vec<Bytes>>) {
    let (last_change, missed) = projection.changed_after(last_id, MAX_MISSED_OPERATIONS);
    let frames = missed.and_then(|missed| {
        let (mut frames, mut bytes) = (Vec::new(), 0);
        for (sequence, view) in &missed {
            let frame = Frame::operation(view, *sequence);
            if filter.accepts(&frame) {
                bytes += frame.bytes.len();
                frames.push(frame.bytes);
            }
            if bytes > MAX_MISSED_BYTES {
                return None;
            }
        }
        Some(frames)
    });
    (last_change, frames)
}

/// Queues what was missed before `last_change`. A client that missed too much is told to fetch
/// anew.
fn catch_up(last_change: u64, missed: Option<Vec<Bytes>>, waiting: &mut VecDeque<Bytes>) {
    match missed {
        Some(frames) => {
            waiting.extend(frames);
            waiting.push_back(prelude(last_change));
        }
        None => {
            waiting.push_back(prelude(last_change));
            waiting.push_back(Frame::reset("too much was missed", last_change).bytes);
        }
    }
}

impl AllEvents {
    /// The next bytes for the client; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.waiting.pop_front() {
                return Some(bytes);
            }
            self.share = None;

            let batch = tokio::select! {
                () = self.broadcaster.0.stopping.cancelled() => return None,
                batch = self.batches.recv() => batch,
            };
            match batch {
                Ok(batch) => self.queue(&batch),
                Err(RecvError::Lagged(_)) => {
                    // The client was too slow. The batches it missed are gone, and all that it
                    // fetches after the reset is newer.
                    self.seen = self.broadcaster.0.sources.projection.last_change();
                    self.batches = self.batches.resubscribe();
                    return Some(Frame::reset("the reader was too slow", self.seen).bytes);
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn queue(&mut self, batch: &Batch) {
        let is_reset = |frame: &Frame| frame.kind == FrameKind::Reset;
        if batch.frames.iter().any(is_reset) {
            // The stream may have been replaced; a new one counts from 1 again.
            self.seen = 0;
        }

        let is_all_new = batch.first_sequence.is_none_or(|first| first > self.seen);
        if self.filter.is_empty() && is_all_new {
            self.waiting.push_back(batch.whole.clone());
            return;
        }

        let is_new =
            |frame: &&Frame| frame.kind != FrameKind::Operation || frame.sequence > self.seen;
        let wanted = batch
            .frames
            .iter()
            .filter(is_new)
            .filter(|frame| self.filter.accepts(frame));
        self.waiting.extend(wanted.map(|frame| frame.bytes.clone()));
    }
}

/// How far the events of one operation and its log lines have come that are sent to the same client.
#[derive(Debug, Default)]
pub struct Reached {
    /// Cancelled when the events end before the operation: the client is to connect again.
    pub gave_up: CancellationToken,
    /// The sequence of the end, once its event is among those that are sent.
    pub end: OnceLock<u64>,
    /// Where the lines end, once all of them are among those that are sent.
    pub lines: OnceLock<Cursor>,
}

impl Reached {
    /// What tells a client that it has all of both; `None` when it does not.
    pub fn all_sent(&self) -> Option<Bytes> {
        let (end, lines) = (self.end.get()?, self.lines.get()?);
        Some(all_sent(*end, *lines))
    }
}

/// A client that follows one operation.
struct OneOperation {
    subscription: Subscription,
    broadcaster: Broadcaster,
    answers: AnswerBudget,
    id: OperationId,
    /// After the stream was replaced, the same id may be an operation of another type.
    worker_type: WorkerType,
    /// The newest change that the client has seen.
    seen: u64,
    waiting: VecDeque<Bytes>,
    /// The share of the document, until it is sent.
    share: Option<Share>,
    /// The operation has ended: the stream ends after what waits.
    ended: bool,
    reached: Arc<Reached>,
}

/// The operation as it is now, then everything that happens to it. Ends with the operation's end.
/// `share` is for the first document, the others take theirs of `answers`. `reached` learns how they end.
pub fn one_operation(
    broadcaster: &Broadcaster,
    answers: AnswerBudget,
    view: &View,
    share: Share,
    reached: Arc<Reached>,
) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
    let record = &view.record;
    let mut client = OneOperation {
        subscription: broadcaster.subscribe_one(&record.id, &record.queue.worker_type),
        broadcaster: broadcaster.clone(),
        answers,
        id: record.id.clone(),
        worker_type: record.queue.worker_type.clone(),
        seen: 0,
        waiting: VecDeque::new(),
        share: Some(share),
        ended: false,
        reached,
    };
    client
        .waiting
        .push_back(Bytes::from_static(b"retry: 1000\n\n"));
    if view.archived {
        client
            .waiting
            .push_back(Frame::operation(view, sequence_of(view)).bytes);
        client.end(sequence_of(view));
    } else {
        client.queue_document();
    }

    futures::stream::unfold(client, |mut client| async move {
        let bytes = client.next().await?;
        Some((Ok(bytes), client))
    })
}

/// The sequence of the last event that `view` shows.
pub fn sequence_of(view: &View) -> u64 {
    view.record
        .start_sequence
        .max(view.record.state.last_sequence)
}

impl OneOperation {
    /// Queues the operation as it is now.
    fn queue_document(&mut self) {
        let projection = &self.broadcaster.0.sources.projection;
        let view = projection.get(self.id.as_str());
        match view.filter(|view| view.record.queue.worker_type == self.worker_type) {
            Some(view) => {
                if self.share.is_none() {
                    self.share = self.answers.try_share(view.record.size());
                }
                if self.share.is_none() {
                    // The client connects again, and is then told to come later.
                    self.ended = true;
                    self.reached.gave_up.cancel();
                    return;
                }
                self.seen = sequence_of(&view);
                self.waiting
                    .push_back(Frame::operation(&view, self.seen).bytes);
                if view.status().is_terminal() {
                    self.end(self.seen);
                }
            }
            // It has left the stream.
            None => self.ended = true,
        }
    }

    /// Notes that the event with the end of the operation is on its way.
    fn end(&mut self, sequence: u64) {
        self.ended = true;
        let _ = self.reached.end.set(sequence);
    }

    /// The next bytes for the client; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.waiting.pop_front() {
                return Some(bytes);
            }
            self.share = None;
            if self.ended {
                return None;
            }

            let is_other_type = |worker_type: &WorkerType| *worker_type != self.worker_type;
            let frame = tokio::select! {
                () = self.broadcaster.0.stopping.cancelled() => return None,
                frame = self.subscription.frames.recv() => frame,
            };
            match frame {
                Ok(frame) if frame.kind == FrameKind::Reset => self.queue_document(),
                Ok(frame) if frame.worker_type.as_ref().is_some_and(is_other_type) => {}
                Ok(frame) if frame.kind == FrameKind::Operation => {
                    if frame.sequence > self.seen {
                        self.seen = frame.sequence;
                        if frame.last {
                            self.end(frame.sequence);
                        }
                        return Some(frame.bytes);
                    }
                }
                Ok(frame) => return Some(frame.bytes),
                Err(RecvError::Lagged(_)) => {
                    // The document replaces the states and the progress that were missed; metric
                    // points are fetched by their cursor.
                    self.subscription.frames = self.subscription.frames.resubscribe();
                    self.queue_document();
                }
                Err(RecvError::Closed) => {
                    self.reached.gave_up.cancel();
                    return None;
                }
            }
        }
    }
}

//! One connection that follows events. It does nothing until there is something to send, and holds nothing but its place.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use ktrdr_protocol::id::OperationId;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::frame::{Batch, Frame, Kind, prelude};
use super::{Hub, Seat};
use crate::projection::record::View;
use crate::state::AppState;

/// Most operations sent to one who comes back; with more it is cheaper to fetch a page.
const MOST_MISSED: usize = 1000;

/// Most bytes sent to one who comes back.
const MOST_MISSED_BYTES: usize = 4 * 1024 * 1024;

/// What a reader of everything wants. Each filter is for its own kind of event.
#[derive(Debug, Default)]
pub struct Filter {
    /// Operations and progress of this type only.
    pub operation_type: Option<String>,
    /// Workers of this type only.
    pub worker_type: Option<String>,
}

impl Filter {
    fn is_open(&self) -> bool {
        self.operation_type.is_none() && self.worker_type.is_none()
    }

    fn lets_through(&self, frame: &Frame) -> bool {
        let wanted = match frame.kind {
            Kind::Operation | Kind::Progress | Kind::Metrics => &self.operation_type,
            Kind::Worker => &self.worker_type,
            Kind::Reset | Kind::Comment => return true,
        };
        wanted.as_deref().is_none_or(|wanted| {
            frame
                .worker_type
                .as_ref()
                .is_some_and(|own| own.as_str() == wanted)
        })
    }
}

/// Follows everything.
struct Everything {
    state: AppState,
    batches: broadcast::Receiver<Arc<Batch>>,
    filter: Filter,
    /// Changes up to this sequence were sent, or are part of what the client fetches.
    floor: u64,
    waiting: VecDeque<Bytes>,
    stopping: CancellationToken,
}

/// Everything that happens from now on, after what was missed since `last_id`.
pub fn everything(
    state: &AppState,
    filter: Filter,
    last_id: Option<u64>,
) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
    // Before the projection is read: what changes in between comes twice rather than never.
    let batches = Hub::follow_all(state);
    let mut waiting = VecDeque::new();
    let floor = match last_id {
        None => {
            let floor = state.projection.last_change();
            waiting.push_back(prelude(floor));
            floor
        }
        Some(last_id) => catch_up(state, &filter, last_id, &mut waiting),
    };
    let stopping = state.stopping.clone();
    let reader = Everything {
        state: state.clone(),
        batches,
        filter,
        floor,
        waiting,
        stopping,
    };
    futures::stream::unfold(reader, |mut reader| async move {
        let bytes = reader.next().await?;
        Some((Ok(bytes), reader))
    })
}

/// Puts down what was missed; says up to which sequence that goes.
fn catch_up(state: &AppState, filter: &Filter, last_id: u64, waiting: &mut VecDeque<Bytes>) -> u64 {
    let (floor, missed) = state.projection.changed_after(last_id, MOST_MISSED);
    let frames = missed.map(|missed| {
        let frames = missed
            .iter()
            .map(|(sequence, view)| Frame::operation(view, *sequence));
        frames
            .filter(|frame| filter.lets_through(frame))
            .map(|frame| frame.bytes)
            .collect::<Vec<_>>()
    });
    match frames {
        Some(frames) if frames.iter().map(Bytes::len).sum::<usize>() <= MOST_MISSED_BYTES => {
            waiting.extend(frames);
            waiting.push_back(prelude(floor));
        }
        _ => {
            waiting.push_back(prelude(floor));
            waiting.push_back(Frame::reset("too much was missed", floor).bytes);
        }
    }
    floor
}

impl Everything {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.waiting.pop_front() {
                return Some(bytes);
            }
            let batch = tokio::select! {
                () = self.stopping.cancelled() => return None,
                batch = self.batches.recv() => batch,
            };
            match batch {
                Ok(batch) => self.take(&batch),
                Err(RecvError::Lagged(_)) => {
                    // Too slow. What it missed is gone; what it fetches now is newer anyway.
                    self.floor = self.state.projection.last_change();
                    self.batches = self.batches.resubscribe();
                    return Some(Frame::reset("the reader was too slow", self.floor).bytes);
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }

    fn take(&mut self, batch: &Batch) {
        if batch.frames.iter().any(|frame| frame.kind == Kind::Reset) {
            // The stream is another one and counts from 1 again.
            self.floor = 0;
        }
        if self.filter.is_open() && batch.first_sequence.is_none_or(|first| first > self.floor) {
            self.waiting.push_back(batch.whole.clone());
            return;
        }
        let new = |frame: &&Frame| frame.kind != Kind::Operation || frame.sequence > self.floor;
        let wanted = batch
            .frames
            .iter()
            .filter(new)
            .filter(|frame| self.filter.lets_through(frame));
        self.waiting.extend(wanted.map(|frame| frame.bytes.clone()));
    }
}

/// Follows one operation.
struct One {
    state: AppState,
    seat: Seat,
    id: OperationId,
    /// The change that the last document sent shows.
    floor: u64,
    waiting: VecDeque<Bytes>,
    /// Nothing follows what waits.
    ended: bool,
    stopping: CancellationToken,
}

/// The sequence of the last event that `view` shows.
pub fn sequence_of(view: &View) -> u64 {
    view.record
        .start_sequence
        .max(view.record.state.last_sequence)
}

/// The operation as it stands, then everything that happens to it; ends with its end.
pub fn one(state: &AppState, view: &View) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
    let record = &view.record;
    let id = record.id.clone();
    let seat = Hub::follow_one(state, &id, &record.queue.worker_type);
    let stopping = state.stopping.clone();
    let mut reader = One {
        state: state.clone(),
        seat,
        id,
        floor: 0,
        waiting: VecDeque::new(),
        ended: false,
        stopping,
    };
    reader
        .waiting
        .push_back(Bytes::from_static(b"retry: 1000\n\n"));
    reader.show();
    futures::stream::unfold(reader, |mut reader| async move {
        let bytes = reader.next().await?;
        Some((Ok(bytes), reader))
    })
}

impl One {
    /// Puts the current document down.
    fn show(&mut self) {
        match self.state.projection.get(self.id.as_str()) {
            Some(view) => {
                self.floor = sequence_of(&view);
                self.ended = view.status().is_terminal();
                self.waiting
                    .push_back(Frame::operation(&view, self.floor).bytes);
            }
            // It has left the stream.
            None => self.ended = true,
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.waiting.pop_front() {
                return Some(bytes);
            }
            if self.ended {
                return None;
            }
            let frame = tokio::select! {
                () = self.stopping.cancelled() => return None,
                frame = self.seat.frames.recv() => frame,
            };
            match frame {
                Ok(Frame {
                    kind: Kind::Reset, ..
                }) => self.show(),
                Ok(frame) if frame.kind == Kind::Operation && frame.sequence <= self.floor => {}
                Ok(frame) => {
                    if frame.kind == Kind::Operation {
                        self.floor = frame.sequence;
                        self.ended = frame.last;
                    }
                    return Some(frame.bytes);
                }
                Err(RecvError::Lagged(_)) => {
                    // The document makes up for states and progress; points are fetched by their cursor.
                    self.seat.frames = self.seat.frames.resubscribe();
                    self.show();
                }
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

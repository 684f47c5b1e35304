//! What the client of one connection does, and whether it takes too long.
//!
//! Requests only set flags and count; they never read a clock. A timer of the connection looks at
//! intervals whether anything has changed since it looked last.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::Timeouts;

/// Bytes of an answer that a client must read within [`Timeouts::slow`] while more wait for it.
const MIN_BYTES: u64 = 512 * 1024;

/// No byte of the next request has arrived.
const IDLE: u8 = 0;
/// The header of a request is arriving.
const HEADER: u8 = 1;
/// A request is being answered.
const ANSWERING: u8 = 2;

/// What the client does now. Only the task of the connection changes it; the fields are atomic
/// because that task moves between threads.
#[derive(Debug)]
pub(super) struct Activity {
    phase: AtomicU8,
    /// How many requests began to arrive. With the phase it tells one moment from another.
    requests: AtomicU32,
    /// A handler waits for the body of its request.
    awaits_body: AtomicBool,
    /// Bytes wait to be sent, and the client does not take them.
    is_stalled: AtomicBool,
    /// Bytes that the client took since the timer looked last.
    taken: AtomicU64,
}

impl Default for Activity {
    /// A new connection: its first header is due.
    fn default() -> Self {
        Self {
            phase: AtomicU8::new(HEADER),
            requests: AtomicU32::new(0),
            awaits_body: AtomicBool::new(false),
            is_stalled: AtomicBool::new(false),
            taken: AtomicU64::new(0),
        }
    }
}

impl Activity {
    /// Bytes arrived.
    fn received(&self) {
        if self.phase.load(Relaxed) == IDLE {
            self.phase.store(HEADER, Relaxed);
            self.requests.fetch_add(1, Relaxed);
        }
    }

    /// A header is complete.
    pub(super) fn request(&self) {
        if self.phase.swap(ANSWERING, Relaxed) == IDLE {
            // It was in the buffer already.
            self.requests.fetch_add(1, Relaxed);
        }
    }

    /// The answer was handed over completely.
    fn answered(&self) {
        self.phase.store(IDLE, Relaxed);
    }

    fn sent(&self, outcome: &Poll<io::Result<usize>>) {
        self.is_stalled.store(outcome.is_pending(), Relaxed);
        if let Poll::Ready(Ok(bytes)) = outcome {
            let taken = self.taken.load(Relaxed) + *bytes as u64;
            self.taken.store(taken, Relaxed);
        }
    }
}

/// The clock of one connection.
#[derive(Debug)]
pub(super) struct Clock {
    overdue: Overdue,
    ticks: Interval,
}

impl Clock {
    /// Starts now.
    pub(super) fn new(timeouts: Timeouts) -> Self {
        let overdue = Overdue::new(timeouts);
        let mut ticks = interval_at(Instant::now() + overdue.interval, overdue.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { overdue, ticks }
    }

    /// Waits until the connection must be closed, and returns why.
    ///
    /// # Cancel safety
    /// What was seen so far stays in the clock.
    pub(super) async fn overdue(&mut self, activity: &Activity) -> &'static str {
        loop {
            self.ticks.tick().await;
            if let Some(why) = self.overdue.look(activity) {
                return why;
            }
        }
    }
}

/// For how long a client has not gone on.
#[derive(Debug)]
struct Overdue {
    timeouts: Timeouts,
    interval: Duration,
    seen: (u8, u32),
    /// For how long each of these was seen without a break.
    unchanged: Duration,
    body: Duration,
    stalled: Duration,
    slow: Duration,
    /// Bytes that the client took in this time.
    slow_bytes: u64,
}

impl Overdue {
    fn new(timeouts: Timeouts) -> Self {
        Self {
            timeouts,
            // Twice within the shortest timeout: so long it may be late.
            interval: timeouts.header.min(timeouts.stalled) / 2,
            seen: (HEADER, 0),
            unchanged: Duration::ZERO,
            body: Duration::ZERO,
            stalled: Duration::ZERO,
            slow: Duration::ZERO,
            slow_bytes: 0,
        }
    }

    /// Why the connection must be closed, if it must. Must be called at the interval.
    fn look(&mut self, activity: &Activity) -> Option<&'static str> {
        let seen = (
            activity.phase.load(Relaxed),
            activity.requests.load(Relaxed),
        );
        let taken = activity.taken.swap(0, Relaxed);
        let took_bytes = taken > 0;
        let is_stalled = activity.is_stalled.load(Relaxed);
        let interval = self.interval;
        let add = |to: &mut Duration, goes_on: bool| {
            *to = if goes_on {
                *to + interval
            } else {
                Duration::ZERO
            };
        };
        // Bytes that still leave after an answer was handed over are no idleness.
        let is_same = seen == self.seen && !(seen.0 == IDLE && took_bytes);
        add(&mut self.unchanged, is_same);
        add(
            &mut self.body,
            is_same && activity.awaits_body.load(Relaxed),
        );
        add(&mut self.stalled, is_stalled && !took_bytes);
        // Counted only while bytes wait for the client: an answer that is made slowly is not its
        // fault.
        add(&mut self.slow, is_stalled);
        self.slow_bytes = if is_stalled {
            self.slow_bytes + taken
        } else {
            0
        };
        let is_slow = self.slow >= self.timeouts.slow && self.slow_bytes < MIN_BYTES;
        if self.slow >= self.timeouts.slow {
            (self.slow, self.slow_bytes) = (Duration::ZERO, 0);
        }
        self.seen = seen;

        match seen.0 {
            HEADER if self.unchanged >= self.timeouts.header => Some("its header did not arrive"),
            IDLE if self.unchanged >= self.timeouts.idle => Some("it was idle"),
            _ if self.body >= self.timeouts.body => Some("its body did not arrive"),
            _ if self.stalled >= self.timeouts.stalled => Some("it did not read its answer"),
            _ if is_slow => Some("it read its answer too slowly"),
            _ => None,
        }
    }
}

/// The stream of a connection, with an eye on what goes through it. With TLS, that is what is
/// encrypted: so a handshake counts as part of the first header, and bytes that TLS still holds back
/// count as not taken.
pub(super) struct Watched {
    stream: TcpStream,
    activity: Arc<Activity>,
}

impl Watched {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }

    /// Waits for bytes, and leaves them where they are.
    pub(super) async fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.peek(buffer).await
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if read.is_ready() {
            self.activity.received();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.activity.sent(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.activity.sent(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

/// The body of a request. Whoever waits for it is waiting for the client.
pub(super) struct ReceivedBody {
    body: Incoming,
    activity: Arc<Activity>,
}

impl ReceivedBody {
    pub(super) fn new(body: Incoming, activity: Arc<Activity>) -> Self {
        Self { body, activity }
    }
}

impl http_body::Body for ReceivedBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if polled.is_pending() {
            self.activity.awaits_body.store(true, Relaxed);
        }
        let frame = ready!(polled);
        if !matches!(frame, Some(Ok(_))) {
            self.activity.awaits_body.store(false, Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ReceivedBody {
    fn drop(&mut self) {
        self.activity.awaits_body.store(false, Relaxed);
    }
}

/// The body of an answer. When it is dropped, all of it was handed over.
pub(super) struct SentBody {
    body: Body,
    activity: Arc<Activity>,
}

impl SentBody {
    pub(super) fn new(body: Body, activity: Arc<Activity>) -> Self {
        Self { body, activity }
    }
}

impl http_body::Body for SentBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for SentBody {
    fn drop(&mut self) {
        self.activity.answered();
    }
}

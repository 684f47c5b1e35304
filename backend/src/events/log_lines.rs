//! Follows the log lines of one operation, for one client.
//!
//! The problem: lines come from a stream that may be missing or replaced, a client begins anywhere in it,
//! and it must get every line that was stored before the operation ended.
//!
//! How it is solved: the stream is read from the client's cursor on, again and again with a pause. Whether
//! the operation has ended is looked at before each reading, so the last reading has all of its lines.
//! Of a stream that was replaced, the lines are read from the first one on.
//!
//! Rejected: a consumer per client. It would have to be made again after each interruption, and its
//! deliveries cost the server more than two readings a second that find nothing.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use ktrdr_bus::telemetry::chain;
use ktrdr_http::answer::{AnswerBudget, Share};
use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::log_line::LogLevel;
use ktrdr_protocol::rest::logs::LogsPage;
use ktrdr_protocol::rest::metrics::Cursor;
use ktrdr_protocol::state::Status;
use serde::Serialize;
use tokio::time::Instant;

use super::Broadcaster;
use super::connection::Reached;
use super::frame::{Frame, log_end, log_lines};
use crate::log_lines::{Lines, LogReader, Wanted};
use crate::projection::record::View;

/// Lines of one event, and their bytes.
const MAX_LINES: usize = 1000;
const MAX_BYTES: usize = 256 * 1024;

/// Pause between two readings; the longer one after those that found nothing.
const PAUSE: Duration = Duration::from_millis(250);
const LONG_PAUSE: Duration = Duration::from_secs(1);

/// Readings without a line before the pauses are long, and between two looks whether the stream was
/// replaced.
const QUIET: u32 = 20;

/// Interval of the comment that keeps quiet connections open.
const COMMENT_INTERVAL: Duration = Duration::from_secs(15);

/// What a client wants.
#[derive(Debug, Clone)]
pub struct Follow {
    /// Behind which position.
    pub cursor: Cursor,
    /// The least important level; `None` for all.
    pub level: Option<LogLevel>,
    /// The other events of the client, which learn where the lines end. Without others, each event has its
    /// cursor as id, quiet times have comments, and the last event says how the operation ended.
    pub beside: Option<Arc<Reached>>,
}

/// The lines behind the cursor, and those that come, until the operation has ended.
pub fn follow(
    broadcaster: &Broadcaster,
    answers: AnswerBudget,
    view: &View,
    follow: Follow,
) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
    let mut waiting = VecDeque::new();
    if follow.beside.is_none() {
        waiting.push_back(Bytes::from_static(b"retry: 1000\n\n"));
    }
    let client = Client {
        broadcaster: broadcaster.clone(),
        answers,
        id: view.record.id.clone(),
        worker_type: view.record.queue.worker_type.clone(),
        archived: view.archived.then(|| Ended(Some(view.status()))),
        follow,
        waiting,
        share: None,
        quiet: 0,
        sent_at: Instant::now(),
        is_over: false,
    };
    futures::stream::unfold(client, |mut client| async move {
        let bytes = client.next().await?;
        Some((Ok(bytes), client))
    })
}

/// That the operation has ended, and how; `None` when it has left the stream, and nobody can say.
#[derive(Debug, Clone, Copy)]
struct Ended(Option<Status>);

struct Client {
    broadcaster: Broadcaster,
    answers: AnswerBudget,
    id: OperationId,
    worker_type: WorkerType,
    /// How the operation ended, when it is in the archive.
    archived: Option<Ended>,
    follow: Follow,
    waiting: VecDeque<Bytes>,
    /// The share of the lines, until they are sent.
    share: Option<Share>,
    /// Readings without a line.
    quiet: u32,
    /// When the client was last sent something.
    sent_at: Instant,
    is_over: bool,
}

impl Client {
    /// The next bytes for the client; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(bytes) = self.waiting.pop_front() {
                return Some(bytes);
            }
            self.share = None;
            if self.is_over {
                return None;
            }

            let pause = self.step().await;
            let stopping = &self.broadcaster.0.stopping;
            tokio::select! {
                () = stopping.cancelled() => return None,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Reads once. Returns how long to wait before the next reading.
    async fn step(&mut self) -> Duration {
        let ended = self.archived.or_else(|| self.ended());
        let sources = &self.broadcaster.0.sources;
        let reader = LogReader {
            connection: &sources.connection,
            names: &sources.names,
            refused: &sources.refused,
            operation_id: &self.id,
            worker_type: &self.worker_type,
        };
        let wanted = Wanted {
            cursor: self.follow.cursor,
            level: self.follow.level,
            lines: MAX_LINES,
            bytes: MAX_BYTES,
            whole: ended.is_some(),
        };
        let is_last = ended.is_some();
        let found = match is_last || self.quiet % QUIET == QUIET - 1 {
            true => reader.read_or_start_over(wanted).await,
            false => reader.read(wanted).await,
        };
        match found {
            Ok(found) => self.take(found, ended),
            Err(error) => {
                tracing::debug!(operation_id = %self.id, error = chain(&error), "log lines cannot be read; trying again");
                self.comment();
                LONG_PAUSE
            }
        }
    }

    /// Whether the operation has ended. What has left the stream counts as ended.
    fn ended(&self) -> Option<Ended> {
        let view = self.broadcaster.0.sources.projection.get(self.id.as_str());
        let own = view.filter(|view| view.record.queue.worker_type == self.worker_type);
        match own {
            Some(view) => {
                let status = view.status();
                status.is_terminal().then_some(Ended(Some(status)))
            }
            None => Some(Ended(None)),
        }
    }

    fn take(&mut self, found: Lines, ended: Option<Ended>) -> Duration {
        let Lines {
            lines,
            from,
            cursor,
            has_more,
        } = found;
        let is_empty = lines.is_empty();
        if !is_empty {
            let bytes = self.frame(&Data {
                page: LogsPage {
                    operation_id: Cow::Borrowed(&self.id),
                    lines,
                    cursor: cursor.to_string(),
                    has_more,
                },
                from: from.to_string(),
            });
            let Some(share) = self.answers.try_share(bytes.len()) else {
                // Too much is on its way to others; the same lines are read again.
                self.comment();
                return LONG_PAUSE;
            };
            self.share = Some(share);
            self.waiting.push_back(bytes);
            self.sent_at = Instant::now();
        }
        self.follow.cursor = cursor;

        if let Some(Ended(status)) = ended.filter(|_| !has_more) {
            self.is_over = true;
            match &self.follow.beside {
                Some(reached) => drop(reached.lines.set(cursor)),
                None => self.waiting.push_back(log_end(status, &cursor.to_string())),
            }
            return Duration::ZERO;
        }
        if has_more {
            return Duration::ZERO;
        }
        self.quiet = if is_empty { self.quiet + 1 } else { 0 };
        self.comment();
        if self.quiet < QUIET {
            PAUSE
        } else {
            LONG_PAUSE
        }
    }

    fn frame(&self, data: &Data<'_>) -> Bytes {
        let is_alone = self.follow.beside.is_none();
        log_lines(data, is_alone.then_some(data.page.cursor.as_str()))
    }

    /// Queues a comment when nothing was sent for a while.
    fn comment(&mut self) {
        if self.follow.beside.is_none() && self.sent_at.elapsed() >= COMMENT_INTERVAL {
            self.sent_at = Instant::now();
            self.waiting.push_back(Frame::heartbeat().bytes);
        }
    }
}

/// One event: a page, and where it begins.
#[derive(Serialize)]
struct Data<'a> {
    #[serde(flatten)]
    page: LogsPage<'a>,
    /// The cursor behind which its lines are.
    from: String,
}

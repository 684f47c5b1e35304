//! Reads the messages of one subject of a stream, page by page, without a consumer. It uses
//! JetStream's direct get with a batch: one request, answered by one message per stored message.
//!
//! The problem: any server with a copy of the stream answers a direct get, also one that lags. Then
//! the newest messages are missing, and nothing in the answer says so.
//!
//! How it is solved: who needs the newest ones, too, asks the leader of the stream for the message
//! behind the last one ([`whole_page`]). Nearly always there is none. A server that has just become
//! the leader may lag for a moment as well, so [`read_all`] reads again until it has an event that
//! this backend knows of.
//!
//! Rejected: reading everything from the leader. It hands out one message a request.

use std::time::Duration;

use async_nats::jetstream::stream::RawMessageErrorKind;
use async_nats::{HeaderValue, Message};
use bytes::Bytes;
use futures::StreamExt;
use ktrdr_bus::backoff::Backoff;
use ktrdr_bus::nats::Connection;
use ktrdr_bus::oplog::stream_time;
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_protocol::time::Timestamp;
use serde_json::json;

/// How long the next message of a page may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes that the server sends for one request, at most, and one message more.
pub const PAGE_BYTES: usize = 512 * 1024;

/// The largest message that a server takes unless its `max_payload` was raised.
pub const MAX_MESSAGE: usize = 1024 * 1024;

/// Messages asked for at a time when all are read, at most.
const PAGE_MESSAGES: usize = 1000;

/// How often messages are read that do not reach what is known.
const READINGS: usize = 6;

/// The first pause between two of these readings; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(25);

/// The longest of these pauses.
const MAX_PAUSE: Duration = Duration::from_millis(400);

/// Status of the answer that ends a page.
const END_OF_BATCH: u16 = 204;

/// Status of the answer when there is no such message.
const NO_MESSAGE: u16 = 404;

/// A stored message.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the server stored it.
    pub time: Option<Timestamp>,
    /// Its content.
    pub payload: Bytes,
}

/// One page.
#[derive(Debug, Default)]
pub struct Page {
    /// In stream order.
    pub messages: Vec<StoredMessage>,
    /// Whether there are further messages.
    pub more: bool,
}

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The request could not be sent.
    #[error("cannot ask stream {stream}: {cause}")]
    Ask {
        /// Name of the stream.
        stream: String,
        /// The error of the client library.
        cause: String,
    },
    /// No answer in time.
    #[error("stream {0} did not answer in time")]
    Silent(String),
    /// The leader of the stream does not have what this backend has read from it.
    #[error("stream {stream} does not have message {known} yet")]
    Behind {
        /// Name of the stream.
        stream: String,
        /// Sequence of the message.
        known: u64,
    },
    /// The server refused the request.
    #[error("stream {stream} refused to be read: {status} {description}")]
    Refused {
        /// Name of the stream.
        stream: String,
        /// Status of the answer.
        status: u16,
        /// Text of the answer.
        description: String,
    },
}

/// Messages that can be read in two ways.
pub(crate) trait Source {
    /// The name of the stream.
    fn stream(&self) -> &str;

    /// Up to `count` messages from sequence `from` on. The newest ones may be missing.
    async fn page(&self, from: u64, count: usize) -> Result<Page, PageError>;

    /// The first message from sequence `from` on, by the leader's own word.
    async fn next(&self, from: u64) -> Result<Option<StoredMessage>, PageError>;
}

/// The messages of a subject.
pub(crate) struct Subject<'a> {
    /// The connection to NATS.
    pub connection: &'a Connection,
    /// The stream.
    pub stream: &'a str,
    /// The subject.
    pub subject: &'a str,
}

impl Source for Subject<'_> {
    fn stream(&self) -> &str {
        self.stream
    }

    async fn page(&self, from: u64, count: usize) -> Result<Page, PageError> {
        read_page(self.connection, self.stream, self.subject, from, count).await
    }

    async fn next(&self, from: u64) -> Result<Option<StoredMessage>, PageError> {
        next_at_leader(self.connection, self.stream, self.subject, from).await
    }
}

/// The first message of `subject` from sequence `from` on, by the word of the stream's leader.
async fn next_at_leader(
    connection: &Connection,
    stream: &str,
    subject: &str,
    from: u64,
) -> Result<Option<StoredMessage>, PageError> {
    let cannot_ask = |cause: String| PageError::Ask {
        stream: stream.to_owned(),
        cause,
    };
    let jetstream = &connection.jetstream;
    let asked = jetstream
        .get_stream_no_info(stream)
        .await
        .map_err(|error| cannot_ask(error.to_string()))?
        .raw_message_builder()
        .sequence(from.max(1))
        .next_by_subject(subject)
        .send()
        .await;
    match asked {
        Ok(message) => Ok(Some(StoredMessage {
            sequence: message.sequence,
            time: Some(stream_time(message.time)),
            payload: message.payload,
        })),
        Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(cannot_ask(error.to_string())),
    }
}

/// Reads up to `count` messages of `subject` from sequence `from` on. The newest ones may be missing:
/// see [`whole_page`].
///
/// # Errors
/// [`PageError`] when the stream cannot be asked, does not answer, or refuses.
async fn read_page(
    connection: &Connection,
    stream: &str,
    subject: &str,
    from: u64,
    count: usize,
) -> Result<Page, PageError> {
    let client = &connection.client;
    let cannot_ask = |cause: String| PageError::Ask {
        stream: stream.to_owned(),
        cause,
    };
    let inbox = client.new_inbox();
    let mut answers = client
        .subscribe(inbox.clone())
        .await
        .map_err(|error| cannot_ask(error.to_string()))?;
    let request = json!({
        "seq": from.max(1),
        "next_by_subj": subject,
        "batch": count,
        "max_bytes": PAGE_BYTES,
    });
    client
        .publish_with_reply(
            SubjectNames::direct_get(stream),
            inbox,
            request.to_string().into(),
        )
        .await
        .map_err(|error| cannot_ask(error.to_string()))?;

    let mut page = Page::default();
    loop {
        let answer = tokio::time::timeout(PATIENCE, answers.next()).await;
        let Ok(Some(answer)) = answer else {
            return Err(PageError::Silent(stream.to_owned()));
        };
        match answer.status.map(|status| status.as_u16()) {
            None => page.messages.extend(stored_message(&answer)),
            Some(END_OF_BATCH) => {
                let pending = number_in(&answer, "Nats-Num-Pending");
                page.more = pending.is_some_and(|pending| pending > 0);
                return Ok(page);
            }
            Some(NO_MESSAGE) => return Ok(page),
            Some(status) => {
                return Err(PageError::Refused {
                    stream: stream.to_owned(),
                    status,
                    description: answer.description.unwrap_or_default(),
                });
            }
        }
    }
}

/// Reads up to `count` messages from sequence `from` on. None is missing that the stream had before.
///
/// # Errors
/// [`PageError`] when the stream cannot be asked, does not answer, or refuses.
pub(crate) async fn whole_page(
    source: &impl Source,
    from: u64,
    count: usize,
) -> Result<Page, PageError> {
    let mut page = source.page(from, count).await?;
    let mut bytes = size(&page.messages);
    while !page.more {
        let behind_last = page.messages.last().map_or(from, |last| last.sequence + 1);
        let Some(next) = source.next(behind_last).await? else {
            break;
        };
        page.more = page.messages.len() >= count || bytes >= PAGE_BYTES;
        if !page.more {
            bytes += next.payload.len();
            page.messages.push(next);
        }
    }
    Ok(page)
}

/// How much is read of a subject.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Most {
    /// Messages.
    pub messages: usize,
    /// Bytes: reading ends after the page that reaches them.
    pub bytes: usize,
}

/// Reads all messages, or not many more than `most`. `known` is a sequence that they are known to
/// reach; 0 for none.
///
/// # Errors
/// As [`whole_page`], and [`PageError::Behind`] when they do not reach `known` for a while.
pub(crate) async fn read_all(
    source: &impl Source,
    most: Most,
    known: u64,
) -> Result<Page, PageError> {
    let mut backoff = Backoff::new(FIRST_PAUSE, MAX_PAUSE);
    for reading in 1..=READINGS {
        let read = read_once(source, most).await?;
        let last = read.messages.last().map_or(0, |last| last.sequence);
        if read.more || last >= known {
            return Ok(read);
        }
        if reading < READINGS {
            backoff.wait().await;
        }
    }
    Err(PageError::Behind {
        stream: source.stream().to_owned(),
        known,
    })
}

async fn read_once(source: &impl Source, most: Most) -> Result<Page, PageError> {
    let mut read = Page::default();
    let (mut from, mut bytes) = (1, 0);
    loop {
        let wanted = most
            .messages
            .saturating_sub(read.messages.len())
            .clamp(1, PAGE_MESSAGES);
        let next = whole_page(source, from, wanted).await?;
        read.more = next.more;
        bytes += size(&next.messages);
        read.messages.extend(next.messages);

        match read.messages.last() {
            Some(last)
                if read.more && read.messages.len() < most.messages && bytes < most.bytes =>
            {
                from = last.sequence + 1;
            }
            _ => return Ok(read),
        }
    }
}

fn size(messages: &[StoredMessage]) -> usize {
    messages.iter().map(|message| message.payload.len()).sum()
}

/// The stored message in an answer; `None` when the answer does not say where it is stored.
fn stored_message(answer: &Message) -> Option<StoredMessage> {
    let time = header(answer, "Nats-Time-Stamp");
    Some(StoredMessage {
        sequence: number_in(answer, "Nats-Sequence")?,
        time: time.and_then(|time| serde_json::from_value(json!(time)).ok()),
        payload: answer.payload.clone(),
    })
}

fn header<'a>(answer: &'a Message, name: &str) -> Option<&'a str> {
    let headers = answer.headers.as_ref()?;
    headers.get_last(name).map(HeaderValue::as_str)
}

fn number_in(answer: &Message, name: &str) -> Option<u64> {
    header(answer, name)?.parse().ok()
}

#[cfg(test)]
mod tests;

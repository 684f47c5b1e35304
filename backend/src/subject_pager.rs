//! Reads the messages of one subject of a stream, page by page, without a consumer. It uses
//! JetStream's direct get with a batch: one request, answered by one message per stored message.

use std::time::Duration;

use async_nats::{HeaderValue, Message};
use bytes::Bytes;
use futures::StreamExt;
use ktrdr_bus::nats::Connection;
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

/// Reads up to `count` messages of `subject` from sequence `from` on.
///
/// # Errors
/// [`PageError`] when the stream cannot be asked, does not answer, or refuses.
pub async fn read_page(
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

/// Reads all messages of `subject`, at most `limit`. Ends after the page that reaches `bytes`.
///
/// # Errors
/// As [`read_page`].
pub async fn read_all(
    connection: &Connection,
    stream: &str,
    subject: &str,
    limit: usize,
    bytes: usize,
) -> Result<Page, PageError> {
    let mut read = Page::default();
    let (mut from, mut size) = (1, 0);
    loop {
        let wanted = limit
            .saturating_sub(read.messages.len())
            .clamp(1, PAGE_MESSAGES);
        let next = read_page(connection, stream, subject, from, wanted).await?;
        read.more = next.more;
        size += next
            .messages
            .iter()
            .map(|message| message.payload.len())
            .sum::<usize>();
        read.messages.extend(next.messages);

        match read.messages.last() {
            Some(last) if read.more && read.messages.len() < limit && size < bytes => {
                from = last.sequence + 1;
            }
            _ => return Ok(read),
        }
    }
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

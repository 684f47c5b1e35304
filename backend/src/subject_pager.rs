//! Reads the messages of one subject of a stream, page by page, without a consumer: JetStream's direct get with a batch, one
//! request and one stream of answers.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use ktrdr_bus::nats::Connection;
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_protocol::time::Timestamp;
use serde_json::json;

/// How long the next message of a page may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes the server sends for one request.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

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
    /// Whether there are further ones.
    pub more: bool,
}

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// The request did not leave.
    #[error("cannot ask stream {stream}: {cause}")]
    Ask {
        /// The stream.
        stream: String,
        /// What the client said.
        cause: String,
    },
    /// No answer in time.
    #[error("stream {0} did not answer in time")]
    Silent(String),
    /// Refused.
    #[error("stream {stream} refused to be read: {status} {description}")]
    Refused {
        /// The stream.
        stream: String,
        /// Status of the answer.
        status: u16,
        /// Its text.
        description: String,
    },
}

/// Reads up to `count` messages of `subject` from sequence `from` on.
///
/// # Errors
/// [`PageError`].
pub async fn read_page(
    connection: &Connection,
    stream: &str,
    subject: &str,
    from: u64,
    count: usize,
) -> Result<Page, PageError> {
    let client = &connection.client;
    let ask = |cause: String| PageError::Ask {
        stream: stream.to_owned(),
        cause,
    };
    let inbox = client.new_inbox();
    let mut answers = client
        .subscribe(inbox.clone())
        .await
        .map_err(|error| ask(error.to_string()))?;
    let request = json!({"seq": from.max(1), "next_by_subj": subject, "batch": count, "max_bytes": PAGE_BYTES});
    client
        .publish_with_reply(
            SubjectNames::direct_get(stream),
            inbox,
            request.to_string().into(),
        )
        .await
        .map_err(|error| ask(error.to_string()))?;
    let mut page = Page::default();
    loop {
        let answer = tokio::time::timeout(PATIENCE, answers.next()).await;
        let Ok(Some(answer)) = answer else {
            return Err(PageError::Silent(stream.to_owned()));
        };
        let header = |name: &str| {
            answer
                .headers
                .as_ref()
                .and_then(|headers| headers.get_last(name))
        };
        let number = |name: &str| header(name).and_then(|value| value.as_str().parse::<u64>().ok());
        match answer.status.map(|status| status.as_u16()) {
            None => {
                let Some(sequence) = number("Nats-Sequence") else {
                    continue;
                };
                let time = header("Nats-Time-Stamp")
                    .and_then(|time| serde_json::from_value(json!(time.as_str())).ok());
                page.messages.push(StoredMessage {
                    sequence,
                    time,
                    payload: answer.payload.clone(),
                });
            }
            // End of the batch.
            Some(204) => {
                page.more = number("Nats-Num-Pending").is_some_and(|pending| pending > 0);
                return Ok(page);
            }
            // Nothing there.
            Some(404) => return Ok(page),
            Some(status) => {
                let description = answer.description.clone().unwrap_or_default();
                return Err(PageError::Refused {
                    stream: stream.to_owned(),
                    status,
                    description,
                });
            }
        }
    }
}

/// Reads all messages of `subject`, at most `limit`.
///
/// # Errors
/// [`PageError`].
pub async fn read_all(
    connection: &Connection,
    stream: &str,
    subject: &str,
    limit: usize,
) -> Result<Page, PageError> {
    let mut read = Page::default();
    let mut from = 1;
    loop {
        let next = read_page(
            connection,
            stream,
            subject,
            from,
            limit.saturating_sub(read.messages.len()).clamp(1, 1000),
        )
        .await?;
        read.more = next.more;
        read.messages.extend(next.messages);
        match read.messages.last() {
            Some(last) if read.more && read.messages.len() < limit => from = last.sequence + 1,
            _ => return Ok(read),
        }
    }
}

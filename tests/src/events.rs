//! Server-sent events as a client reads them.

use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use crate::client::Client;
use crate::wait::LIMIT;

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// Its name.
    pub name: String,
    /// The last id that was given, on this event or before it; none while ids are cursors.
    pub id: Option<u64>,
    /// Its data.
    pub data: Value,
}

/// An open stream of events.
#[derive(Debug)]
pub struct EventStream {
    response: reqwest::Response,
    buffer: Vec<u8>,
    last_id: Option<u64>,
    /// The comments so far.
    pub comments: usize,
}

impl EventStream {
    /// Opens a stream that is answered with 200.
    ///
    /// # Panics
    /// When it is not.
    pub async fn open(api: &Client, path: &str, last_id: Option<u64>) -> Self {
        let mut request = api
            .request(Method::GET, path)
            .timeout(Duration::from_secs(600));
        if let Some(last_id) = last_id {
            request = request.header("last-event-id", last_id.to_string());
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()["content-type"], "text/event-stream");

        Self {
            response,
            buffer: Vec::new(),
            last_id,
            comments: 0,
        }
    }

    /// The last id that was given.
    pub fn last_id(&self) -> Option<u64> {
        self.last_id
    }

    /// The next event; `None` at the end of the stream.
    ///
    /// # Panics
    /// When none comes within [`LIMIT`].
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                if let Some(event) = self.read(&String::from_utf8(block).expect("text")) {
                    return Some(event);
                }
            }
            let chunk = tokio::time::timeout(LIMIT, self.response.chunk())
                .await
                .expect("an event in time");
            match chunk {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                // Cut off is an end, too.
                Ok(None) | Err(_) => return None,
            }
        }
    }

    fn read(&mut self, block: &str) -> Option<Event> {
        let (mut name, mut data) = ("message".to_owned(), Vec::new());
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("id", id)) => self.last_id = id.parse().ok(),
                Some(("event", text)) => text.clone_into(&mut name),
                Some(("data", text)) => data.push(text),
                Some(("", _)) => self.comments += 1,
                _ => {}
            }
        }

        if data.is_empty() {
            return None;
        }
        let data = serde_json::from_str(&data.join("\n"))
            .unwrap_or_else(|error| panic!("{error}: {block}"));

        Some(Event {
            name,
            id: self.last_id,
            data,
        })
    }

    /// The next event that `wanted` recognises; others are passed over.
    ///
    /// # Panics
    /// When the stream ends before, or nothing comes within [`LIMIT`].
    pub async fn until(&mut self, what: &str, mut wanted: impl FnMut(&Event) -> bool) -> Event {
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            let event = self
                .next()
                .await
                .unwrap_or_else(|| panic!("the stream ended before {what}"));
            if wanted(&event) {
                return event;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "no {what} in time; seen last: {event:?}"
            );
        }
    }

    /// The next `operation` event about this operation with this status.
    pub async fn operation(&mut self, id: &str, status: &str) -> Event {
        self.until(&format!("{id} {status}"), |event| {
            event.name == "operation"
                && event.data["operation_id"] == id
                && event.data["status"] == status
        })
        .await
    }
}

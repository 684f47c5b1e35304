//! Everything that is published on a server.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_nats::HeaderMap;
use bytes::Bytes;
use futures::StreamExt;
use ktrdr_tests::Bus;
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

/// A message that was published.
#[derive(Debug, Clone)]
pub struct Recorded {
    pub subject: String,
    /// The names of its headers.
    pub headers: BTreeSet<String>,
    pub payload: Bytes,
    /// The request that it answers.
    pub answers: Option<String>,
}

impl Recorded {
    pub fn new(subject: &str, headers: &HeaderMap, payload: Bytes) -> Self {
        let headers = headers.iter().map(|(name, _)| name.to_string());
        Self {
            subject: subject.to_owned(),
            headers: headers.collect(),
            payload,
            answers: None,
        }
    }
}

#[derive(Default)]
struct Heard {
    messages: Vec<Recorded>,
    /// The inboxes on which workers answer, with the request.
    asked: BTreeMap<String, String>,
}

/// Records the messages of the project, until it is dropped. Those that the server stores by itself
/// are not published, so it cannot hear them.
pub struct Recorder {
    heard: Arc<Mutex<Heard>>,
    _task: AbortOnDropHandle<()>,
}

impl Recorder {
    pub async fn start(bus: &Bus) -> Self {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let mut all = bus.subscribe(">").await;
        let into = Arc::clone(&heard);
        let task = tokio::spawn(async move {
            while let Some(message) = all.next().await {
                into.lock().note(&message);
            }
        });
        Self {
            heard,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// What was published so far.
    pub fn messages(&self) -> Vec<Recorded> {
        self.heard.lock().messages.clone()
    }
}

impl Heard {
    fn note(&mut self, message: &async_nats::Message) {
        let subject = message.subject.as_str();
        let answers = self.asked.get(subject).cloned();
        let is_ours = ["ktrdr.", "$KV.", "$O."]
            .iter()
            .any(|prefix| subject.starts_with(prefix));
        if !is_ours && answers.is_none() {
            return;
        }

        if let (true, Some(inbox)) = (subject.starts_with("ktrdr.worker."), &message.reply) {
            self.asked.insert(inbox.to_string(), subject.to_owned());
        }
        let none = HeaderMap::new();
        let headers = message.headers.as_ref().unwrap_or(&none);
        self.messages.push(Recorded {
            answers,
            ..Recorded::new(subject, headers, message.payload.clone())
        });
    }
}

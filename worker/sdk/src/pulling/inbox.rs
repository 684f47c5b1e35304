//! The pulls of one queue, and taking them back without losing a request.
//!
//! The problem: when a slot is taken otherwise, an open pull must be withdrawn. JetStream has no
//! request for that: a pull ends when it expires or when nobody listens on its inbox. The client
//! library's `unsubscribe` and `drain` forget the subscription before the server does. A request
//! that is under way then reaches nobody and waits until its lease ends.
//!
//! The solution: [`PullInbox::close`] tells the server to end the subscription after more messages
//! than can be under way, and then sends that many empty messages to the inbox. Everything that the
//! server sent before the end arrives. Start requests among it are handed back at once.
//!
//! Rejected: pulls with a short expiry. They would cost a message per slot and second, and a slot
//! could still be taken while a pull is open.

use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use futures::StreamExt;
use ktrdr_protocol::subject::PRIORITY_GROUP;
use tokio::time::Instant;

/// How long a pull waits in the server before it expires and is sent again.
pub(crate) const PULL_EXPIRES: Duration = Duration::from_secs(20);
/// A pull without an answer is lost when it expired longer ago than this; its server restarted, for
/// example.
const PULL_OVERDUE: Duration = Duration::from_secs(5);
/// More than the number of status messages that can be under way.
const STATUS_MESSAGES: usize = 16;
/// How long taking a pull back may last.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A message on the inbox.
pub(crate) enum Arrival {
    /// A start request.
    Request(Message),
    /// A status of the server; `retry_after` is how long to wait before the next pull, when the
    /// status ended one.
    Status { retry_after: Option<Duration> },
}

/// The pulls of one queue, all answered on one inbox.
pub(crate) struct PullInbox {
    client: Client,
    next_subject: String,
    inbox: String,
    subscriber: Subscriber,
    /// Messages read from the subscriber.
    received: u64,
    /// Requests that were asked for and are neither delivered nor given up.
    outstanding: usize,
    /// When the newest pull expires.
    expires_at: Instant,
}

impl PullInbox {
    /// Opens an inbox for `consumer` of `stream`, without a pull yet.
    ///
    /// # Errors
    /// When the client is closed.
    pub(crate) async fn open(
        client: Client,
        stream: &str,
        consumer: &str,
    ) -> Result<Self, async_nats::SubscribeError> {
        let inbox = client.new_inbox();
        let subscriber = client.subscribe(inbox.clone()).await?;
        let next_subject = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        Ok(Self {
            client,
            next_subject,
            inbox,
            subscriber,
            received: 0,
            outstanding: 0,
            expires_at: Instant::now(),
        })
    }

    /// Requests that may still arrive.
    pub(crate) fn outstanding(&self) -> usize {
        self.outstanding
    }

    /// When the newest pull counts as lost.
    pub(crate) fn overdue_at(&self) -> Instant {
        self.expires_at + PULL_OVERDUE
    }

    /// Asks for up to `batch` requests. GPU workers have priority 0, others 1: the server serves
    /// the lowest number first.
    ///
    /// # Errors
    /// When the client is closed.
    pub(crate) async fn pull(
        &mut self,
        batch: usize,
        priority: u8,
    ) -> Result<(), async_nats::PublishError> {
        let expires = u64::try_from(PULL_EXPIRES.as_nanos()).unwrap_or(u64::MAX);
        let how = serde_json::json!({"expires": expires});
        self.ask(batch, priority, how).await
    }

    /// Asks for up to `batch` requests that the queue has now. The server answers at once when it has
    /// fewer.
    ///
    /// # Errors
    /// When the client is closed.
    pub(crate) async fn pull_now(
        &mut self,
        batch: usize,
        priority: u8,
    ) -> Result<(), async_nats::PublishError> {
        let how = serde_json::json!({"no_wait": true});
        self.ask(batch, priority, how).await
    }

    async fn ask(
        &mut self,
        batch: usize,
        priority: u8,
        mut body: serde_json::Value,
    ) -> Result<(), async_nats::PublishError> {
        body["batch"] = batch.into();
        body["group"] = PRIORITY_GROUP.into();
        body["priority"] = priority.into();
        self.client
            .publish_with_reply(
                self.next_subject.clone(),
                self.inbox.clone(),
                body.to_string().into(),
            )
            .await?;
        self.outstanding += batch;
        self.expires_at = Instant::now() + PULL_EXPIRES;
        Ok(())
    }

    /// Polls for the next arrival; `None` when the subscription has ended.
    pub(crate) fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arrival>> {
        self.subscriber
            .poll_next_unpin(cx)
            .map(|message| message.map(|message| self.classify(message)))
    }

    fn classify(&mut self, message: Message) -> Arrival {
        self.received += 1;
        let Some(status) = message.status else {
            self.outstanding = self.outstanding.saturating_sub(1);
            return Arrival::Request(message);
        };
        let pending = message
            .headers
            .as_ref()
            .and_then(|headers| headers.get("Nats-Pending-Messages"))
            .and_then(|value| value.as_str().parse::<usize>().ok());
        match status.as_u16() {
            // An idle heartbeat.
            100 => Arrival::Status { retry_after: None },
            // Expired, or nothing there for a pull that does not wait.
            404 | 408 => {
                self.outstanding = self
                    .outstanding
                    .saturating_sub(pending.unwrap_or(self.outstanding));
                Arrival::Status {
                    retry_after: Some(Duration::ZERO),
                }
            }
            // The consumer moved, was deleted, or has too many waiting pulls; 503: nobody serves
            // it.
            _ => {
                tracing::debug!(status = status.as_u16(), description = ?message.description, "a pull ended");
                self.outstanding = self
                    .outstanding
                    .saturating_sub(pending.unwrap_or(self.outstanding));
                Arrival::Status {
                    retry_after: Some(Duration::from_millis(250)),
                }
            }
        }
    }

    /// Takes all pulls back. Returns the start requests that arrived before the server knew.
    ///
    /// Then nothing listens on the inbox any more, and the server discards its pulls.
    pub(crate) async fn close(mut self) -> Vec<Message> {
        if self.outstanding == 0 {
            return Vec::new();
        }

        let fillers = self.outstanding + STATUS_MESSAGES;
        let mut requests = Vec::new();
        let closing = async {
            self.subscriber
                .unsubscribe_after(self.received + fillers as u64)
                .await
                .ok()?;
            for _ in 0..fillers {
                self.client
                    .publish(self.inbox.clone(), bytes::Bytes::new())
                    .await
                    .ok()?;
            }

            while let Some(message) = self.subscriber.next().await {
                // The filler messages have no reply subject; a start request has one for its ack.
                if message.status.is_none() && message.reply.is_some() {
                    requests.push(message);
                }
            }
            Some(())
        };

        if tokio::time::timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            // Without a connection the server has discarded the pulls already.
            tracing::debug!("taking a pull back timed out");
        }
        requests
    }
}

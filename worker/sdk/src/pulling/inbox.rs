//! Pull requests to one queue's consumer, and taking them back without losing what they brought.

use std::task::{Context, Poll};
use std::time::Duration;

use async_nats::{Client, Message, Subscriber};
use futures::StreamExt;
use ktrdr_protocol::subject::PRIORITY_GROUP;
use tokio::time::Instant;

/// How long a pull waits in the server before it is renewed.
pub(crate) const PULL_EXPIRES: Duration = Duration::from_secs(20);
/// How much later than that its end must have been heard of; else it is gone (its server restarted, say).
const PULL_OVERDUE: Duration = Duration::from_secs(5);
/// More than the status messages that can be under way at one time.
const SLACK: usize = 16;
/// How long taking a pull back may last.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// What a message on the inbox is.
pub(crate) enum Arrival {
    /// A start request.
    Request(Message),
    /// A pull ended or nothing happened; `again_after` says when to try anew, if it did not just expire.
    Status { again_after: Option<Duration> },
}

/// The pulls of one queue, all answered on one inbox.
pub(crate) struct PullInbox {
    client: Client,
    next_subject: String,
    inbox: String,
    subscriber: Subscriber,
    /// Messages read from the subscriber.
    received: u64,
    /// Requests asked for and not yet delivered or given up.
    outstanding: usize,
    /// When the newest pull expires.
    expires_at: Instant,
}

impl PullInbox {
    /// An inbox without pulls for `consumer` of `stream`.
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

    /// When the newest pull should have ended.
    pub(crate) fn overdue_at(&self) -> Instant {
        self.expires_at + PULL_OVERDUE
    }

    /// Asks for up to `batch` requests. GPU workers have priority 0, others 1: the server serves the lowest number first.
    ///
    /// # Errors
    /// When the client is closed.
    pub(crate) async fn pull(
        &mut self,
        batch: usize,
        priority: u8,
    ) -> Result<(), async_nats::PublishError> {
        let body = serde_json::json!({
            "batch": batch,
            "expires": u64::try_from(PULL_EXPIRES.as_nanos()).unwrap_or(u64::MAX),
            "group": PRIORITY_GROUP,
            "priority": priority,
        });
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

    /// The next arrival; `None` when the subscription has ended.
    pub(crate) fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arrival>> {
        self.subscriber
            .poll_next_unpin(cx)
            .map(|message| message.map(|message| self.sort(message)))
    }

    fn sort(&mut self, message: Message) -> Arrival {
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
            100 => Arrival::Status { again_after: None },
            // Expired.
            408 => {
                self.outstanding = self
                    .outstanding
                    .saturating_sub(pending.unwrap_or(self.outstanding));
                Arrival::Status {
                    again_after: Some(Duration::ZERO),
                }
            }
            // The consumer moved, was deleted, has too many waiting pulls; or nobody serves it (503).
            _ => {
                tracing::debug!(status = status.as_u16(), description = ?message.description, "a pull ended");
                self.outstanding = self
                    .outstanding
                    .saturating_sub(pending.unwrap_or(self.outstanding));
                Arrival::Status {
                    again_after: Some(Duration::from_millis(250)),
                }
            }
        }
    }

    /// Takes all pulls back; returns the start requests that arrived before the server knew.
    ///
    /// A plain unsubscribe makes the client forget the subscription before the server does, and a request that is under
    /// way in between would be lost until its lease ends. So the server is told to end the subscription after a number of
    /// messages that is certainly not reached yet, and then given that number of empty ones: whatever it sent before,
    /// arrives; afterwards the inbox has no listener, and a pull without a listener is void.
    pub(crate) async fn close(mut self) -> Vec<Message> {
        if self.outstanding == 0 {
            return Vec::new();
        }
        let rest = self.outstanding + SLACK;
        let mut requests = Vec::new();
        let closing = async {
            self.subscriber
                .unsubscribe_after(self.received + rest as u64)
                .await
                .ok()?;
            for _ in 0..rest {
                self.client
                    .publish(self.inbox.clone(), bytes::Bytes::new())
                    .await
                    .ok()?;
            }
            while let Some(message) = self.subscriber.next().await {
                // Ours are empty and have no reply subject to acknowledge to.
                if message.status.is_none() && message.reply.is_some() {
                    requests.push(message);
                }
            }
            Some(())
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            // No connection: the server drops the pulls with it.
            tracing::debug!("taking a pull back timed out");
        }
        requests
    }
}

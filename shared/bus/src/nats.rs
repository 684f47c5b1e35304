//! The connection to NATS. Nothing else in the project connects.

use std::time::Duration;

use async_nats::{ConnectOptions, Event};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::settings::NatsOptions;

/// How long a request to JetStream may take before its outcome counts as unknown.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the server is pinged: an unresponsive connection is given up after two of these.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Longest pause between two attempts to connect.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(2);

/// How long after an interruption others may need that saw it, too: the longest pause, and a second to say that they are back.
const RETURN: Duration = MAX_RECONNECT_DELAY.saturating_add(Duration::from_secs(1));

/// Why no connection could even be attempted.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The credentials file cannot be used.
    #[error("cannot read the NATS credentials file {path}")]
    Credentials {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The address or the TLS settings cannot be used.
    #[error("cannot connect to NATS at {url}")]
    Connect {
        /// The address.
        url: String,
        /// The cause.
        #[source]
        source: async_nats::ConnectError,
    },
}

/// The state of the connection, as a level and a count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Link {
    /// Whether there is a connection now.
    pub up: bool,
    /// How many connections there have been. Pulls and other requests that wait inside a server are gone with each.
    pub epoch: u64,
    /// When the newest one was made.
    pub since: Option<Instant>,
}

/// A connection that is kept up for as long as the process lives.
#[derive(Clone)]
pub struct Connection {
    /// The client.
    pub client: async_nats::Client,
    /// JetStream over it, with [`REQUEST_TIMEOUT`].
    pub jetstream: async_nats::jetstream::Context,
    /// Whether it is up; follow it to act on every reconnect.
    pub link: watch::Receiver<Link>,
}

impl Connection {
    /// Whether there is a connection now.
    pub fn is_up(&self) -> bool {
        self.link.borrow().up
    }

    /// For how long others may still be on their way back, after an interruption that this process saw. They may be healthy
    /// and only be silent for that.
    pub fn others_return_within(&self) -> Option<Duration> {
        let link = *self.link.borrow();
        let since = link.since.filter(|_| link.epoch > 1)?;
        RETURN
            .checked_sub(since.elapsed())
            .filter(|left| !left.is_zero())
    }

    /// Resolves when there is a connection.
    pub async fn up(&self) {
        // An error means that the client is gone, and with it the process's purpose; waiting is then as good as anything.
        let _ = self.link.clone().wait_for(|link| link.up).await;
    }

    /// Waits for a connection and runs `work` while it lasts. Returns `None` when the connection was lost first.
    ///
    /// Use it in a loop for everything that does not outlive a connection: a JetStream consumer, a watch of a bucket.
    /// `work` then needs no code of its own to notice an outage, and starts again with the next connection.
    ///
    /// # Cancel safety
    /// When the connection is lost, `work` is dropped at one of its `await`s. State that must survive belongs into
    /// variables outside of it.
    ///
    /// ```no_run
    /// # async fn read_stream(from: &mut u64) -> Result<(), std::io::Error> { Ok(()) }
    /// # async fn follow(connection: &ktrdr_bus::nats::Connection) {
    /// # use std::time::Duration;
    /// let mut from = 1;
    /// loop {
    ///     if let Some(Err(error)) = connection.while_up(read_stream(&mut from)).await {
    ///         tracing::warn!(%error, "reading the stream was interrupted; starting again");
    ///         tokio::time::sleep(Duration::from_millis(500)).await;
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn while_up<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        while_up(self.link.clone(), work).await
    }
}

/// [`Connection::while_up`], for any link.
async fn while_up<T>(mut link: watch::Receiver<Link>, work: impl Future<Output = T>) -> Option<T> {
    // Marks the state of the link as seen, so that only a later change interrupts the work.
    if link.wait_for(|link| link.up).await.is_err() {
        // The client is gone, and with it the purpose of the process. There will be no connection.
        return std::future::pending().await;
    }

    tokio::select! {
        biased;
        outcome = work => Some(outcome),
        Ok(()) = link.changed() => None,
    }
}

/// Starts connecting and returns at once: a broker that is away is waited for, however long, and said so in the log.
///
/// # Errors
/// [`ConnectError`] when the settings themselves cannot work.
pub async fn connect(options: &NatsOptions, name: &str) -> Result<Connection, ConnectError> {
    let (sender, link) = watch::channel(Link::default());
    let url = options.nats_url.clone();
    let mut connect = ConnectOptions::new()
        .name(name)
        .retry_on_initial_connect()
        .max_reconnects(None)
        .ping_interval(PING_INTERVAL)
        .request_timeout(Some(REQUEST_TIMEOUT))
        .client_capacity(16 * 1024)
        // Not memory until it is used. The server's flow-control window of an ordered consumer counts bytes (32 MiB), the
        // client's buffer counts messages: at the default of 65,536 small messages overflow it, are dropped and read again.
        .subscription_capacity(1 << 19)
        .reconnect_delay_callback(|attempt| {
            Duration::from_millis(50)
                .saturating_mul(1 << attempt.min(10) as u32)
                .min(MAX_RECONNECT_DELAY)
        })
        .event_callback(move |event| {
            match &event {
                Event::Connected => {
                    sender.send_modify(|link| {
                        *link = Link {
                            up: true,
                            epoch: link.epoch + 1,
                            since: Some(Instant::now()),
                        }
                    });
                    tracing::info!("connected to NATS");
                }
                Event::Disconnected | Event::Closed => {
                    sender.send_modify(|link| link.up = false);
                    tracing::warn!("connection to NATS lost; trying to get it back");
                }
                other => tracing::warn!(event = %other, "NATS"),
            }
            std::future::ready(())
        });
    if let Some(path) = &options.nats_creds {
        connect =
            connect
                .credentials_file(path)
                .await
                .map_err(|source| ConnectError::Credentials {
                    path: path.display().to_string(),
                    source,
                })?;
    }
    if let (Some(user), Some(password)) = (&options.nats_user, &options.nats_password) {
        connect = connect.user_and_password(user.clone(), password.clone());
    }
    if let Some(token) = &options.nats_token {
        connect = connect.token(token.clone());
    }
    if let Some(ca) = &options.nats_ca {
        connect = connect.add_root_certificates(ca.clone()).require_tls(true);
    }
    let shown = crate::settings::masked_urls(&url);
    tracing::info!(url = %shown, "connecting to NATS");
    let addresses: Vec<String> = url.split(',').map(|part| part.trim().to_owned()).collect();
    let client = connect
        .connect(addresses)
        .await
        .map_err(|source| ConnectError::Connect { url: shown, source })?;
    let jetstream = async_nats::jetstream::context::ContextBuilder::new()
        .timeout(REQUEST_TIMEOUT)
        .ack_timeout(REQUEST_TIMEOUT)
        .build(client.clone());
    Ok(Connection {
        client,
        jetstream,
        link,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(up: bool, epoch: u64) -> Link {
        Link {
            up,
            epoch,
            since: None,
        }
    }

    #[tokio::test]
    async fn work_waits_for_a_connection_and_ends_when_it_is_lost() {
        let (sender, receiver) = watch::channel(link(false, 0));
        let (started, mut starts) = tokio::sync::mpsc::unbounded_channel();
        let task = tokio::spawn(while_up(receiver, async move {
            started.send(()).unwrap();
            std::future::pending::<()>().await;
        }));
        tokio::task::yield_now().await;
        assert!(starts.try_recv().is_err(), "it ran without a connection");

        sender.send(link(true, 1)).unwrap();
        assert_eq!(starts.recv().await, Some(()));
        sender.send(link(false, 1)).unwrap();

        assert_eq!(task.await.unwrap(), None);
    }

    #[tokio::test]
    async fn work_that_ends_while_connected_returns_its_value() {
        let (_sender, receiver) = watch::channel(link(true, 1));
        assert_eq!(while_up(receiver, async { 7 }).await, Some(7));
    }
}

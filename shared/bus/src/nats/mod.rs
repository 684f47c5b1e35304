//! The connection to NATS. Every program connects here.
//!
//! The problem: NATS may be away when a program starts, and may go away at any time. The client
//! library reconnects and subscribes again by itself, but requests that wait inside a server are
//! gone with a connection: a pull, a consumer that is read, a watch of a bucket. Code that only
//! waits for their next message would never wake up.
//!
//! How it is solved: [`connect`] never gives up, and [`Link`] says whether there is a connection
//! and counts them. [`Connection::while_up`] runs a piece of work while a connection lasts and
//! drops it with the connection, so the work itself needs no code for outages. After an outage,
//! [`Connection::others_return_within`] says how long other clients may still be on their way back,
//! so they are not taken for dead.
//!
//! Rejected: a deadline on each single wait. A deadline short enough to be useful is shorter than
//! many quiet periods, and each reader would need its own.

mod credentials;
mod settings_error;
mod tls;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use async_nats::{ConnectOptions, Event, ServerAddr, ServerError};
use tokio::sync::watch;
use tokio::time::Instant;

pub use settings_error::SettingsError;

use crate::refusals::Refusals;
use crate::round_trips::RoundTrips;
use crate::settings::{NatsOptions, masked_urls};
use credentials::Credentials;
use trouble::Trouble;

/// How long a request to JetStream may take before its outcome counts as unknown.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How often the server is pinged. After two pings without an answer the connection is closed.
const PING_INTERVAL: Duration = Duration::from_secs(10);

/// Longest pause between two attempts to connect.
const MAX_RECONNECT_DELAY: Duration = Duration::from_secs(2);

/// How long other clients may take to come back after an outage that they saw, too: the longest
/// reconnect delay, and a second to connect and announce themselves.
const RETURN: Duration = MAX_RECONNECT_DELAY.saturating_add(Duration::from_secs(1));

/// Why a connection cannot even be tried.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings contradict each other, or name files that cannot be used.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The client library refuses the settings.
    #[error("cannot connect to NATS at {url}")]
    Connect {
        /// The addresses, without passwords.
        url: String,
        /// The error of the client library.
        #[source]
        source: async_nats::ConnectError,
    },
}

/// The state of the connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Link {
    /// Whether there is a connection now.
    pub up: bool,
    /// Number of connections so far. Pulls and other requests that wait inside a server end with
    /// their connection.
    pub epoch: u64,
    /// When the newest connection was made.
    pub since: Option<Instant>,
}

/// A connection that reconnects for as long as the process lives. Cheap to clone.
#[derive(Clone)]
pub struct Connection {
    /// Core NATS.
    pub client: async_nats::Client,
    /// JetStream over it, with [`REQUEST_TIMEOUT`].
    pub jetstream: async_nats::jetstream::Context,
    /// The state of the connection. Watch it to act on every reconnect.
    pub link: watch::Receiver<Link>,
    /// What the server refused since the newest connection.
    pub refusals: Refusals,
    /// How long the server took to answer lately.
    pub round_trips: RoundTrips,
}

impl Connection {
    /// Whether there is a connection now.
    pub fn is_up(&self) -> bool {
        self.link.borrow().up
    }

    /// How long other clients may still be reconnecting after an outage that this process saw, too.
    /// `None` when that time is over. Until then, a silent client may be healthy.
    pub fn others_return_within(&self) -> Option<Duration> {
        let link = *self.link.borrow();
        let since = link.since.filter(|_| link.epoch > 1)?;
        RETURN
            .checked_sub(since.elapsed())
            .filter(|left| !left.is_zero())
    }

    /// Waits until there is a connection.
    pub async fn up(&self) {
        // An error means that the client is gone: the process is ending.
        let _ = self.link.clone().wait_for(|link| link.up).await;
    }

    /// Waits for a connection and runs `work` while it lasts. Returns `None` when the connection
    /// was lost first.
    ///
    /// Use it in a loop for everything that does not outlive a connection: a JetStream consumer, a
    /// watch of a bucket. `work` then needs no code of its own to notice an outage, and starts
    /// again with the next connection.
    ///
    /// # Cancel safety
    /// When the connection is lost, `work` is dropped at one of its `await`s. State that must
    /// survive belongs into variables outside of it.
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

/// Starts connecting and returns at once.
///
/// When NATS cannot be reached, the client keeps trying in the background, without an end, and says
/// why in the log. Credentials, certificates and keys in files are read again at each connect.
///
/// # Errors
/// [`ConnectError`] when the settings themselves cannot work.
pub async fn connect(options: &NatsOptions, name: &str) -> Result<Connection, ConnectError> {
    let addresses = addresses(&options.nats_url)?;
    let credentials = Credentials::from_options(options, &addresses)?;
    let addresses: Vec<ServerAddr> = addresses.into_iter().map(without_user).collect();
    // Servers that the cluster tells about later have no scheme. They get TLS like the known ones.
    let tls = tls::is_on(options)? || addresses.iter().all(ServerAddr::tls_required);
    if credentials.are_set() {
        tls::warn_if_in_the_clear(&addresses, tls);
    }

    let (sender, link) = watch::channel(Link::default());
    let trouble = Arc::new(Trouble::new(credentials.clone()));
    let told = trouble.clone();
    let refusals = Refusals::default();
    let refused = refusals.clone();

    let mut connect =
        ConnectOptions::with_auth_callback(move |nonce| credentials.clone().answer(nonce))
            .name(name)
            .custom_inbox_prefix(&options.nats_inbox_prefix)
            .require_tls(tls)
            .retry_on_initial_connect()
            .max_reconnects(None)
            .ping_interval(PING_INTERVAL)
            .request_timeout(Some(REQUEST_TIMEOUT))
            .client_capacity(16 * 1024)
            // The server sends an ordered consumer up to 32 MiB ahead, and the client's buffer counts
            // messages. Small messages would overflow the default of 65,536, be dropped and be read
            // again. The buffer takes memory only when it is used.
            .subscription_capacity(1 << 19)
            .reconnect_delay_callback(|attempt| {
                Duration::from_millis(50)
                    .saturating_mul(1 << attempt.min(10) as u32)
                    .min(MAX_RECONNECT_DELAY)
            })
            // It is called before each round of tries. `None` leaves the choice to the library.
            .reconnect_to_server_callback(move |servers, _| {
                trouble.look(&servers);
                std::future::ready(None)
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
                        told.over();
                        refused.clear();
                        tracing::info!("connected to NATS");
                    }
                    Event::Disconnected | Event::Closed => {
                        sender.send_modify(|link| link.up = false);
                        tracing::warn!("lost the connection to NATS; reconnecting");
                    }
                    // Failed tries to connect, without their cause.
                    Event::ClientError(error) => {
                        tracing::debug!(%error, "the NATS client reports an error");
                    }
                    Event::ServerError(ServerError::Other(error)) if refused.note(error) => {}
                    other => tracing::warn!(event = %other, "the NATS client reports an event"),
                }
                std::future::ready(())
            });

    if let Some(ca) = &options.nats_ca {
        connect = connect.add_root_certificates(ca.clone());
    }
    if let (Some(certificate), Some(key)) = (&options.nats_cert, &options.nats_key) {
        connect = connect.add_client_certificate(certificate.clone(), key.clone());
    }
    if options.nats_tls_first {
        connect = connect.tls_first();
    }

    let shown = masked_urls(&options.nats_url);
    tracing::info!(url = %shown, "connecting to NATS");
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
        refusals,
        round_trips: RoundTrips::default(),
    })
}

fn addresses(urls: &str) -> Result<Vec<ServerAddr>, SettingsError> {
    let address = |url: &str| {
        let url = url.trim();
        url.parse()
            .map_err(|_| SettingsError::Address(masked_urls(url)))
    };
    urls.split(',').map(address).collect()
}

/// The library does not use a user or token in an address. Without it, no log line can show it.
fn without_user(address: ServerAddr) -> ServerAddr {
    let mut url = address.clone().into_inner();
    url.set_query(None);
    let removed = url.set_username("").and_then(|()| url.set_password(None));
    match (removed, ServerAddr::from_url(url)) {
        (Ok(()), Ok(address)) => address,
        _ => address,
    }
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

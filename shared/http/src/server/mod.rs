//! The server loop of both REST interfaces: connections, their limits and their timeouts.
//!
//! The problem: a connection costs a file descriptor and some memory for as long as its client
//! likes. A client without any rights could open connections until the process has no descriptor
//! left, and then the process cannot reconnect to NATS either.
//!
//! How it is solved: there are fewer connections than descriptors, so NATS and files always find
//! one. A connection beyond the limit is answered 503 at once. A connection is closed when its
//! client does not send a header or a body in time, does not read its answer, or does nothing.
//!
//! Rejected: `axum::serve`, which has no limit and no timeout; and the header timeout of hyper. It
//! runs while a connection is idle, too, and it takes a timer and an allocation for each request.
//! Here one timer per connection looks at intervals whether the client has done anything.

mod activity;
mod connections;
mod guesses;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response};
use axum::routing::future::RouteFuture;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use ktrdr_bus::telemetry::Repeated;
use ktrdr_protocol::rest::{ErrorCode, Problem};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, MissedTickBehavior, Sleep, interval_at, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use self::activity::{Activity, ReceivedBody, SentBody, Watched};
pub use self::connections::Connections;
use self::guesses::{Client, Guesses};

/// How long a client may take or keep a connection without doing anything.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// From the first byte of a request to the end of its header, and from the beginning of a
    /// connection to the end of the first header.
    pub header: Duration,
    /// Between two requests.
    pub idle: Duration,
    /// For a whole body, once a handler waits for it.
    pub body: Duration,
    /// Without reading any byte of an answer that waits to be sent.
    pub stalled: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body: Duration::from_secs(60),
            stalled: Duration::from_secs(30),
        }
    }
}

/// Pause after an error of `accept` that another attempt would only repeat.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Connections that are being refused at the same time. Further ones are closed without an answer.
const MAX_REFUSING: usize = 32;

/// How long a refused client may take to read the answer.
const REFUSING: Duration = Duration::from_secs(1);

/// Bytes of a refused request that are read. A client that is still sending when the connection is
/// closed would lose the answer.
const MAX_DISCARDED: u64 = 64 * 1024;

/// Serves `router` until `stop` is cancelled and the requests in flight have been answered.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    connections: &Connections,
    stop: CancellationToken,
) {
    serve_with(listener, router, connections, Timeouts::default(), stop).await;
}

/// [`serve`] with other timeouts.
pub async fn serve_with(
    listener: TcpListener,
    router: Router,
    connections: &Connections,
    timeouts: Timeouts,
    stop: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let refusing = Arc::new(Semaphore::new(MAX_REFUSING));
    let errors = Repeated::new();
    let guesses = Arc::new(Guesses::default());

    loop {
        // Cancel safe: a connection that is not accepted stays in the listener's queue.
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => match connections.enter() {
                Some(place) => {
                    let connection = Connection {
                        router: router.clone(),
                        timeouts,
                        stop: stop.child_token(),
                        client: Client::new(peer.ip(), Arc::clone(&guesses)),
                    };
                    tasks.spawn(connection.run(stream, place));
                }
                None => refuse(stream, &refusing),
            },
            Err(error) if is_about_one_connection(&error) => {}
            Err(error) => {
                if let Some(count) = errors.note() {
                    tracing::error!(%error, count, "cannot accept connections");
                }
                tokio::select! {
                    () = stop.cancelled() => break,
                    () = sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }

    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// Whether the client caused this error of `accept`, so that the next connection may be fine.
fn is_about_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// The answer to a connection beyond the limit.
static REFUSAL: LazyLock<String> = LazyLock::new(|| {
    let text = "The server has as many connections as it can hold. Try again";
    let problem = Problem::new(ErrorCode::Overloaded, text);
    let body = serde_json::to_string(&problem).unwrap_or_default();
    format!(
        "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
});

/// Answers 503 and closes the connection.
fn refuse(mut stream: TcpStream, refusing: &Arc<Semaphore>) {
    let Ok(permit) = Arc::clone(refusing).try_acquire_owned() else {
        return;
    };
    let answer = async move {
        stream.write_all(REFUSAL.as_bytes()).await?;
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(MAX_DISCARDED), &mut tokio::io::sink()).await
    };
    tokio::spawn(async move {
        // A client that is gone or too slow is simply closed.
        let _ = timeout(REFUSING, answer).await;
        drop(permit);
    });
}

/// What one connection needs.
struct Connection {
    router: Router,
    timeouts: Timeouts,
    /// A token of its own: to look at it takes a lock, which connections should not share.
    stop: CancellationToken,
    client: Client,
}

impl Connection {
    /// Answers requests until the client leaves, is too slow, or the server stops.
    async fn run(self, stream: TcpStream, place: OwnedSemaphorePermit) {
        // Small answers must not wait for an acknowledgement of the previous one.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }

        let activity = Arc::new(Activity::default());
        let io = TokioIo::new(Watched::new(stream, Arc::clone(&activity)));
        let routes = Routes {
            router: self.router,
            activity: Arc::clone(&activity),
            client: Arc::new(self.client),
        };
        let mut connection = pin!(http1::Builder::new().serve_connection(io, routes));
        let mut overdue = activity::Overdue::new(self.timeouts);
        let mut look = interval_at(Instant::now() + overdue.interval(), overdue.interval());
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut stopping = false;

        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::trace!(%error, "a connection ended with an error");
                    }
                    break;
                }
                _ = look.tick() => {
                    if let Some(why) = overdue.look(&activity) {
                        tracing::debug!(why, "closing a connection");
                        break;
                    }
                }
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
        drop(place);
    }
}

/// The router as hyper calls it.
struct Routes {
    router: Router,
    activity: Arc<Activity>,
    client: Arc<Client>,
}

impl hyper::service::Service<Request<Incoming>> for Routes {
    type Response = Response<SentBody>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        self.activity.request();
        let body = |body| Body::new(ReceivedBody::new(body, Arc::clone(&self.activity)));
        // A router is always ready.
        let answer = self.router.clone().call(request.map(body));
        Answering {
            answer,
            held: None,
            client: Arc::clone(&self.client),
            activity: Some(Arc::clone(&self.activity)),
        }
    }
}

pin_project_lite::pin_project! {
    /// The future of one answer.
    struct Answering {
        #[pin]
        answer: RouteFuture<Infallible>,
        held: Option<Held>,
        client: Arc<Client>,
        activity: Option<Arc<Activity>>,
    }
}

/// An answer that is made to wait.
struct Held {
    until: Pin<Box<Sleep>>,
    answer: Response<Body>,
}

impl Future for Answering {
    type Output = Result<Response<SentBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = match this.held.as_mut() {
            None => {
                let answer = ready!(this.answer.poll(context))?;
                match this.client.delay(&answer) {
                    None => Some(answer),
                    Some(delay) => {
                        let until = Box::pin(sleep(delay));
                        *this.held = Some(Held { until, answer });
                        // Polled once more, so that it wakes this future.
                        context.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
            }
            Some(held) => {
                ready!(held.until.as_mut().poll(context));
                this.held.take().map(|held| held.answer)
            }
        };

        // Both are there: a future is not polled again after it has answered.
        let (Some(answer), Some(activity)) = (answer, this.activity.take()) else {
            return Poll::Pending;
        };
        Poll::Ready(Ok(answer.map(|body| SentBody::new(body, activity))))
    }
}

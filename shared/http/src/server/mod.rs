//! The server loop of both REST interfaces: connections, their limits and their timeouts.
//!
//! The problem: a connection costs a file descriptor and some memory for as long as its client
//! likes. A client without any rights could open connections until the process has no descriptor
//! left, and then the process cannot reconnect to NATS either.
//!
//! How it is solved: there are fewer connections than descriptors, so NATS and files always find
//! one. A connection beyond the limit is answered 503 at once. A connection is closed when its
//! client does not send a header or a body in time, does not read its answer, or does nothing. With
//! TLS, the handshake must end together with the first header; everything else is the same.
//!
//! Rejected: `axum::serve`, which has no limit and no timeout; and the header timeout of hyper. It
//! runs while a connection is idle, too, and it takes a timer and an allocation for each request.
//! Here one timer per connection looks at intervals whether the client has done anything.

mod activity;
mod connections;
mod guesses;
mod refusal;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep, timeout};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use tower::Service;

use self::activity::{Activity, Clock, ReceivedBody, SentBody, Watched};
pub use self::connections::Connections;
use self::guesses::{Client, Guesses};
use self::refusal::{TLS_REQUIRED, TOO_MANY, refuse};
use crate::tls::Tls;

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
    /// For half a megabyte of an answer while more waits to be sent. A client that reads a little now
    /// and then would keep its share of [`crate::answer::AnswerBudget`] for as long as it likes.
    pub slow: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body: Duration::from_secs(60),
            stalled: Duration::from_secs(30),
            slow: Duration::from_secs(60),
        }
    }
}

/// Bytes of one connection that hyper holds: of a header, and of an answer that waits to be read.
/// Those of an answer do not count in [`crate::answer::AnswerBudget`] any more.
const MAX_BUFFER: usize = 64 * 1024;

/// Pause after an error of `accept` that another attempt would only repeat.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Connections that are being refused at the same time. Further ones are closed without an answer.
const MAX_REFUSING: usize = 32;

/// How long a refused client may take to read the answer, with the handshake of TLS.
const REFUSING: Duration = Duration::from_secs(1);

/// Serves `router` until `stop` is cancelled and the requests in flight have been answered. With
/// `tls`, only inside of TLS.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    connections: &Connections,
    tls: Option<Tls>,
    stop: CancellationToken,
) {
    let timeouts = Timeouts::default();
    serve_with(listener, router, connections, tls, timeouts, stop).await;
}

/// [`serve`] with other timeouts.
pub async fn serve_with(
    listener: TcpListener,
    router: Router,
    connections: &Connections,
    tls: Option<Tls>,
    timeouts: Timeouts,
    stop: CancellationToken,
) {
    let files = tls.clone();
    let _following = files
        .map(|tls| AbortOnDropHandle::new(tokio::spawn(async move { tls.follow_files().await })));
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
                        clock: Clock::new(timeouts),
                        activity: Arc::default(),
                        stop: stop.child_token(),
                        client: Client::new(peer.ip(), Arc::clone(&guesses)),
                        place,
                    };
                    match &tls {
                        None => tasks.spawn(connection.run(stream)),
                        Some(tls) => tasks.spawn(connection.run_tls(stream, tls.clone())),
                    };
                }
                None => refuse_surplus(stream, tls.as_ref(), &refusing),
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

/// Answers 503 and closes the connection.
fn refuse_surplus(stream: TcpStream, tls: Option<&Tls>, refusing: &Arc<Semaphore>) {
    let Ok(permit) = Arc::clone(refusing).try_acquire_owned() else {
        return;
    };
    let tls = tls.cloned();
    let answer = async move {
        match tls {
            None => refuse(stream, &TOO_MANY).await,
            // A client that gets no answer inside of TLS does not learn that it may try again.
            Some(tls) => match tls.acceptor().accept(stream).await {
                Ok(stream) => refuse(stream, &TOO_MANY).await,
                Err(error) => tracing::trace!(%error, "a TLS handshake failed"),
            },
        }
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
    clock: Clock,
    activity: Arc<Activity>,
    /// A token of its own: to look at it takes a lock, which connections should not share.
    stop: CancellationToken,
    client: Client,
    /// Free again when this is dropped.
    place: OwnedSemaphorePermit,
}

impl Connection {
    /// Answers requests until the client leaves, is too slow, or the server stops.
    async fn run(self, stream: TcpStream) {
        let stream = self.watch(stream);
        self.answer(stream).await;
    }

    /// The same inside of TLS.
    async fn run_tls(mut self, stream: TcpStream, tls: Tls) {
        // Boxed: otherwise both parts take memory for as long as the connection lives.
        let handshake = Box::pin(handshake(self.watch(stream), tls));
        let stream = tokio::select! {
            stream = handshake => stream,
            why = self.clock.overdue(&self.activity) => {
                tracing::debug!(why, "closing a connection");
                None
            }
            () = self.stop.cancelled() => None,
        };
        if let Some(stream) = stream {
            self.answer(stream).await;
        }
    }

    fn watch(&self, stream: TcpStream) -> Watched {
        // Small answers must not wait for an acknowledgement of the previous one.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        Watched::new(stream, Arc::clone(&self.activity))
    }

    async fn answer(mut self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let routes = Routes {
            router: self.router,
            activity: Arc::clone(&self.activity),
            client: Arc::new(self.client),
        };
        let io = TokioIo::new(stream);
        let mut connection = pin!(
            http1::Builder::new()
                .max_buf_size(MAX_BUFFER)
                .serve_connection(io, routes)
        );
        let mut stopping = false;

        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::trace!(%error, "a connection ended with an error");
                    }
                    break;
                }
                why = self.clock.overdue(&self.activity) => {
                    tracing::debug!(why, "closing a connection");
                    break;
                }
                () = self.stop.cancelled(), if !stopping => {
                    stopping = true;
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
        drop(self.place);
    }
}

/// Begins TLS. `None` when that is not what the client speaks.
async fn handshake(stream: Watched, tls: Tls) -> Option<TlsStream<Watched>> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1..) if first[0].is_ascii_uppercase() => {
            // A word such as GET: plain HTTP.
            let _ = timeout(REFUSING, refuse(stream, &TLS_REQUIRED)).await;
            None
        }
        Ok(1..) => match tls.acceptor().accept(stream).await {
            Ok(stream) => Some(stream),
            Err(error) => {
                // Anybody can cause it, so it is no news.
                tracing::trace!(%error, "a TLS handshake failed");
                None
            }
        },
        _ => None,
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

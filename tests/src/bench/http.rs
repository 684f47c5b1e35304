//! A cheap HTTP/1.1 client, because it shares the machine with the servers it measures; and the
//! bare axum server that the backend is compared with.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::report::sorted;

const CONTENT_LENGTH: &[u8] = b"\r\ncontent-length: ";

/// One connection that is kept open.
pub(super) struct Http {
    stream: TcpStream,
    buffer: BytesMut,
}

impl Http {
    pub(super) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address)
            .await
            .expect("a server that listens");
        stream.set_nodelay(true).expect("a TCP socket");
        Self {
            stream,
            buffer: BytesMut::with_capacity(64 * 1024),
        }
    }

    /// Sends one request and reads its answer.
    pub(super) async fn call(&mut self, request: &[u8]) -> (u16, Bytes) {
        self.stream
            .write_all(request)
            .await
            .expect("an open connection");

        loop {
            if let Some(answer) = self.parse() {
                return answer;
            }
            let read = self
                .stream
                .read_buf(&mut self.buffer)
                .await
                .expect("an open connection");
            assert!(
                read > 0,
                "the server closed the connection: {}",
                String::from_utf8_lossy(&self.buffer)
            );
        }
    }

    fn parse(&mut self) -> Option<(u16, Bytes)> {
        let end = memmem::find(&self.buffer, b"\r\n\r\n")? + 4;
        let head = &self.buffer[..end];
        let status = head.get(9..12).and_then(number).expect("a status line") as u16;

        // In hyper's spelling: every server measured here uses hyper.
        let length =
            memmem::find(head, CONTENT_LENGTH).map(|at| &head[at + CONTENT_LENGTH.len()..]);
        let length = length
            .and_then(|rest| number(&rest[..memmem::find(rest, b"\r")?]))
            .expect("an answer with a length");
        if self.buffer.len() < end + length {
            self.buffer.reserve(end + length - self.buffer.len());
            return None;
        }

        self.buffer.advance(end);
        Some((status, self.buffer.split_to(length).freeze()))
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The bytes of a `GET` request.
pub(super) fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").into_bytes()
}

/// The bytes of a `POST` request with a JSON body.
pub(super) fn post(path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// The same request with a token.
pub(super) fn with_token(request: &[u8], token: &str) -> Vec<u8> {
    let end = memmem::find(request, b"\r\n").expect("a request line") + 2;
    let (line, rest) = request.split_at(end);
    let header = format!("authorization: Bearer {token}\r\n");
    [line, header.as_bytes(), rest].concat()
}

/// The address in `http://127.0.0.1:1234`.
pub(super) fn address_of(base: &str) -> SocketAddr {
    base.trim_start_matches("http://")
        .parse()
        .expect("an address")
}

/// The outcome of a load.
pub(super) struct Load {
    pub(super) count: u64,
    pub(super) rate: f64,
    /// Milliseconds, sorted.
    pub(super) latencies: Vec<f64>,
}

/// Sends requests over `connections` connections for the time `span`. `make` returns the n-th
/// request; every answer must have the given `status`.
pub(super) async fn drive(
    address: SocketAddr,
    connections: usize,
    span: Duration,
    status: u16,
    make: impl Fn(u64) -> Arc<[u8]> + Send + Sync + 'static,
) -> Load {
    let (make, next) = (Arc::new(make), Arc::new(AtomicU64::new(0)));
    let mut opened = Vec::new();

    for _ in 0..connections {
        opened.push(Http::open(address).await);
    }

    let started = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for mut http in opened {
        let (make, next) = (make.clone(), next.clone());
        tasks.spawn(async move {
            let mut latencies = Vec::new();
            while started.elapsed() < span {
                let request = make(next.fetch_add(1, Ordering::Relaxed));
                let sent = Instant::now();
                let (got, body) = http.call(&request).await;
                assert_eq!(got, status, "{}", String::from_utf8_lossy(&body));
                latencies.push(sent.elapsed().as_secs_f64() * 1e3);
            }
            latencies
        });
    }

    let latencies = sorted(tasks.join_all().await.concat());
    let count = latencies.len() as u64;

    Load {
        count,
        rate: count as f64 / started.elapsed().as_secs_f64(),
        latencies,
    }
}

/// The bare server: `POST /echo` returns the body, `GET /bytes` always the same bytes. It runs as a
/// separate process, like the backend; `main` calls this in that process.
pub(super) async fn serve(port: u16, bytes: Bytes) {
    use axum::http::header::CONTENT_TYPE;
    use axum::routing::{get, post};
    use axum::serve::ListenerExt;
    const JSON: [(axum::http::HeaderName, &str); 1] = [(CONTENT_TYPE, "application/json")];
    let app = axum::Router::new()
        .route("/echo", post(async |body: Bytes| (JSON, body)))
        .route("/bytes", get(async move || (JSON, bytes)));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
        .await
        .expect("a free port");
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));

    axum::serve(listener, app)
        .await
        .expect("the bare server serves");
}

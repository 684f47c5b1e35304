//! Clients that misbehave, against the server loop with short timeouts.

use std::net::SocketAddr;

use axum::routing::{get, post};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(20);

/// Bytes of a large answer: more than the kernel takes.
const LARGE: usize = 64 * 1024 * 1024;

const SHORT: Timeouts = Timeouts {
    header: Duration::from_millis(200),
    idle: Duration::from_millis(600),
    body: Duration::from_millis(400),
    stalled: Duration::from_millis(200),
    slow: LIMIT,
};

struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(most: usize) -> Self {
        Self::start_with(most, SHORT).await
    }

    async fn start_with(most: usize, timeouts: Timeouts) -> Self {
        let large = || async { vec![b'x'; LARGE] };
        let slow = || async { sleep(Duration::from_millis(1500)).await };
        let router = Router::new()
            .route("/", get(|| async { "ok" }))
            .route("/slow", get(slow))
            .route("/large", get(large))
            .route("/echo", post(|body: String| async { body }));

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move {
            let connections = Connections::new(most);
            serve_with(listener, router, &connections, None, timeouts, stopped).await;
        });
        Self {
            address,
            stop,
            task,
        }
    }

    /// Waits until there is a place for one more connection.
    async fn is_free(&self) {
        let free = async {
            loop {
                let mut other = self.connect().await;
                let _ = other.write_all(b"GET / HTTP/1.0\r\n\r\n").await;
                if Self::rest(other).await.ends_with("ok") {
                    break;
                }
            }
        };
        timeout(LIMIT, free).await.expect("a free place");
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// What the server sends until it closes the connection.
    async fn rest(mut stream: TcpStream) -> String {
        let mut text = Vec::new();
        let read = timeout(LIMIT, stream.read_to_end(&mut text)).await;
        let _ = read.expect("the connection to be closed");
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// Sends a request and reads until the answer ends with `end`.
async fn ask(stream: &mut TcpStream, request: &str, end: &str) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = Vec::new();
    while !text.ends_with(end.as_bytes()) {
        let read = timeout(LIMIT, stream.read_buf(&mut text)).await;
        assert_ne!(read.expect("an answer").unwrap(), 0, "closed");
    }
}

/// Sends `byte` again and again until the server has closed the connection.
async fn drip(mut stream: TcpStream, byte: u8) {
    let dripping = async {
        while stream.write_all(&[byte]).await.is_ok() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LIMIT, dripping)
        .await
        .expect("the connection to be closed");
}

#[tokio::test]
async fn a_header_that_drips_is_cut_off_also_between_two_requests() {
    let server = Server::start(10).await;

    drip(server.connect().await, b'G').await;

    let mut second = server.connect().await;
    ask(&mut second, "GET / HTTP/1.1\r\nhost: x\r\n\r\n", "ok").await;
    drip(second, b'G').await;
}

#[tokio::test]
async fn a_client_that_does_nothing_is_closed() {
    let server = Server::start(10).await;

    Server::rest(server.connect().await).await;

    let mut used = server.connect().await;
    ask(&mut used, "GET / HTTP/1.1\r\nhost: x\r\n\r\n", "ok").await;
    let since = Instant::now();
    Server::rest(used).await;
    assert!(since.elapsed() > SHORT.header, "{:?}", since.elapsed());
}

#[tokio::test]
async fn a_body_that_drips_is_cut_off() {
    let server = Server::start(10).await;
    let mut client = server.connect().await;

    let head = "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();

    drip(client, b'x').await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_closed() {
    let server = Server::start(1).await;
    let mut deaf = server.connect().await;
    let request = b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n";
    deaf.write_all(request).await.unwrap();

    server.is_free().await;
}

/// Reads so many bytes of an answer every 20 ms until the connection is closed. Returns how many there
/// were.
async fn read_slowly(stream: &mut TcpStream, at_a_time: usize) -> usize {
    let mut piece = vec![0; at_a_time];
    let mut all = 0;
    while let Ok(read @ 1..) = stream.read(&mut piece).await {
        all += read;
        sleep(Duration::from_millis(20)).await;
    }
    all
}

#[tokio::test]
async fn a_client_that_reads_its_answer_in_drips_is_closed_and_a_slow_one_is_not() {
    let timeouts = Timeouts {
        stalled: LIMIT,
        slow: Duration::from_millis(400),
        ..SHORT
    };
    let server = Server::start_with(1, timeouts).await;
    let request = b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

    let mut slow = server.connect().await;
    slow.write_all(request).await.unwrap();
    let all = timeout(LIMIT, read_slowly(&mut slow, 1024 * 1024)).await;
    assert!(all.expect("an end") > LARGE);

    let mut dripping = server.connect().await;
    dripping.write_all(request).await.unwrap();
    tokio::select! {
        all = read_slowly(&mut dripping, 1024) => panic!("read {all} bytes"),
        () = server.is_free() => {}
    }
}

#[tokio::test]
async fn an_answer_may_take_its_time() {
    let server = Server::start(10).await;
    let mut client = server.connect().await;

    let request = "GET /slow HTTP/1.1\r\nhost: x\r\n\r\n";
    ask(&mut client, request, "\r\n\r\n").await;
    ask(&mut client, "GET / HTTP/1.1\r\nhost: x\r\n\r\n", "ok").await;
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_refused_and_the_others_go_on() {
    let server = Server::start(2).await;
    let request = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    let (mut one, mut two) = (server.connect().await, server.connect().await);
    ask(&mut one, request, "ok").await;
    ask(&mut two, request, "ok").await;

    let mut third = server.connect().await;
    let _ = third.write_all(request.as_bytes()).await;
    let answer = Server::rest(third).await;

    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(answer.contains(r#""code":"overloaded""#), "{answer}");
    ask(&mut one, request, "ok").await;
    ask(&mut two, request, "ok").await;
}

#[tokio::test]
async fn a_server_that_stops_answers_what_is_in_flight_and_closes_the_rest() {
    let server = Server::start(10).await;
    let mut idle = server.connect().await;
    ask(&mut idle, "GET / HTTP/1.1\r\nhost: x\r\n\r\n", "ok").await;
    let mut busy = server.connect().await;
    let request = b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n";
    busy.write_all(request).await.unwrap();
    // Known to have arrived once a later request on another connection is answered.
    ask(&mut idle, "GET / HTTP/1.1\r\nhost: x\r\n\r\n", "ok").await;

    server.stop.cancel();

    assert_eq!(Server::rest(idle).await, "");
    assert!(Server::rest(busy).await.starts_with("HTTP/1.1 200 "));
    timeout(LIMIT, server.task).await.expect("an end").unwrap();
    assert!(TcpStream::connect(server.address).await.is_err());
}

//! A TCP proxy at a fixed port, between a program and NATS, controlled by the test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// What happens to the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    Hold,
    Cut,
}

#[derive(Debug, Clone, Copy)]
struct State {
    mode: Mode,
    upstream: SocketAddr,
    /// How much later everything arrives.
    delay: Duration,
    /// Connections made before the last cut stay closed, even when the line was restored at once.
    cuts: u64,
}

/// The proxy. Ends, with all its connections, when dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    state: Arc<watch::Sender<State>>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// A proxy in front of `127.0.0.1:upstream`.
    ///
    /// # Panics
    /// When no port is free.
    pub async fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let first = State {
            mode: Mode::Pass,
            upstream: ([127, 0, 0, 1], upstream).into(),
            delay: Duration::ZERO,
            cuts: 0,
        };
        let state = Arc::new(watch::Sender::new(first));
        let task = tokio::spawn(accept(listener, state.subscribe()));

        Self { port, state, task }
    }

    /// The port that clients connect to. It never changes.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where NATS clients connect.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Closes all connections, and new ones as soon as they come.
    pub fn cut(&self) {
        self.state.send_modify(|state| {
            state.mode = Mode::Cut;
            state.cuts += 1;
        });
    }

    /// Keeps all connections open, accepts new ones, and passes nothing, like a dead network.
    pub fn hold(&self) {
        self.state.send_modify(|state| state.mode = Mode::Hold);
    }

    /// Passes everything again. What was held arrives now.
    pub fn restore(&self) {
        self.state.send_modify(|state| state.mode = Mode::Pass);
    }

    /// Passes everything so much later, in both directions.
    pub fn delay(&self, by: Duration) {
        self.state.send_modify(|state| state.delay = by);
    }

    /// Sends new connections to another port from now on.
    pub fn redirect(&self, upstream: u16) {
        self.state
            .send_modify(|state| state.upstream.set_port(upstream));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: watch::Receiver<State>) {
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        // Both arms are cancel safe: neither a connection nor a finished task is lost when the
        // other one wins.
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    connections.spawn(serve(client, state.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(client: TcpStream, mut state: watch::Receiver<State>) {
    let cuts = state.borrow().cuts;

    // A held connection reaches its destination only when the line is restored.
    let Ok(now) = state
        .wait_for(|state| state.mode != Mode::Hold)
        .await
        .map(|state| *state)
    else {
        return;
    };
    if now.mode == Mode::Cut || now.cuts != cuts {
        return;
    }
    let Ok(server) = TcpStream::connect(now.upstream).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();

    // The direction that ends first ends both.
    tokio::select! {
        () = pump(from_client, to_server, state.clone(), cuts) => {}
        () = pump(from_server, to_client, state.clone(), cuts) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut state: watch::Receiver<State>,
    cuts: u64,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        // `read` is cancel safe: when it is dropped nothing was read.
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = state.wait_for(|state| state.cuts != cuts) => return,
        };
        let Ok(length @ 1..) = read else { return };
        match state
            .wait_for(|state| state.mode != Mode::Hold || state.cuts != cuts)
            .await
        {
            Ok(now) if now.cuts == cuts => {}
            _ => return,
        }
        let delay = state.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}

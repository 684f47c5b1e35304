//! A TCP proxy at a fixed port, between a program and NATS, controlled by the test.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use memchr::memmem;
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
    /// What a client says before everything is held.
    trap: Option<&'static str>,
    /// The version that the server seems to have.
    version: Option<&'static str>,
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    Client,
    Server,
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
            trap: None,
            version: None,
        };
        let state = Arc::new(watch::Sender::new(first));
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));

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

    /// Holds everything as soon as a client sends this text, and the text itself.
    pub fn hold_before(&self, text: &'static str) {
        self.state.send_modify(|state| state.trap = Some(text));
    }

    /// Waits until a client has sent the text of [`Self::hold_before`].
    pub async fn held(&self) {
        let mut state = self.state.subscribe();
        let held = state.wait_for(|state| state.mode == Mode::Hold);
        let _ = held.await;
    }

    /// New connections are told that the server has this version; `None` for its own.
    pub fn pretend_version(&self, version: Option<&'static str>) {
        self.state.send_modify(|state| state.version = version);
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

async fn accept(listener: TcpListener, state: Arc<watch::Sender<State>>) {
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        // Both arms are cancel safe: neither a connection nor a finished task is lost when the
        // other one wins.
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    connections.spawn(serve(client, Arc::clone(&state)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(client: TcpStream, control: Arc<watch::Sender<State>>) {
    let mut state = control.subscribe();
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
        () = pump(from_client, to_server, &control, Sender::Client, cuts) => {}
        () = pump(from_server, to_client, &control, Sender::Server, cuts) => {}
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    control: &watch::Sender<State>,
    sender: Sender,
    cuts: u64,
) {
    let mut state = control.subscribe();
    let mut buffer = vec![0; 64 * 1024];
    // The end of what was read before: a text may come in two parts.
    let mut before = Vec::new();
    loop {
        // `read` is cancel safe: when it is dropped nothing was read.
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = state.wait_for(|state| state.cuts != cuts) => return,
        };
        let Ok(length @ 1..) = read else { return };
        let mut bytes = buffer[..length].to_vec();
        let now = *state.borrow();
        match (sender, now.trap, now.version) {
            (Sender::Client, Some(trap), _) => {
                before.extend_from_slice(&bytes);
                if memmem::find(&before, trap.as_bytes()).is_some() {
                    control.send_modify(|state| {
                        state.trap = None;
                        state.mode = Mode::Hold;
                    });
                }
                before.drain(..before.len().saturating_sub(trap.len()));
            }
            (Sender::Server, _, Some(version)) if bytes.starts_with(b"INFO ") => {
                bytes = with_version(&bytes, version);
            }
            _ => {}
        }
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
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// The first words of a server, with another version.
fn with_version(info: &[u8], version: &str) -> Vec<u8> {
    const FIELD: &[u8] = b"\"version\":\"";
    let Some(begin) = memmem::find(info, FIELD).map(|at| at + FIELD.len()) else {
        return info.to_vec();
    };
    let (head, rest) = info.split_at(begin);
    let end = memchr::memchr(b'"', rest).unwrap_or_default();
    [head, version.as_bytes(), &rest[end..]].concat()
}

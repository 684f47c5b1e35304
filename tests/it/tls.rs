//! TLS of the REST interfaces: who gets in, what clients without manners can do, and how a
//! certificate is renewed.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use clap::Parser;
use ktrdr_http::server::{Connections, Timeouts, serve_with};
use ktrdr_http::tls::TlsOptions;
use ktrdr_tests::browser::Browser;
use ktrdr_tests::certificates::{Authority, Certificate};
use ktrdr_tests::process::Process;
use ktrdr_tests::tls::TlsClient;
use ktrdr_tests::{
    BackendProcess, Client, LIMIT, NatsServer, Scratch, Settings, WorkerProcess, wait_for,
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{interval, timeout};
use tokio_rustls::rustls::version;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

const HERE: &str = "IP:127.0.0.1";

const SHORT: Timeouts = Timeouts {
    header: Duration::from_millis(400),
    idle: Duration::from_millis(800),
    body: Duration::from_millis(400),
    stalled: Duration::from_millis(400),
    slow: Duration::from_secs(60),
};

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    tls: TlsOptions,
}

/// The server loop with short timeouts, inside of TLS.
struct Server {
    address: String,
    client: TlsClient,
    authority: Authority,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    async fn start(most: usize) -> Self {
        let authority = Authority::new();
        let own = authority.issue(HERE);
        let (cert, key) = (own.certificate.into_os_string(), own.key.into_os_string());
        let arguments = [
            "x".into(),
            "--tls-cert".into(),
            cert,
            "--tls-key".into(),
            key,
        ];
        let tls = Options::parse_from(arguments).tls.load().unwrap();

        let router = Router::new()
            .route("/", get(|| async { "ok" }))
            .route("/large", get(|| async { vec![b'x'; 64 * 1024 * 1024] }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let (connections, stop) = (Connections::new(most), CancellationToken::new());
            serve_with(listener, router, &connections, tls, SHORT, stop).await;
        });
        Self {
            address: address.to_string(),
            client: TlsClient::trusting(authority.certificate()),
            authority,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// A connection that has not said anything.
    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(&self.address).await.unwrap()
    }
}

/// What the server sends until it closes the connection.
async fn rest(mut stream: impl tokio::io::AsyncRead + Unpin) -> String {
    let mut text = Vec::new();
    let read = timeout(LIMIT, stream.read_to_end(&mut text)).await;
    let _ = read.expect("the connection to be closed");
    String::from_utf8_lossy(&text).into_owned()
}

/// Sends `byte` again and again until the server has closed the connection.
async fn drip(mut stream: impl tokio::io::AsyncWrite + Unpin, byte: u8) {
    let mut pace = interval(Duration::from_millis(20));
    let dripping = async {
        while stream.write_all(&[byte]).await.is_ok() && stream.flush().await.is_ok() {
            pace.tick().await;
        }
    };
    timeout(LIMIT, dripping)
        .await
        .expect("the connection to be closed");
}

#[tokio::test]
async fn a_handshake_that_drips_or_never_begins_is_cut_off() {
    let server = Server::start(10).await;

    // The beginning of a ClientHello of 512 bytes.
    let mut slow = server.tcp().await;
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    slow.write_all(&hello).await.unwrap();
    drip(slow, 7).await;

    rest(server.tcp().await).await;
}

#[tokio::test]
async fn a_header_inside_of_tls_has_its_time_limit_too() {
    let server = Server::start(10).await;

    let silent = server.client.connect(&server.address).await.unwrap();
    assert_eq!(rest(silent).await, "");

    let slow = server.client.connect(&server.address).await.unwrap();
    drip(slow, b'G').await;
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_closed() {
    let server = Server::start(1).await;
    let mut deaf = server.client.connect(&server.address).await.unwrap();
    let request = b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n";
    deaf.write_all(request).await.unwrap();

    wait_for("its place to be free", LIMIT, async || {
        match server.client.get(&server.address, "/").await {
            Ok(answer) if answer.ends_with("ok") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_large_answer_arrives_whole() {
    let server = Server::start(10).await;

    let answer = server.client.get(&server.address, "/large").await.unwrap();

    assert!(answer.len() > 64 * 1024 * 1024, "{}", answer.len());
}

#[tokio::test]
async fn plain_http_is_told_to_use_https_and_noise_is_closed() {
    let server = Server::start(10).await;

    let mut plain = server.tcp().await;
    let request = b"GET /x HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
    plain.write_all(request).await.unwrap();
    let answer = rest(plain).await;

    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(answer.contains(r#""code":"tls_required""#), "{answer}");
    assert!(answer.contains("https://"), "{answer}");

    for noise in [
        &b"\0\0\0\0\0\0\0\0"[..],
        b"\x16\x03\x01\x00\x01\xff",
        b"\x80\x2e\x01",
    ] {
        let mut stream = server.tcp().await;
        stream.write_all(noise).await.unwrap();
        assert!(!rest(stream).await.starts_with("HTTP"));
    }
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_refused_inside_of_tls() {
    let server = Server::start(1).await;
    let mut first = server.client.connect(&server.address).await.unwrap();
    let mut byte = [0];
    first
        .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    first.read_exact(&mut byte).await.unwrap();

    let answer = server.client.get(&server.address, "/").await.unwrap();

    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nretry-after: 1\r\n"), "{answer}");
    assert!(answer.contains(r#""code":"overloaded""#), "{answer}");
}

#[tokio::test]
async fn only_http1_over_tls_1_2_and_1_3_is_spoken() {
    let server = Server::start(10).await;
    let authority = server.authority.certificate();

    for only in [&version::TLS12, &version::TLS13] {
        let client = TlsClient::with_versions(authority, &[only]);
        let answer = client.get(&server.address, "/").await.unwrap();
        assert!(answer.ends_with("ok"), "{answer}");
    }

    let both = server.client.clone().offering(&["h2", "http/1.1"]);
    let stream = both.connect(&server.address).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));

    let other = server.client.clone().offering(&["h2"]);
    let refused = other
        .connect(&server.address)
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("NoApplicationProtocol"), "{refused}");
}

/// A directory with the files that the programs are told to use.
struct Installed {
    scratch: Scratch,
}

impl Installed {
    fn new(pair: &Certificate) -> Self {
        let this = Self {
            scratch: Scratch::new("tls"),
        };
        this.install(pair);
        this
    }

    /// As certbot and others do it: one file after the other, each in one step.
    fn install(&self, pair: &Certificate) {
        self.put("cert.pem", &std::fs::read(&pair.certificate).unwrap());
        self.put("key.pem", &std::fs::read(&pair.key).unwrap());
    }

    fn put(&self, name: &str, contents: &[u8]) {
        let new = self.scratch.join("new");
        std::fs::write(&new, contents).unwrap();
        std::fs::set_permissions(&new, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::rename(new, self.scratch.join(name)).unwrap();
    }

    fn settings(&self, nats: &NatsServer) -> Settings {
        let path = |name: &str| self.scratch.join(name).display().to_string();
        Settings::fast(nats.url())
            .with("KTRDR_TLS_CERT", path("cert.pem"))
            .with("KTRDR_TLS_KEY", path("key.pem"))
    }
}

/// `host:port` of a program that the harness believes to speak HTTP.
fn address(api: &Client) -> String {
    api.base().trim_start_matches("http://").to_owned()
}

async fn answers(client: &TlsClient, address: &str, path: &str) -> String {
    wait_for(path, LIMIT, async || {
        match client.get(address, path).await {
            Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => Ok(answer),
            other => Err(format!("{other:?}")),
        }
    })
    .await
}

async fn logs(process: &Process, text: &str, times: usize) {
    wait_for(text, LIMIT, async || {
        let log = process.log();
        if log.matches(text).count() == times {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
}

#[tokio::test]
async fn backend_and_worker_speak_https_and_nothing_else() {
    let nats = NatsServer::start().await;
    let authority = Authority::new();
    let installed = Installed::new(&authority.issue(HERE));
    let settings = installed.settings(&nats);
    let backend = BackendProcess::launch(&settings);
    let worker = WorkerProcess::launch(&settings, "dummy", "w1");
    let client = TlsClient::trusting(authority.certificate());
    let (api, own) = (address(&backend.api), address(&worker.api));

    answers(&client, &api, "/ready").await;
    answers(&client, &own, "/health").await;

    // Nobody without this authority is connected.
    let stranger = TlsClient::trusting(Authority::new().certificate());
    let refused = stranger.get(&api, "/health").await.unwrap_err().to_string();
    assert!(refused.contains("invalid peer certificate"), "{refused}");

    for program in [&backend.api, &worker.api] {
        program
            .get("/health")
            .await
            .expect_problem(400, "tls_required");
    }
    // Others learn the scheme.
    let shown = wait_for("the worker to be listed", LIMIT, async || {
        let workers = client.get(&api, "/api/v1/workers").await.unwrap();
        if workers.contains("w1") {
            Ok(workers)
        } else {
            Err(workers)
        }
    })
    .await;
    assert!(shown.contains(&format!("https://{own}")), "{shown}");
    logs(&backend.process, &format!("https://{api}"), 1).await;

    // Monitoring sees when the certificate expires.
    for program in [&api, &own] {
        let page = client.get(program, "/metrics").await.unwrap();
        let expiry = page
            .lines()
            .find_map(|line| line.strip_prefix("ktrdr_tls_certificate_expiry_timestamp_seconds "))
            .unwrap_or_else(|| panic!("{page}"));
        let left = expiry.parse::<f64>().unwrap() - chrono::Utc::now().timestamp() as f64;
        assert!((86_000.0..86_500.0).contains(&left), "{left}");
    }
    // One day is little.
    logs(&backend.process, "the TLS certificate expires soon", 1).await;
    logs(&worker.process, "the TLS certificate expires soon", 1).await;
}

#[tokio::test]
async fn only_pages_that_came_over_https_are_the_servers_own() {
    let nats = NatsServer::start().await;
    let authority = Authority::new();
    let installed = Installed::new(&authority.issue(HERE));
    let backend = BackendProcess::launch(&installed.settings(&nats));
    let _worker = WorkerProcess::launch(&Settings::fast(nats.url()), "dummy", "w1");
    let client = TlsClient::trusting(authority.certificate());
    let api = address(&backend.api);
    wait_for("the worker type", LIMIT, async || {
        let types = answers(&client, &api, "/api/v1/worker-types").await;
        if types.contains("dummy") {
            Ok(())
        } else {
            Err(types)
        }
    })
    .await;

    let start = async |origin: String| {
        let headers = [
            ("origin", origin.as_str()),
            ("content-type", "application/json"),
        ];
        let line = "POST /api/v1/dummy/start";
        client
            .ask(&api, line, &headers, r#"{"steps":0}"#)
            .await
            .unwrap()
    };

    let own = start(format!("https://{api}")).await;
    assert!(own.starts_with("HTTP/1.1 202 "), "{own}");
    let other = start(format!("http://{api}")).await;
    assert!(other.contains("origin_not_allowed"), "{other}");

    // The same with a real page, which also follows live events.
    let trust = ["--ignore-certificate-errors"];
    let Some(browser) = Browser::start_with(&trust).await else {
        return;
    };
    browser.goto(&format!("https://{api}/")).await;
    let status = browser
        .run(
            "return fetch('/api/v1/dummy/start', {method: 'POST', body: '{\"steps\":1,\"task_id\":\"of-the-page\"}', \
             headers: {'content-type': 'application/json'}}).then(answer => answer.status)",
        )
        .await;
    assert_eq!(status, json!(202));
    browser.wait_for_text("body", "of-the-page").await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_new_certificate_is_used_without_a_restart_and_a_bad_one_is_not() {
    let nats = NatsServer::start().await;
    let authority = Authority::new();
    let first = authority.issue_for_days(HERE, 30);
    let installed = Installed::new(&first);
    let backend = BackendProcess::launch(&installed.settings(&nats));
    let client = TlsClient::trusting(authority.certificate());
    let api = address(&backend.api);
    answers(&client, &api, "/health").await;
    let old = client.certificate(&api).await.unwrap();

    // A connection from before the renewal.
    let mut early = client.connect(&api).await.unwrap();
    let request = format!("GET /health HTTP/1.1\r\nhost: {api}\r\n\r\n");
    early.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = [0; 12];
    early.read_exact(&mut bytes).await.unwrap();

    installed.install(&authority.issue_for_days(HERE, 40));
    let new = wait_for("the new certificate", LIMIT, async || {
        let shown = client
            .certificate(&api)
            .await
            .map_err(|error| error.to_string())?;
        if shown == old {
            Err("the old one".to_owned())
        } else {
            Ok(shown)
        }
    })
    .await;
    early.write_all(request.as_bytes()).await.unwrap();
    early.read_exact(&mut bytes).await.unwrap();

    // None of these replaces it, and each is told once.
    let kept = "the old one stays";
    let expired = authority.issue_for_days(HERE, -1);
    let mut told = 0;
    let mut is_kept = async |why: &str| {
        told += 1;
        logs(&backend.process, kept, told).await;
        assert!(
            backend.process.log().contains(why),
            "{why}: {}",
            backend.process.log()
        );
        assert_eq!(client.certificate(&api).await.unwrap(), new, "{why}");
    };
    installed.put("cert.pem", b"-----BEGIN CERTIFICATE-----\nbroken");
    is_kept("certificate in PEM form").await;
    installed.put("cert.pem", &std::fs::read(&first.certificate).unwrap());
    is_kept("cannot be used together").await;
    std::fs::remove_file(installed.scratch.join("key.pem")).unwrap();
    is_kept("cannot read").await;
    installed.install(&expired);
    is_kept("has expired at").await;

    installed.install(&first);
    wait_for("the certificate that works again", LIMIT, async || {
        let shown = client
            .certificate(&api)
            .await
            .map_err(|error| error.to_string())?;
        if shown == old {
            Ok(())
        } else {
            Err("another one".to_owned())
        }
    })
    .await;
    logs(&backend.process, kept, told).await;
}

/// Starts a backend with these variables, which must end it. Returns its log.
async fn refused(nats: &NatsServer, variables: &[(&str, &Path)]) -> String {
    let mut settings = Settings::fast(nats.url());
    for (name, path) in variables {
        settings = settings.with(name, path.display().to_string());
    }
    let mut backend = BackendProcess::launch(&settings);
    let status = backend.process.wait(LIMIT).await;
    assert!(!status.success());
    backend.process.log()
}

#[tokio::test]
async fn settings_that_cannot_work_end_the_program_with_a_reason() {
    let nats = NatsServer::start().await;
    let authority = Authority::new();
    let (one, other) = (
        authority.issue("IP:127.0.0.1"),
        authority.issue("DNS:localhost"),
    );
    let (cert, key) = ("KTRDR_TLS_CERT", "KTRDR_TLS_KEY");

    let half = refused(&nats, &[(cert, &one.certificate)]).await;
    assert!(
        half.contains("KTRDR_TLS_CERT is set and KTRDR_TLS_KEY is not"),
        "{half}"
    );
    let mixed = refused(&nats, &[(cert, &one.certificate), (key, &other.key)]).await;
    assert!(mixed.contains("cannot be used together"), "{mixed}");
    let swapped = refused(&nats, &[(cert, &one.key), (key, &one.certificate)]).await;
    assert!(
        swapped.contains("has no certificate in PEM form"),
        "{swapped}"
    );
    let missing = refused(&nats, &[(cert, Path::new("/nowhere")), (key, &one.key)]).await;
    assert!(missing.contains("cannot read /nowhere"), "{missing}");
}

#[tokio::test]
async fn an_expired_certificate_and_an_open_key_are_warned_about() {
    let nats = NatsServer::start().await;
    let authority = Authority::new();
    let installed = Installed::new(&authority.issue_for_days(HERE, -1));
    let key = installed.scratch.join("key.pem");
    std::fs::set_permissions(key, PermissionsExt::from_mode(0o644)).unwrap();

    let settings = installed.settings(&nats);
    let worker = WorkerProcess::launch(&settings, "dummy", "w1");

    logs(&worker.process, "the TLS certificate has expired", 1).await;
    logs(&worker.process, "may read", 1).await;
    let client = TlsClient::trusting(authority.certificate());
    wait_for("a refusal", LIMIT, async || {
        match client.get(&address(&worker.api), "/health").await {
            Err(error) if error.to_string().contains("expired") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_variable_that_is_set_to_nothing_is_not_set() {
    let nats = NatsServer::start().await;
    let settings = Settings::fast(nats.url())
        .with("KTRDR_TLS_CERT", "")
        .with("KTRDR_TLS_KEY", "");

    let backend = BackendProcess::start(&settings).await;

    backend.api.get("/health").await.expect(200);
}

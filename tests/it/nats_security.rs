//! The connection to NATS servers that want credentials or TLS, and what the log says when there is
//! none.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ktrdr_bus::nats::{self, Connection};
use ktrdr_bus::settings::NatsOptions;
use ktrdr_tests::{
    Authority, BackendProcess, Certificate, LIMIT, NatsServer, Scratch, Settings, WorkerProcess,
    free_port, wait_for,
};
use nkeys::KeyPair;
use serde_json::{Value, json};

fn options(url: &str) -> NatsOptions {
    NatsOptions {
        nats_url: url.to_owned(),
        ..ktrdr_worker::Config::default().nats
    }
}

/// Waits until a program is connected for the `epoch`th time.
async fn connected(connection: &Connection, epoch: u64) {
    wait_for("the connection", LIMIT, async || {
        let link = *connection.link.borrow();
        if link.up && link.epoch == epoch {
            Ok(())
        } else {
            Err(format!("{link:?}"))
        }
    })
    .await;
}

/// Waits until the server has refused somebody `times` times.
async fn refused(server: &NatsServer, times: usize) {
    wait_for("the server to refuse", LIMIT, async || {
        let log = server.log();
        match log.matches("authentication error").count() {
            count if count >= times => Ok(()),
            _ => Err(log),
        }
    })
    .await;
}

/// The log of a backend that cannot connect, once it has a text.
async fn log_with(backend: &mut BackendProcess, text: &str) -> String {
    wait_for(&format!("{text:?} in the log"), LIMIT, async || {
        backend.process.check_alive()?;
        let log = backend.process.log();
        if log.contains(text) {
            Ok(log)
        } else {
            Err(log)
        }
    })
    .await
}

fn quiet(url: &str) -> Settings {
    let mut settings = Settings::fast(url);
    "info".clone_into(&mut settings.log);
    settings
}

fn path(path: &std::path::Path) -> String {
    path.display().to_string()
}

fn one_user(password: &str) -> String {
    format!("authorization {{ users = [ {{ user: worker, password: {password} }} ] }}")
}

#[tokio::test]
async fn a_rotated_password_is_read_again_without_a_restart() {
    let mut server = NatsServer::launch(&one_user("first"));
    let scratch = Scratch::new("password");
    let file = scratch.join("password");
    std::fs::write(&file, "first\n").unwrap();
    let connection = nats::connect(
        &NatsOptions {
            nats_user: Some("worker".to_owned()),
            nats_password_file: Some(file.clone()),
            ..options(&server.listens().await)
        },
        "test",
    )
    .await
    .unwrap();
    connected(&connection, 1).await;

    server.reconfigure(&one_user("second"));
    refused(&server, 1).await;
    std::fs::write(&file, "second\n").unwrap();

    connected(&connection, 2).await;
}

#[tokio::test]
async fn a_rotated_nkey_is_read_again_without_a_restart() {
    let (first, second) = (KeyPair::new_user(), KeyPair::new_user());
    let only = |pair: &KeyPair| {
        format!(
            "authorization {{ users = [ {{ nkey: {} }} ] }}",
            pair.public_key()
        )
    };
    let mut server = NatsServer::launch(&only(&first));
    let scratch = Scratch::new("nkey");
    let file = scratch.join("seed");
    std::fs::write(&file, format!("# a comment\n{}\n", first.seed().unwrap())).unwrap();
    let connection = nats::connect(
        &NatsOptions {
            nats_nkey: Some(file.clone()),
            ..options(&server.listens().await)
        },
        "test",
    )
    .await
    .unwrap();
    connected(&connection, 1).await;

    server.reconfigure(&only(&second));
    refused(&server, 1).await;
    std::fs::write(&file, second.seed().unwrap()).unwrap();

    connected(&connection, 2).await;
}

/// An operator with one account, and its users.
struct Operator {
    operator: KeyPair,
    account: KeyPair,
    system: KeyPair,
}

impl Operator {
    fn new() -> Self {
        Self {
            operator: KeyPair::new_operator(),
            account: KeyPair::new_account(),
            system: KeyPair::new_account(),
        }
    }

    /// The configuration of a server that trusts it.
    fn configuration(&self) -> String {
        let operator = jwt(
            &self.operator,
            &self.operator,
            None,
            json!({"type": "operator", "version": 2}),
        );
        let account = |pair: &KeyPair| {
            let limits = json!({
                "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
                "conn": -1, "leaf": -1
            });
            jwt(
                pair,
                &self.operator,
                None,
                json!({"type": "account", "version": 2, "limits": limits}),
            )
        };
        format!(
            "operator: \"{operator}\"\nsystem_account: {system}\nresolver: MEMORY\nresolver_preload {{\n {}: \"{}\"\n {system}: \"{}\"\n}}",
            self.account.public_key(),
            account(&self.account),
            account(&self.system),
            system = self.system.public_key(),
        )
    }

    /// A credentials file of a new user.
    fn credentials(&self, expires: Option<SystemTime>) -> String {
        let user = KeyPair::new_user();
        let claims = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
        format!(
            "-----BEGIN NATS USER JWT-----\n{}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
            jwt(&user, &self.account, expires, claims),
            user.seed().unwrap()
        )
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn jwt(subject: &KeyPair, issuer: &KeyPair, expires: Option<SystemTime>, nats: Value) -> String {
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let mut claims = json!({
        "jti": subject.public_key(), "iat": seconds(SystemTime::now()), "name": "test",
        "iss": issuer.public_key(), "sub": subject.public_key(), "nats": nats,
    });
    if let Some(expires) = expires {
        claims["exp"] = json!(seconds(expires));
    }

    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn a_jwt_that_expires_is_named_and_a_renewed_one_works_without_a_restart() {
    let operator = Operator::new();
    let mut server = NatsServer::launch(&operator.configuration());
    let scratch = Scratch::new("creds");
    let file = scratch.join("user.creds");
    let soon = SystemTime::now() + Duration::from_secs(3);
    std::fs::write(&file, operator.credentials(Some(soon))).unwrap();
    let settings = quiet(&server.listens().await).with("NATS_CREDS", path(&file));

    let mut backend = BackendProcess::launch(&settings);
    log_with(&mut backend, "connected to NATS").await;
    let log = log_with(&mut backend, "renew the file").await;
    assert!(log.contains("expired at 20"), "{log}");

    std::fs::write(&file, operator.credentials(None)).unwrap();

    wait_for("the second connection", LIMIT, async || {
        let log = backend.process.log();
        match log.matches("connected to NATS").count() {
            2.. => Ok(()),
            _ => Err(log),
        }
    })
    .await;
}

fn tls(server: &Certificate, authority: &Authority, more: &str) -> String {
    format!(
        "tls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{}\", {more} }}",
        server.certificate.display(),
        server.key.display(),
        authority.certificate().display()
    )
}

#[tokio::test]
async fn a_server_that_wants_client_certificates_gets_one() {
    let authority = Authority::new();
    let (server, client) = (
        authority.issue("IP:127.0.0.1"),
        authority.issue("DNS:client"),
    );
    let mut server = NatsServer::launch(&tls(&server, &authority, "verify: true"));
    let with_ca = quiet(&server.listens().await).with("NATS_CA", path(authority.certificate()));

    let mut without = BackendProcess::launch(&with_ca);
    log_with(&mut without, "Check NATS_CERT and NATS_KEY").await;

    let settings = with_ca
        .with("NATS_CERT", path(&client.certificate))
        .with("NATS_KEY", path(&client.key));
    let backend = BackendProcess::start(&settings).await;
    let _worker = WorkerProcess::start(&settings, "dummy", "w1").await;
    backend.api.wait_for_worker("w1", "AVAILABLE").await;
}

#[tokio::test]
async fn a_server_with_handshake_first_is_reached_and_the_setting_is_named() {
    let authority = Authority::new();
    let certificate = authority.issue("IP:127.0.0.1");
    let mut server = NatsServer::launch(&tls(&certificate, &authority, "handshake_first: true"));
    let settings = quiet(&server.listens().await).with("NATS_CA", path(authority.certificate()));

    let mut without = BackendProcess::launch(&settings);
    log_with(&mut without, "set NATS_TLS_FIRST=true").await;

    BackendProcess::start(&settings.with("NATS_TLS_FIRST", "true")).await;
}

#[tokio::test]
async fn the_log_says_what_is_wrong_with_the_servers_certificate() {
    let authority = Authority::new();
    let certificate = authority.issue("DNS:other.example");
    let mut server = NatsServer::launch(&tls(&certificate, &authority, ""));
    let url = server.listens().await;
    let ca = path(authority.certificate());

    let strangers = Authority::new();
    let mut unknown =
        BackendProcess::launch(&quiet(&url).with("NATS_CA", path(strangers.certificate())));
    log_with(&mut unknown, "signed by an authority that is not known").await;

    let mut wrong_name = BackendProcess::launch(&quiet(&url).with("NATS_CA", ca));
    log_with(&mut wrong_name, "is for another name").await;
}

#[tokio::test]
async fn the_log_says_why_there_is_no_connection() {
    let plain = NatsServer::start().await;
    let authority = Authority::new();
    let ca = path(authority.certificate());
    let downgraded = quiet(&plain.url()).with("NATS_CA", ca);
    let mut backend = BackendProcess::launch(&downgraded);
    log_with(&mut backend, "does not speak TLS").await;

    let nobody = quiet(&format!("nats://127.0.0.1:{}", free_port()));
    let mut backend = BackendProcess::launch(&nobody);
    log_with(&mut backend, "nobody listens at this address").await;

    let mut locked = NatsServer::launch(&one_user("right"));
    let settings = quiet(&locked.listens().await);
    let mut backend = BackendProcess::launch(&settings);
    log_with(&mut backend, "the server wants credentials").await;

    let wrong = settings
        .with("NATS_USER", "worker")
        .with("NATS_PASSWORD", "wrong");
    let mut backend = BackendProcess::launch(&wrong);
    log_with(&mut backend, "refuses the user and its password").await;
}

#[tokio::test]
async fn a_cause_that_stays_is_written_once() {
    let mut server = NatsServer::launch(&one_user("right"));
    let settings = quiet(&server.listens().await).with("NATS_TOKEN", "wrong-token");

    let mut backend = BackendProcess::launch(&settings);
    refused(&server, 6).await;
    let log = log_with(&mut backend, "refuses the token").await;

    assert_eq!(log.matches("cannot connect to NATS").count(), 1, "{log}");
    assert!(!log.contains("wrong-token"), "{log}");
    let bad: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(bad.is_empty(), "{bad:?}");
}

#[tokio::test]
async fn user_and_password_in_the_address_are_used_and_never_shown() {
    let mut server = NatsServer::launch(&one_user("hunter2"));
    let url = server.listens().await.replace("//", "//worker:hunter%32@");
    let mut settings = quiet(&url);
    "trace,async_nats=trace,async_nats::connector=trace".clone_into(&mut settings.log);

    let backend = BackendProcess::start(&settings).await;

    let log = backend.process.log();
    assert!(log.contains("attempting connection"), "{log}");
    assert!(!log.contains("hunter"), "{log}");
}

#[tokio::test]
async fn settings_that_cannot_work_end_the_program_with_a_sentence() {
    let scratch = Scratch::new("settings");
    let empty = scratch.join("empty");
    std::fs::write(&empty, "\n").unwrap();
    let (empty, missing) = (path(&empty), path(&scratch.join("missing")));
    let authority = Authority::new();
    let certificate = path(&authority.issue("DNS:client").certificate);

    let cases: &[(&[(&str, &str)], &str)] = &[
        (
            &[
                ("NATS_TOKEN", "a"),
                ("NATS_USER", "b"),
                ("NATS_PASSWORD", "c"),
            ],
            "NATS_USER and NATS_TOKEN are both set; unset one of them",
        ),
        (
            &[("NATS_CREDS", &missing), ("NATS_NKEY", &missing)],
            "NATS_CREDS and NATS_NKEY are both set",
        ),
        (
            &[
                ("NATS_USER", "b"),
                ("NATS_PASSWORD", "c"),
                ("NATS_PASSWORD_FILE", &empty),
            ],
            "NATS_PASSWORD and NATS_PASSWORD_FILE are both set",
        ),
        (
            &[("NATS_URL", "nats://a:b@127.0.0.1"), ("NATS_TOKEN", "c")],
            "NATS_TOKEN and a user or token in NATS_URL are both set",
        ),
        (
            &[("NATS_USER", "b"), ("NATS_PASSWORD", "")],
            "NATS_USER is set without NATS_PASSWORD or NATS_PASSWORD_FILE",
        ),
        (
            &[("NATS_CERT", &certificate)],
            "NATS_CERT is set without NATS_KEY",
        ),
        (
            &[("NATS_KEY", &certificate)],
            "NATS_KEY is set without NATS_CERT",
        ),
        (
            &[("NATS_CERT", &certificate), ("NATS_KEY", &certificate)],
            "holds no private key",
        ),
        (&[("NATS_CA", &empty)], "holds no certificate"),
        (&[("NATS_CREDS", &missing)], "missing: No such file"),
        (&[("NATS_CREDS", &empty)], "holds no JWT with its seed"),
        (&[("NATS_NKEY", &empty)], "holds no nkey seed"),
        (
            &[("NATS_USER", "b"), ("NATS_PASSWORD_FILE", &empty)],
            "holds no password",
        ),
        (
            &[("NATS_URL", "http://127.0.0.1")],
            "write nats://host:4222",
        ),
        (
            &[("NATS_INBOX_PREFIX", "_INBOX.>")],
            "must be tokens of a subject",
        ),
    ];

    for (environment, sentence) in cases {
        let mut settings = quiet("nats://127.0.0.1");
        for (name, value) in *environment {
            settings = settings.with(name, *value);
        }
        let mut backend = BackendProcess::launch(&settings);

        let status = backend.process.wait(LIMIT).await;

        let log = backend.process.log();
        assert!(!status.success(), "{environment:?}");
        assert!(log.contains(sentence), "{environment:?}: {log}");
    }
}

#[tokio::test]
async fn credentials_without_tls_cause_a_warning_except_on_this_machine() {
    let text = "go over the network without TLS";
    let far = quiet("nats://192.0.2.1:4222").with("NATS_TOKEN", "a");
    log_with(&mut BackendProcess::launch(&far), text).await;

    for settings in [
        quiet("tls://192.0.2.1:4222").with("NATS_TOKEN", "a"),
        quiet("nats://192.0.2.1:4222"),
        quiet("nats://localhost:1,nats://127.0.0.1:1,nats://[::1]:1").with("NATS_TOKEN", "a"),
    ] {
        let mut backend = BackendProcess::launch(&settings);
        let log = log_with(&mut backend, "connecting to NATS").await;
        assert!(!log.contains(text), "{log}");
    }
}

#[tokio::test]
async fn each_user_can_have_inboxes_that_others_cannot_read() {
    let user = |name: &str| {
        format!(
            "{{ user: {name}, password: secret, permissions: {{ subscribe: {{ allow: [\"_INBOX_{name}.>\", \"ktrdr.>\", \"$KV.KTRDR_WORKER_TYPES.>\", \"$JS.EVENT.>\", \"$SRV.>\"] }}, publish: \">\" }} }}"
        )
    };
    let mut server = NatsServer::launch(&format!(
        "authorization {{ users = [ {}, {} ] }}",
        user("backend"),
        user("worker")
    ));
    let url = server.listens().await;
    let settings = |name: &str| {
        Settings::fast(&url)
            .with("NATS_USER", name)
            .with("NATS_PASSWORD", "secret")
            .with("NATS_INBOX_PREFIX", format!("_INBOX_{name}"))
    };

    let backend = BackendProcess::start(&settings("backend")).await;
    let worker = WorkerProcess::start(&settings("worker"), "dummy", "w1").await;
    backend.api.wait_for_worker("w1", "AVAILABLE").await;
    let id = backend.api.started("dummy", &json!({"steps": 3})).await;
    backend.api.wait_for_status(&id, "completed").await;

    // A direct start takes the slot, so the worker takes its pull back.
    worker
        .api
        .post("/dummy/start", &json!({"task_id": "direct", "steps": 3}))
        .await
        .expect(200);
    backend.api.wait_for_status("direct", "completed").await;
    let id = backend.api.started("dummy", &json!({"steps": 3})).await;
    backend.api.wait_for_status(&id, "completed").await;
    let log = server.log();
    assert!(!log.contains("Violation"), "{log}");
}

//! Signed starts: a worker with `KTRDR_VERIFY_KEYS` runs only what a trusted backend signed.
//!
//! The attacker here may publish everything that a backend publishes, and has no key.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, SystemTime};

use async_nats::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::signed_start::{KEY, SIGNATURE, TIME, statement};
use ktrdr_protocol::time::Timestamp;
use ktrdr_tests::process::program;
use ktrdr_tests::{
    BackendProcess, Bus, Client, LIMIT, NatsServer, Scratch, Settings, Stack, WorkerProcess,
    wait_for,
};
use nkeys::KeyPair;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const ANY: &str = "ktrdr.start.dummy.any";

/// A signing key in a file.
struct SigningKey {
    scratch: Scratch,
    public: String,
}

impl SigningKey {
    fn new() -> Self {
        let scratch = Scratch::new("signing-key");
        let made = new_key(&scratch.join("seed"));
        assert!(made.status.success(), "{made:?}");
        let public = String::from_utf8(made.stdout).unwrap().trim().to_owned();
        Self { scratch, public }
    }

    fn file(&self) -> PathBuf {
        self.scratch.join("seed")
    }

    fn pair(&self) -> KeyPair {
        let seed = std::fs::read_to_string(self.file()).unwrap();
        KeyPair::from_seed(seed.trim()).unwrap()
    }

    /// Settings of backends that sign with it, and of workers that trust it.
    fn settings(&self, settings: Settings) -> Settings {
        settings
            .with("KTRDR_SIGNING_KEY", self.file().display().to_string())
            .with("KTRDR_VERIFY_KEYS", &self.public)
    }

    /// The headers of a message that it signed at this time.
    fn headers(&self, subject: &str, id: &str, body: &[u8], at: SystemTime) -> HeaderMap {
        let at = at.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let at = Timestamp::from_millis(i64::try_from(at.as_millis()).unwrap());
        let id = OperationId::new(id).unwrap();
        let text = statement(subject, &id, at, &Sha256::digest(body).into());
        let signature = self.pair().sign(text.as_bytes()).unwrap();

        let mut headers = HeaderMap::new();
        headers.insert(SIGNATURE, URL_SAFE_NO_PAD.encode(signature));
        headers.insert(KEY, self.public.as_str());
        headers.insert(TIME, at.as_millis().to_string());
        headers
    }
}

/// `ktrdr-backend signing-key new`.
fn new_key(file: &Path) -> Output {
    let mut command = Command::new(program("ktrdr-backend"));
    command.args(["signing-key", "new"]).arg(file);
    command.output().unwrap()
}

async fn stack(key: &SigningKey) -> Stack {
    Stack::start_with(|settings| key.settings(settings)).await
}

fn start_request(id: &str, parameters: Value) -> Vec<u8> {
    json!({
        "operation_id": id, "operation_type": "dummy", "parameters": parameters,
        "created_at": "2025-11-10T10:30:00Z",
    })
    .to_string()
    .into_bytes()
}

/// Stores a message as an attacker may.
async fn store(bus: &Bus, subject: &str, headers: HeaderMap, body: &[u8]) {
    let stored = bus
        .jetstream
        .publish_with_headers(subject.to_owned(), headers, body.to_vec().into())
        .await
        .unwrap();
    assert!(!stored.await.unwrap().duplicate, "a duplicate");
}

/// A message of the stream with its headers.
async fn stored_start(bus: &Bus, subject: &str) -> async_nats::jetstream::message::StreamMessage {
    let stream = bus.jetstream.get_stream(bus.names.stream()).await.unwrap();
    stream
        .get_last_raw_message_by_subject(subject)
        .await
        .unwrap()
}

async fn refusals(worker: &Client) -> u64 {
    let page = worker.get("/metrics").await.expect(200).text;
    let line = page
        .lines()
        .find(|line| line.starts_with("ktrdr_worker_refused_starts_total{"));
    line.and_then(|line| line.rsplit_once(' '))
        .map_or(0, |(_, value)| value.parse().unwrap())
}

async fn wait_for_refusals(worker: &Client, at_least: u64) {
    wait_for("the worker to refuse", LIMIT, async || {
        match refusals(worker).await {
            count if count >= at_least => Ok(()),
            count => Err(count.to_string()),
        }
    })
    .await;
}

#[test]
fn a_new_key_is_for_its_owner_only_and_replaces_none() {
    let key = SigningKey::new();
    let mode = std::fs::metadata(key.file()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(key.pair().public_key(), key.public);

    let again = new_key(&key.file());

    assert!(!again.status.success());
    assert!(again.stdout.is_empty());
    assert_eq!(key.pair().public_key(), key.public);
}

#[tokio::test]
async fn what_a_backend_signed_is_run_also_by_the_worker_that_takes_over() {
    let key = SigningKey::new();
    let stack = stack(&key).await;
    let mut first = stack.worker("dummy", "w1").await;
    let id = stack
        .api()
        .running("dummy", &json!({"steps": 20, "step_ms": 50}))
        .await;

    first.process.kill();
    let second = stack.worker("dummy", "w2").await;

    let done = stack.api().wait_for_status(&id, "completed").await;
    assert_eq!(done["worker_id"], "w2");

    let failed = json!({"steps": 1, "fail_at_step": 1});
    let failed = stack.api().started("dummy", &failed).await;
    stack.api().wait_for_status(&failed, "failed").await;
    let again = stack
        .api()
        .post(&format!("/api/v1/operations/{failed}/retry"), &json!({}))
        .await
        .expect(202);
    let again = again.json["operation_id"].as_str().unwrap().to_owned();
    stack.api().wait_for_status(&again, "failed").await;

    assert_eq!(refusals(&second.api).await, 0);
    stack.bus.settled().await;
}

#[tokio::test]
async fn access_to_the_bus_alone_starts_nothing() {
    let key = SigningKey::new();
    let stack = stack(&key).await;
    let worker = stack.worker("dummy", "w1").await;
    let (stranger, now) = (SigningKey::new(), SystemTime::now());
    let hours = |count: u64| Duration::from_secs(count * 3_600);

    let body = |id: &str| start_request(id, json!({"steps": 0}));
    let unsigned = HeaderMap::new();
    store(&stack.bus, ANY, unsigned, &body("unsigned")).await;
    let other_id = key.headers(ANY, "other", &body("moved"), now);
    store(&stack.bus, ANY, other_id, &body("moved")).await;
    let other_queue = key.headers("ktrdr.start.dummy.gpu", "queue", &body("queue"), now);
    store(&stack.bus, ANY, other_queue, &body("queue")).await;
    let other_tenant = key.headers("acme.start.dummy.any", "tenant", &body("tenant"), now);
    store(&stack.bus, ANY, other_tenant, &body("tenant")).await;
    let other_body = key.headers(ANY, "changed", b"{}", now);
    store(&stack.bus, ANY, other_body, &body("changed")).await;
    let old = key.headers(ANY, "old", &body("old"), now - hours(2));
    store(&stack.bus, ANY, old, &body("old")).await;
    let future = key.headers(ANY, "future", &body("future"), now + hours(2));
    store(&stack.bus, ANY, future, &body("future")).await;
    let mut borrowed = stranger.headers(ANY, "borrowed", &body("borrowed"), now);
    borrowed.insert(KEY, key.public.as_str());
    store(&stack.bus, ANY, borrowed, &body("borrowed")).await;

    for id in [
        "unsigned", "moved", "queue", "tenant", "changed", "old", "future", "borrowed",
    ] {
        let failed = stack.api().wait_for_status(id, "failed").await;
        assert_eq!(failed["error"]["code"], "not_signed", "{failed}");
        assert_eq!(stack.bus.event_names("dummy", id).await, ["failed"]);
    }
    wait_for_refusals(&worker.api, 8).await;
    assert!(
        worker
            .process
            .log()
            .contains("refused to run a start request")
    );
    stack.bus.settled().await;

    // Nor does a click on "Retry" make the backend sign what an attacker chose.
    for way in ["retry", "resume"] {
        stack
            .api()
            .post(&format!("/api/v1/operations/unsigned/{way}"), &json!({}))
            .await
            .expect_problem(409, "not_repeatable");
    }
}

#[tokio::test]
async fn copies_beside_a_genuine_request_leave_its_operation_alone() {
    let key = SigningKey::new();
    let stack = stack(&key).await;
    let small = WorkerProcess::start(
        &stack
            .settings
            .clone()
            .with("WORKER_CAPABILITIES", r#"{"cores":1}"#),
        "dummy",
        "small",
    )
    .await;
    stack.api().wait_for_worker("small", "AVAILABLE").await;
    let genuine = json!({
        "task_id": "genuine", "steps": 3, "execution": {"requirements": {"cores": 32}}
    });
    stack.api().start("dummy", &genuine).await.expect(202);

    // The copies come to a worker first: it cannot run the genuine request.
    let forged = start_request("genuine", json!({"steps": 1}));
    store(&stack.bus, ANY, HeaderMap::new(), &forged).await;
    wait_for_refusals(&small.api, 2).await;

    let waits = stack.api().operation("genuine").await.expect(200);
    assert_eq!(waits.at("/data/status"), "pending", "{waits}");
    assert!(stack.bus.events("dummy", "genuine").await.is_empty());

    let large = stack
        .settings
        .clone()
        .with("WORKER_CAPABILITIES", r#"{"cores":64}"#);
    let _large = WorkerProcess::start(&large, "dummy", "large").await;
    let done = stack.api().wait_for_status("genuine", "completed").await;

    assert_eq!(done["result"]["steps"], 3);
    let events = stack.bus.event_names("dummy", "genuine").await;
    assert_eq!(events, ["started", "completed"]);
    // The worker reads that the operation has ended, and drops the copy.
    stack.bus.settled().await;
}

#[tokio::test]
async fn a_copy_of_a_signed_message_runs_nothing_again() {
    let key = SigningKey::new();
    let stack = stack(&key).await;
    let worker = stack.worker("dummy", "w1").await;
    let id = stack.api().started("dummy", &json!({"steps": 1})).await;
    stack.api().wait_for_status(&id, "completed").await;

    let genuine = stored_start(&stack.bus, ANY).await;
    let mut headers = HeaderMap::new();
    for name in [SIGNATURE, KEY, TIME] {
        headers.insert(name, genuine.headers.get(name).unwrap().as_str());
    }
    store(&stack.bus, ANY, headers, &genuine.payload).await;
    stack.bus.settled().await;

    let events = stack.bus.event_names("dummy", &id).await;
    assert_eq!(events, ["started", "completed"]);
    assert_eq!(refusals(&worker.api).await, 0);
}

#[tokio::test]
async fn a_worker_runs_what_a_new_key_signed_once_its_file_has_it() {
    let (old, new) = (SigningKey::new(), SigningKey::new());
    let scratch = Scratch::new("keys");
    let file = scratch.join("keys");
    std::fs::write(&file, format!("# backends\n{}\n", old.public)).unwrap();
    let nats = NatsServer::start().await;
    let base = Settings::fast(nats.url());
    let trusting = base
        .clone()
        .with("KTRDR_VERIFY_KEYS", file.display().to_string());
    let backend =
        BackendProcess::start(&base.with("KTRDR_SIGNING_KEY", new.file().display().to_string()))
            .await;
    let worker = WorkerProcess::start(&trusting, "dummy", "w1").await;
    backend.api.wait_for_worker("w1", "AVAILABLE").await;
    let id = backend.api.started("dummy", &json!({"steps": 1})).await;
    wait_for_refusals(&worker.api, 1).await;
    let waits = backend.api.operation(&id).await.expect(200);
    assert_eq!(waits.at("/data/status"), "pending", "{waits}");

    // A file that cannot be used changes nothing, and does not stop the worker.
    std::fs::write(&file, "nonsense").unwrap();
    wait_for_refusals(&worker.api, 2).await;
    std::fs::write(&file, format!("{}\n{} # new\n", old.public, new.public)).unwrap();

    backend.api.wait_for_status(&id, "completed").await;
}

#[tokio::test]
async fn direct_starts_stay_allowed_and_a_direct_message_on_the_bus_starts_nothing() {
    let key = SigningKey::new();
    let stack = stack(&key).await;
    let worker = stack.worker("dummy", "w1").await;

    let forged = start_request("forged", json!({"steps": 0}));
    store(
        &stack.bus,
        "ktrdr.start.dummy.direct",
        HeaderMap::new(),
        &forged,
    )
    .await;
    worker
        .api
        .post("/dummy/start", &json!({"task_id": "direct", "steps": 1}))
        .await
        .expect(200);

    stack.api().wait_for_status("direct", "completed").await;
    assert!(stack.bus.events("dummy", "forged").await.is_empty());
}

#[tokio::test]
async fn a_worker_without_keys_runs_everything_as_before() {
    let key = SigningKey::new();
    let nats = NatsServer::start().await;
    let base = Settings::fast(nats.url());
    let backend = BackendProcess::start(
        &base
            .clone()
            .with("KTRDR_SIGNING_KEY", key.file().display().to_string()),
    )
    .await;
    let _worker = WorkerProcess::start(&base, "dummy", "w1").await;
    backend.api.wait_for_worker("w1", "AVAILABLE").await;

    let unsigned = start_request("unsigned", json!({"steps": 0}));
    store(&nats.bus().await, ANY, HeaderMap::new(), &unsigned).await;
    let signed = backend.api.started("dummy", &json!({"steps": 1})).await;

    backend.api.wait_for_status("unsigned", "completed").await;
    backend.api.wait_for_status(&signed, "completed").await;
}

#[tokio::test]
async fn keys_that_cannot_be_used_end_the_program_with_a_sentence() {
    let scratch = Scratch::new("user");
    let user = scratch.join("user");
    let seed = KeyPair::new_user().seed().unwrap();
    std::fs::write(&user, &seed).unwrap();
    let base = Settings::fast("nats://127.0.0.1:1");

    let settings = base
        .clone()
        .with("KTRDR_SIGNING_KEY", user.display().to_string());
    let mut backend = BackendProcess::launch(&settings);
    assert!(!backend.process.wait(LIMIT).await.success());
    let log = backend.process.log();
    assert!(log.contains("holds no seed of a signing key"), "{log}");

    for (setting, sentence) in [
        (
            KeyPair::new_user().public_key(),
            "something that is not the public key of a signing key",
        ),
        (String::new(), "has no public key"),
        (
            user.display().to_string(),
            "something that is not the public key of a signing key",
        ),
        ("/nowhere/keys".to_owned(), "cannot read /nowhere/keys"),
    ] {
        let settings = base.clone().with("KTRDR_VERIFY_KEYS", setting);
        let mut worker = WorkerProcess::launch(&settings, "dummy", "w1");
        assert!(!worker.process.wait(LIMIT).await.success());
        let log = worker.process.log();
        assert!(log.contains(sentence), "{log}");
        assert!(!log.contains(seed.as_str()), "{log}");
    }
}

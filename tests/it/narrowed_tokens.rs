//! Tokens that see only some worker types: of the others no name, id, count or text may reach them,
//! whatever they ask.
//!
//! Everything of the hidden worker type has the word "secret" in it, so a test can look for that.

use ktrdr_tests::events::EventStream;
use ktrdr_tests::local_worker::LocalWorker;
use ktrdr_tests::{Answer, Client, LIMIT, Settings, Stack, TokensFile, WorkerProcess, wait_for};
use ktrdr_worker::{Context, Engine, OperationError, Progress};
use reqwest::Method;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::requesters::{askers, entry};

/// The engine of the worker type that narrowed tokens must not see.
struct Secret;

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default)]
struct SecretRequest {
    /// A secret parameter.
    secret_note: String,
    /// Whether to fail.
    fails: bool,
    /// Whether to run until cancelled.
    waits: bool,
    /// The size of the result, in bytes.
    bytes: usize,
}

#[derive(Debug, Serialize, JsonSchema)]
struct SecretOutput {
    secret: String,
}

impl Engine for Secret {
    const NAME: &'static str = "secret_type";
    const DESCRIPTION: &'static str = "Does a secret thing.";
    type Request = SecretRequest;
    type Output = SecretOutput;

    async fn run(
        &self,
        ctx: Context,
        request: SecretRequest,
    ) -> Result<SecretOutput, OperationError> {
        ctx.progress(Progress::new(50.0).step("a secret step"));
        ctx.metric("secret_metric", 1.0);
        if request.waits {
            ctx.cancelled().await;
            return Err(OperationError::Cancelled);
        }
        if request.fails {
            return Err(OperationError::failed("a secret failure"));
        }
        Ok(SecretOutput {
            secret: "secret".repeat(request.bytes.max(6) / 6),
        })
    }
}

const TYPE: &str = "secret_type";
const DOMAIN: &str = "secret-type";

/// What a client sees when it asks for something that does not exist.
const NOBODY: &str = "never-was-here";

/// Everything but what no narrowed token may have.
pub(super) const ALL: &str = r#"scopes = ["read", "start", "cancel"]"#;

/// The same for one worker type.
fn only(worker_type: &str) -> String {
    format!("{ALL}\ntypes = [{worker_type:?}]")
}

/// A backend with tokens, a worker of a type that everybody sees, and one of a hidden type.
pub(super) struct Parties {
    pub(super) stack: Stack,
    pub(super) tokens: TokensFile,
    /// Sees and may do everything.
    pub(super) admin: Client,
    /// Sees only `dummy`.
    narrow: Client,
    pub(super) visible: WorkerProcess,
    hidden: LocalWorker,
}

impl Parties {
    pub(super) async fn meet() -> Self {
        let tokens = TokensFile::new();
        let narrow = tokens.set("narrow", &only("dummy"));
        let stack = Stack::start_with(|settings| Settings {
            cancel_grace: LIMIT,
            ..settings.tokens(&tokens)
        })
        .await;
        let visible = stack.worker("dummy", "visible-worker").await;
        let two = ["--concurrency", "2"];
        let hidden = stack.local_worker(Secret, "secret-worker", &two).await;

        Self {
            admin: stack.api().clone(),
            narrow: stack.api().with_token(&narrow),
            stack,
            tokens,
            visible,
            hidden,
        }
    }

    /// A client with a new token.
    pub(super) async fn client(&self, name: &str, rest: &str) -> Client {
        let client = self.admin.with_token(&self.tokens.set(name, rest));
        wait_for_token(&client, true).await;
        client
    }

    /// Removes a token, and waits until the backend refuses it.
    pub(super) async fn revoke(&self, name: &str, client: &Client) {
        self.tokens.remove(name);
        wait_for_token(client, false).await;
    }

    /// One operation of the hidden type in each state; returns their ids.
    async fn secrets(&self) -> Vec<String> {
        let gpu = json!({"requirements": {"gpu": true}});
        let bodies = [
            (
                json!({"task_id": "secret-completed", "secret_note": "x"}),
                "completed",
            ),
            (
                json!({"task_id": "secret-large", "bytes": 400_000}),
                "completed",
            ),
            (json!({"task_id": "secret-failed", "fails": true}), "failed"),
            (
                json!({"task_id": "secret-pending", "execution": gpu}),
                "pending",
            ),
            (
                json!({"task_id": "secret-running", "waits": true}),
                "running",
            ),
        ];
        let mut ids = Vec::new();
        for (body, status) in bodies {
            let id = self.admin.started(DOMAIN, &body).await;
            self.admin.wait_for_status(&id, status).await;
            ids.push(id);
        }
        ids
    }
}

/// Waits until the server accepts the token of this client, or no longer does.
async fn wait_for_token(client: &Client, is_accepted: bool) {
    wait_for("the tokens to be read again", LIMIT, async || {
        let answer = client.try_get("/api/v1/operations?limit=1").await?;
        if (answer.status != 401) == is_accepted {
            Ok(())
        } else {
            Err(answer.to_string())
        }
    })
    .await;
}

/// Fails when an answer holds a word of the hidden type, beside what the client sent itself.
#[track_caller]
fn assert_says_nothing(answer: &Answer, sent: &[&str]) {
    let mut all = format!("{answer}\n{:?}", answer.headers);
    for sent in sent {
        all = all.replace(sent, "");
    }
    assert!(!all.to_lowercase().contains("secret"), "{answer}");
}

/// The routes of an OpenAPI document: method and path.
fn routes(document: &Value) -> Vec<(Method, String)> {
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_uppercase().parse().unwrap();
            routes.push((method, path.clone()));
        }
    }
    routes
}

async fn ask(api: &Client, method: &Method, path: &str) -> Answer {
    let request = api.request(method.clone(), path);
    let request = if method == Method::POST {
        request.json(&json!({}))
    } else {
        request
    };
    api.send(request).await
}

/// Every route, with everything of the hidden type in its path: the answers are those to something
/// that does not exist.
#[tokio::test]
async fn every_route_answers_as_if_the_other_type_did_not_exist() {
    let parties = Parties::meet().await;
    let (admin, narrow) = (&parties.admin, &parties.narrow);
    let mut names = parties.secrets().await;
    names.extend(["secret-worker", DOMAIN].map(str::to_owned));
    let document = admin.get("/openapi.json").await.expect(200);
    assert!(document.text.contains(DOMAIN), "the administrator sees it");

    let mut asked = 0;
    for (method, path) in routes(&document.json) {
        if path == "/api/v1/events" {
            continue;
        }
        if !path.contains('{') {
            let answer = ask(narrow, &method, &path).await;
            assert_says_nothing(&answer, &[&path, DOMAIN]);
            asked += 1;
            continue;
        }
        let (before, after) = path.split_once('{').unwrap();
        let after = after.split_once('}').unwrap().1;
        let missing = ask(narrow, &method, &format!("{before}{NOBODY}{after}")).await;
        for name in &names {
            let answer = ask(narrow, &method, &format!("{before}{name}{after}")).await;

            assert_says_nothing(&answer, &[name]);
            let shown = answer.text.replace(name, NOBODY);
            assert_eq!(
                (answer.status, &shown),
                (missing.status, &missing.text),
                "{method} {path} with {name}"
            );
            asked += 1;
        }
    }

    assert!(asked > 90, "{asked}");
    // Nothing was changed, and the administrator still sees everything.
    for (id, status) in [("secret-pending", "pending"), ("secret-running", "running")] {
        let operation = admin.operation(id).await.expect(200);
        assert_eq!(operation.at("/data/status"), status);
        assert!(operation.at("/data/cancel_requested_at").is_null());
    }
}

#[tokio::test]
async fn lists_totals_and_figures_are_those_of_the_visible_types() {
    let parties = Parties::meet().await;
    let (admin, narrow) = (&parties.admin, &parties.narrow);
    let secrets = parties.secrets().await.len();
    let gpu = json!({"requirements": {"gpu": true}});
    admin
        .started("dummy", &json!({"task_id": "seen", "execution": gpu}))
        .await;

    let paths = [
        "/api/v1/operations",
        "/api/v1/operations?limit=1",
        "/api/v1/operations?status=running",
        "/api/v1/operations?status=pending&offset=0",
        "/api/v1/workers",
        "/api/v1/worker-types",
        "/api/v1/stats",
        "/openapi.json",
        "/health",
        "/ready",
    ];
    for path in paths {
        let answer = narrow.get(path).await.expect(200);
        assert_says_nothing(&answer, &[]);
    }

    // The hidden type and one that never was are refused alike.
    for list in ["operations?operation_type=", "workers?worker_type="] {
        let of_type = |name: &str| format!("/api/v1/{list}{name}");
        let hidden = narrow.get(&of_type("secret_type")).await;
        let missing = narrow.get(&of_type(NOBODY)).await;

        let hidden = hidden.expect_problem(400, "invalid_query");
        assert_eq!(hidden.text.replace("secret_type", NOBODY), missing.text);
    }

    let total = async |api: &Client, query: &str| {
        let list = api.operations(query).await.expect(200);
        let shown = list.at("/data/operations").as_array().unwrap().len();
        (list.at("/data/total").as_u64().unwrap(), shown as u64)
    };
    assert_eq!(total(narrow, "").await, (1, 1));
    assert_eq!(total(narrow, "status=pending").await, (1, 1));
    assert_eq!(total(narrow, "status=running").await, (0, 0));
    assert_eq!(total(narrow, "operation_type=dummy").await, (1, 1));
    assert_eq!(total(narrow, "offset=1").await, (1, 0));
    assert_eq!(total(admin, "").await.0, secrets as u64 + 1);

    let stats = narrow.get("/api/v1/stats").await.expect(200);
    assert_eq!(stats.at("/data/operations/total"), 1);
    assert_eq!(stats.at("/data/operations/failed"), 0);
    assert_eq!(stats.at("/data/by_type").as_array().unwrap().len(), 1);
    let created = |stats: &Answer| -> u64 {
        let minutes = stats.at("/data/minutes").as_array().unwrap();
        let created = minutes.iter().map(|minute| minute["created"].as_u64());
        created.map(Option::unwrap).sum()
    };
    assert_eq!(created(&stats), 1);
    let workers = stats.at("/data/workers");
    assert_eq!(workers["AVAILABLE"], 1);
    assert_eq!(workers["BUSY"], 0);
    let stats = admin.get("/api/v1/stats").await.expect(200);
    assert_eq!(created(&stats), secrets as u64 + 1);

    let health = narrow.get("/health").await.expect(200);
    assert_eq!(health.at("/projection/operations"), &Value::Null);
    let queued = narrow.operation("seen").await.expect(200);
    assert_eq!(queued.at("/data/queue_position"), 1);
}

#[tokio::test]
async fn a_token_of_two_types_sees_both_in_one_list() {
    let parties = Parties::meet().await;
    let types = format!("{ALL}\ntypes = [{TYPE:?}, \"dummy\"]");
    let both = parties.client("both", &types).await;
    let gpu = json!({"requirements": {"gpu": true}});
    for number in 0..6 {
        let domain = if number % 2 == 0 { "dummy" } else { DOMAIN };
        let body = json!({"task_id": format!("both-{number}"), "execution": gpu});
        parties.admin.started(domain, &body).await;
    }

    let page = both.operations("limit=3&offset=1").await.expect(200);

    assert_eq!(page.at("/data/total"), 6);
    let ids: Vec<&str> = page
        .at("/data/operations")
        .as_array()
        .unwrap()
        .iter()
        .map(|operation| operation["operation_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["both-4", "both-3", "both-2"]);
}

#[tokio::test]
async fn refused_starts_name_no_other_type() {
    let parties = Parties::meet().await;
    let narrow = &parties.narrow;
    parties.secrets().await;

    let unknown = narrow.start(DOMAIN, &json!({})).await;
    let unknown = unknown.expect_problem(404, "unknown_domain");
    assert_eq!(unknown.at("/known_domains"), &json!(["dummy"]));
    assert_says_nothing(&unknown, &[DOMAIN]);

    let id = "secret-completed";
    let taken = narrow.start("dummy", &json!({"task_id": id})).await;
    let taken = taken.expect_problem(409, "task_id_conflict");
    assert_eq!(taken.at("/operation_type"), &Value::Null);
    assert_says_nothing(&taken, &[id]);

    let wrong = narrow.start("dummy", &json!({"stepz": 1})).await;
    assert_says_nothing(&wrong.expect(422), &[]);
}

/// A domain that belongs to a hidden type: the owner's name is hidden, too.
#[tokio::test]
async fn the_owner_of_a_domain_is_not_named() {
    let parties = Parties::meet().await;
    let bucket = parties.stack.bus.names.worker_types_bucket();
    let bucket = parties.stack.bus.jetstream.get_key_value(bucket).await;
    let claimant = json!({
        "worker_type": "claimant", "domain": DOMAIN, "description": "", "version": "1",
        "request_schema": {}, "result_schema": {},
    });
    bucket
        .unwrap()
        .put("claimant", claimant.to_string().into())
        .await
        .unwrap();
    let api = parties.client("claimant", &only("claimant")).await;

    let listed = wait_for("the worker type", LIMIT, async || {
        let types = api.try_get("/api/v1/worker-types").await?;
        match types.at("/data/worker_types/0/domain_owner").is_null() {
            false => Ok(types),
            true => Err(types.to_string()),
        }
    })
    .await;

    assert_eq!(listed.at("/data/worker_types/0/domain_owner"), "(hidden)");
    assert_says_nothing(&listed, &[DOMAIN]);
    let document = api.get("/openapi.json").await.expect(200);
    assert_says_nothing(&document, &[]);
    let start = api.start(DOMAIN, &json!({})).await;
    assert_says_nothing(&start.expect_problem(404, "unknown_domain"), &[DOMAIN]);
}

/// Reads events until this operation has completed. Fails when one is about the hidden type.
async fn read_until_completed(events: &mut EventStream, id: &str) -> usize {
    let mut seen = 0;
    loop {
        let event = events.next().await.expect("a stream that goes on");
        let text = format!("{event:?}");
        assert!(!text.to_lowercase().contains("secret"), "{text}");
        seen += 1;
        if event.data["operation_id"] == id && event.data["status"] == "completed" {
            return seen;
        }
    }
}

#[tokio::test]
async fn live_events_and_missed_ones_are_those_of_the_visible_types() {
    let parties = Parties::meet().await;
    let (admin, narrow) = (&parties.admin, &parties.narrow);
    let mut live = EventStream::open(narrow, "/api/v1/events", None).await;
    let filtered = "/api/v1/events?operation_type=secret_type&worker_type=secret_type";
    let mut filtered = EventStream::open(narrow, filtered, None).await;
    let mut everything = EventStream::open(admin, "/api/v1/events", None).await;
    parties.secrets().await;
    admin.cancel("secret-running").await.expect(200);
    admin.wait_for_status("secret-running", "cancelled").await;

    let body = json!({"task_id": "seen", "steps": 3, "step_ms": 10});
    narrow.started("dummy", &body).await;

    read_until_completed(&mut live, "seen").await;
    let mut secrets = 0;
    everything
        .until("the end of what is visible", |event| {
            secrets += usize::from(event.data.to_string().contains("secret"));
            event.data["operation_id"] == "seen" && event.data["status"] == "completed"
        })
        .await;
    assert!(secrets > 5, "{secrets}");

    let again = parties.client("again", &only("dummy")).await;

    // A worker of the hidden type leaves; the client that asked for such events hears nothing.
    parties.hidden.stop().await;
    everything
        .until("the farewell", |event| {
            event.name == "worker" && event.data["removed"] == true
        })
        .await;
    narrow
        .started("dummy", &json!({"task_id": "seen-2", "steps": 0}))
        .await;
    read_until_completed(&mut live, "seen-2").await;
    parties.tokens.remove("narrow");
    assert!(filtered.next().await.is_none(), "nothing but the end");

    let mut missed = EventStream::open(&again, "/api/v1/events", Some(1)).await;
    assert!(read_until_completed(&mut missed, "seen-2").await >= 2);
}

/// A worker of another type answers a narrowed token as if nothing was there.
#[tokio::test]
async fn a_worker_of_another_type_has_no_routes() {
    let tokens = TokensFile::new();
    let narrow = tokens.set("narrow", &only("training"));
    let own = tokens.set("own", &only("dummy"));
    let stack = Stack::start_with(|settings| settings.tokens(&tokens)).await;
    let worker = stack.worker("dummy", "w1").await;
    let admin = &worker.api;
    let (narrow, own) = (admin.with_token(&narrow), admin.with_token(&own));
    let body = json!({"task_id": "hers", "steps": 100_000, "step_ms": 20});
    own.post("/dummy/start", &body).await.expect(200);
    let document = admin.get("/openapi.json").await.expect(200);

    let mut asked = 0;
    for (method, path) in routes(&document.json) {
        if path == "/health" {
            continue;
        }
        let path = path.replace("{id}", "hers");
        for method in [method, Method::PUT] {
            let answer = ask(&narrow, &method, &path).await;
            let text = answer.text.replace(&path, "");
            assert!(
                !text.contains("dummy") && !text.contains("hers"),
                "{answer}"
            );
            assert_eq!(answer.status, 404, "{method} {path}: {answer}");
            asked += 1;
        }
    }

    assert!(asked >= 14, "{asked}");
    let health = narrow.get("/health").await.expect(200);
    assert_eq!(health.at("/current_operation"), &Value::Null);
    own.get("/api/v1/operations/hers").await.expect(200);
    let running = own.get("/api/v1/operations/hers").await.expect(200);
    assert_eq!(running.at("/data/requested_by"), "own");
    admin
        .delete("/api/v1/operations/hers/cancel")
        .await
        .expect(200);
    stack.api().wait_for_status("hers", "cancelled").await;
    let entries = askers(stack.api(), "hers").await;
    assert_eq!(entries[0], entry("start_requested", "own"));
    assert_eq!(entries[1], entry("cancel_requested", "test"));
}

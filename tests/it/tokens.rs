//! Tokens: who may do what, on backends and on workers.
//!
//! Longer than 600 lines: every route of both interfaces stands in its tables.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};
use std::time::Instant;

use ktrdr_tests::process::program;
use ktrdr_tests::{
    Answer, BackendProcess, Client, LIMIT, NatsServer, Scratch, Settings, Stack, TokensFile,
    WorkerProcess, wait_for,
};
use reqwest::Method;
use serde_json::{Value, json};

const SCOPES: [&str; 5] = ["read", "start", "cancel", "metrics", "admin"];

/// What every route needs, by method and path. A route that is missing here is one that nobody has
/// thought about.
const BACKEND: [(&str, &str, &str); 41] = [
    ("get", "/", ""),
    ("get", "/docs", ""),
    ("get", "/health", ""),
    ("get", "/ready", ""),
    ("get", "/openapi.json", "read"),
    ("get", "/metrics", "metrics"),
    ("get", "/api/v1/operations", "read"),
    ("get", "/api/v1/operations/{id}", "read"),
    ("patch", "/api/v1/operations/{id}", "start"),
    ("delete", "/api/v1/operations/{id}", "cancel"),
    ("delete", "/api/v1/operations/{id}/cancel", "cancel"),
    ("post", "/api/v1/operations/cancel", "cancel"),
    ("post", "/api/v1/operations/retry", "start"),
    ("get", "/api/v1/operations/{id}/results", "read"),
    ("get", "/api/v1/operations/{id}/metrics", "read"),
    ("get", "/api/v1/operations/{id}/logs", "read"),
    ("get", "/api/v1/operations/{id}/history", "read"),
    ("get", "/api/v1/operations/{id}/checkpoint", "read"),
    ("get", "/api/v1/operations/{id}/events", "read"),
    ("get", "/api/v1/events", "read"),
    ("get", "/api/v1/stats", "read"),
    ("post", "/api/v1/operations/{id}/retry", "start"),
    ("post", "/api/v1/operations/{id}/resume", "start"),
    ("get", "/api/v1/workers", "read"),
    ("get", "/api/v1/workers/{id}", "read"),
    ("post", "/api/v1/workers/{id}/drain", "admin"),
    ("post", "/api/v1/workers/{id}/undrain", "admin"),
    ("get", "/api/v1/schedules", "read"),
    ("get", "/api/v1/schedules/{id}", "read"),
    ("put", "/api/v1/schedules/{id}", "start"),
    ("delete", "/api/v1/schedules/{id}", "start"),
    ("post", "/api/v1/schedules/{id}/pause", "start"),
    ("post", "/api/v1/schedules/{id}/resume", "start"),
    ("post", "/api/v1/schedules/{id}/run", "start"),
    ("get", "/api/v1/queues", "read"),
    ("post", "/api/v1/queues/{worker_type}/pause", "admin"),
    ("post", "/api/v1/queues/{worker_type}/resume", "admin"),
    ("get", "/api/v1/worker-types", "read"),
    ("delete", "/api/v1/worker-types/{type}", "admin"),
    ("post", "/api/v1/{domain}/start", "start"),
    ("post", "/api/v1/{domain}/start-many", "start"),
];

const WORKER: [(&str, &str, &str); 9] = [
    ("get", "/health", ""),
    ("get", "/openapi.json", "read"),
    ("get", "/metrics", "metrics"),
    ("get", "/api/v1/operations", "read"),
    ("get", "/api/v1/operations/{id}", "read"),
    ("delete", "/api/v1/operations/{id}", "cancel"),
    ("get", "/api/v1/operations/{id}/metrics", "read"),
    ("delete", "/api/v1/operations/{id}/cancel", "cancel"),
    ("post", "/dummy/start", "start"),
];

async fn stack(file: &TokensFile) -> Stack {
    Stack::start_with(|settings| settings.tokens(file)).await
}

/// The routes in the document that need a token, with the scope of each, and those that need none.
fn described(document: &Value) -> BTreeMap<(String, String), String> {
    let paths = document["paths"].as_object().unwrap();
    let operations = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap();
        methods
            .iter()
            .map(move |(method, operation)| (method, path, operation))
    });
    // A backend also describes the start route once more for each worker type.
    let of_all_types = operations.filter(|(_, path, one)| {
        one.get("x-ktrdr-worker-type").is_none() || !path.starts_with("/api/")
    });
    of_all_types
        .map(|(method, path, operation)| {
            let scope = operation["security"][0]["token"][0].as_str();
            let codes = operation["responses"].as_object().unwrap();
            assert_eq!(codes.contains_key("401"), scope.is_some(), "{path}");
            let key = (method.clone(), path.clone());
            (key, scope.unwrap_or_default().to_owned())
        })
        .collect()
}

async fn ask(api: &Client, method: &str, path: &str) -> Answer {
    let path = path
        .replace("{id}", "nothing")
        .replace("{domain}", "nothing")
        .replace("{type}", "nothing")
        .replace("{file}", "nothing");
    let method: Method = method.to_uppercase().parse().unwrap();
    let request = api.request(method.clone(), &path);
    let request = if [Method::POST, Method::PATCH].contains(&method) {
        request.json(&json!({}))
    } else {
        request
    };
    // Events go on: the header is all that is asked for.
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let headers = response.headers().clone();
    let text = if status == 200 {
        String::new()
    } else {
        response.text().await.unwrap()
    };
    Answer {
        status,
        headers,
        json: serde_json::from_str(&text).unwrap_or_default(),
        text,
    }
}

/// Asks each route without a token, with a wrong one, with all scopes but the right one, and with
/// only that one.
async fn attack(api: &Client, file: &TokensFile, routes: &[(&str, &str, &str)]) {
    let document = api.get("/openapi.json").await.expect(200).json;
    let expected: BTreeMap<(String, String), String> = routes
        .iter()
        .map(|(method, path, scope)| {
            let key = ((*method).to_owned(), (*path).to_owned());
            (key, (*scope).to_owned())
        })
        .collect();
    assert_eq!(described(&document), expected);
    assert_eq!(
        document["components"]["securitySchemes"]["token"]["scheme"],
        "bearer"
    );

    let without = api.without_token();
    let wrong = api.with_token("secret-of-nobody");
    for (method, path, scope) in routes {
        let name = format!("{method} {path}");
        if scope.is_empty() {
            for api in [&without, &wrong] {
                let status = ask(api, method, path).await.status;
                assert!([200, 404].contains(&status), "{name}: {status}");
            }
            continue;
        }
        for (api, challenge) in [
            (&without, "Bearer"),
            (&wrong, "Bearer error=\"invalid_token\""),
        ] {
            let refused = ask(api, method, path)
                .await
                .expect_problem(401, "unauthorized");
            assert_eq!(refused.header("www-authenticate"), challenge, "{name}");
        }

        let others = format!("all-but-{scope}");
        let refused = ask(&api.with_token(&file.token(&others)), method, path).await;
        let refused = refused.expect_problem(403, "forbidden");
        assert_eq!(refused.json["scope"], *scope, "{name}");
        let challenge = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
        assert_eq!(refused.header("www-authenticate"), challenge, "{name}");

        for allowed in [*scope, "admin"] {
            let status = ask(&api.with_token(&file.token(allowed)), method, path)
                .await
                .status;
            assert!(![401, 403].contains(&status), "{name}: {status}");
        }
    }
}

/// One token for each scope, and one for all but it.
fn tokens_of_every_kind() -> TokensFile {
    let file = TokensFile::new();
    let list = |scopes: &[&str]| format!("scopes = {scopes:?}");
    for scope in SCOPES {
        file.set(scope, &list(&[scope]));
        let others: Vec<&str> = SCOPES
            .into_iter()
            .filter(|other| ![scope, "admin"].contains(other))
            .collect();
        file.set(&format!("all-but-{scope}"), &list(&others));
    }
    file
}

#[tokio::test]
async fn every_route_of_a_backend_asks_for_its_scope() {
    let file = tokens_of_every_kind();
    let stack = stack(&file).await;

    attack(stack.api(), &file, &BACKEND).await;
}

#[tokio::test]
async fn every_route_of_a_worker_asks_for_its_scope() {
    let file = tokens_of_every_kind();
    let stack = stack(&file).await;
    let worker = stack.worker("dummy", "w1").await;

    attack(&worker.api, &file, &WORKER).await;
    // The probe goes on without a token, and tells nobody what runs.
    stack
        .api()
        .running(
            "dummy",
            &json!({"task_id": "one", "steps": 10_000, "step_ms": 10}),
        )
        .await;
    let health = worker.api.without_token().get("/health").await.expect(200);
    assert_eq!(health.json["worker_status"], "busy");
    assert_eq!(health.json["current_operation"], Value::Null);
    let health = worker.api.get("/health").await.expect(200);
    assert_eq!(health.json["current_operation"], "one");
}

#[tokio::test]
async fn only_the_header_carries_a_token() {
    let file = TokensFile::new();
    let stack = stack(&file).await;
    let token = file.token("test");
    let api = stack.api().without_token();

    for path in [
        format!("/api/v1/operations?token={token}"),
        format!("/api/v1/operations?access_token={token}"),
        format!("/api/v1/operations?authorization=Bearer%20{token}"),
    ] {
        api.get(&path).await.expect_problem(401, "unauthorized");
    }
    for (name, value) in [
        ("cookie", format!("token={token}")),
        ("x-api-key", token.clone()),
        ("authorization", token.clone()),
        ("authorization", format!("Basic {token}")),
    ] {
        let request = api.request(Method::GET, "/api/v1/operations");
        let answer = api.send(request.header(name, value)).await;
        answer.expect_problem(401, "unauthorized");
    }

    let request = api.request(Method::GET, "/api/v1/operations");
    let lower = request.header("authorization", format!("bearer {token}"));
    api.send(lower).await.expect(200);
    let log = stack.backend.process.log();
    assert!(!log.contains(&token), "a token is in the log");
}

#[tokio::test]
async fn a_changed_file_takes_effect_and_a_broken_one_changes_nothing() {
    let file = TokensFile::new();
    let stack = stack(&file).await;
    let worker = stack.worker("dummy", "w1").await;
    let apis = [stack.api(), &worker.api];
    let path = "/api/v1/operations";
    let logged = |text: &'static str| {
        let processes = [&stack.backend.process, &worker.process];
        async move {
            wait_for(text, LIMIT, async || {
                let logs = processes.map(ktrdr_tests::process::Process::log);
                let has = logs.iter().all(|log| log.contains(text));
                has.then_some(()).ok_or_else(|| logs[0].clone())
            })
            .await;
        }
    };

    let new = file.set("new", "scopes = [\"read\"]");
    for api in apis {
        let api = api.with_token(&new);
        api.wait_for_answer(path, "the new token to be known", |answer| {
            answer.status == 200
        })
        .await;
    }

    file.replace("[[token]]\nname = \"new\"");
    logged("the tokens from before stay valid").await;
    std::fs::remove_file(file.path()).unwrap();
    logged("the file of tokens is gone").await;
    for api in apis {
        api.with_token(&new).get(path).await.expect(200);
    }

    file.remove("new");
    for api in apis {
        let api = api.with_token(&new);
        api.wait_for_answer(path, "the token to be refused", |answer| {
            answer.status == 401
        })
        .await;
    }

    file.set("new", "scopes = [\"read\"]\nexpires = 2020-01-01T00:00:00Z");
    for api in apis {
        let api = api.with_token(&new);
        api.wait_for_answer(path, "the token to have expired", |answer| {
            answer.text.contains("expired")
        })
        .await;
        api.get(path).await.expect_problem(401, "unauthorized");
    }
}

#[tokio::test]
async fn probes_show_figures_only_to_those_who_may_read_all() {
    let file = TokensFile::new();
    let narrow = file.set("narrow", "scopes = [\"read\"]\ntypes = [\"dummy\"]");
    let start = file.set("start", "scopes = [\"start\"]");
    let stack = stack(&file).await;

    let all = stack.api().get("/health").await.expect(200);
    assert!(all.at("/projection/sequence").is_u64(), "{all}");
    assert!(stack.api().get("/ready").await.json["sequence"].is_u64());

    for api in [
        stack.api().without_token(),
        stack.api().with_token("wrong"),
        stack.api().with_token(&narrow),
        stack.api().with_token(&start),
    ] {
        let health = api.get("/health").await.expect(200);
        assert_eq!(health.json["projection"], json!({"caught_up": true}));
        assert_eq!(
            api.get("/ready").await.expect(200).json,
            json!({"ready": true})
        );
    }
}

#[tokio::test]
async fn browsers_ask_for_permission_without_a_token() {
    let file = TokensFile::new();
    let stack = Stack::start_with(|settings| {
        settings
            .tokens(&file)
            .with("KTRDR_CORS_ORIGINS", "https://jobs.example.com")
    })
    .await;
    let api = stack.api().without_token();
    let preflight = |origin: &'static str| {
        let request = api.request(Method::OPTIONS, "/api/v1/operations");
        request
            .header("origin", origin)
            .header("access-control-request-method", "GET")
            .header("access-control-request-headers", "authorization")
    };

    let allowed = api.send(preflight("https://jobs.example.com")).await;
    let refused = api.send(preflight("https://evil.example.com")).await;

    let allowed = allowed.expect(204);
    assert_eq!(
        allowed.header("access-control-allow-origin"),
        "https://jobs.example.com"
    );
    assert!(
        allowed
            .header("access-control-allow-headers")
            .contains("authorization")
    );
    assert_eq!(refused.header("access-control-allow-origin"), "");
    assert_ne!(refused.status, 204);
    // A page of the configured origin can read why it was refused.
    let request = api.request(Method::GET, "/api/v1/operations");
    let answer = api
        .send(request.header("origin", "https://jobs.example.com"))
        .await
        .expect_problem(401, "unauthorized");
    assert_eq!(
        answer.header("access-control-allow-origin"),
        "https://jobs.example.com"
    );
}

#[tokio::test]
async fn who_tries_tokens_is_slowed_down_and_nobody_else() {
    let file = TokensFile::new();
    let stack = stack(&file).await;
    let wrong = stack.api().with_token("wrong");
    let path = "/api/v1/operations";

    for _ in 0..10 {
        wrong.get(path).await.expect(401);
    }
    let begun = Instant::now();
    let guess = async {
        wrong.get(path).await.expect(401);
        begun.elapsed()
    };
    let good = async {
        stack.api().get(path).await.expect(200);
        stack.api().without_token().get(path).await.expect(401);
        begun.elapsed()
    };
    let (guess, good) = tokio::join!(guess, good);

    assert!(guess.as_millis() >= 1000, "{guess:?}");
    assert!(good < guess, "{good:?} {guess:?}");
    let metrics = stack.api().get("/metrics").await.expect(200).text;
    for line in [
        r#"ktrdr_http_refused_tokens_total{reason="unknown"} 11"#,
        r#"ktrdr_http_refused_tokens_total{reason="missing"} 1"#,
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
}

#[tokio::test]
async fn nobody_listens_to_other_machines_without_tokens() {
    let nats = NatsServer::start().await;
    let open = Settings::fast(nats.url())
        .with("KTRDR_API_ADDR", "0.0.0.0:0")
        .with("WORKER_HOST", "0.0.0.0");
    let file = TokensFile::new();

    let mut backend = BackendProcess::launch(&open);
    let mut worker = WorkerProcess::launch(&open, "dummy", "w1");
    for process in [&mut backend.process, &mut worker.process] {
        assert!(!process.wait(LIMIT).await.success());
        let log = process.log();
        for words in [
            "refusing to listen on 0.0.0.0",
            "KTRDR_TOKENS_FILE",
            "KTRDR_INSECURE=true",
        ] {
            assert!(log.contains(words), "{log}");
        }
    }

    let insecure = open.clone().with("KTRDR_INSECURE", "true");
    let guarded = open.tokens(&file);
    for (settings, warning) in [
        (insecure, "KTRDR_INSECURE is set"),
        (guarded, "tokens travel unencrypted"),
    ] {
        let mut backend = BackendProcess::launch(&settings);
        let mut worker = WorkerProcess::launch(&settings, "dummy", "w1");
        for (process, started) in [
            (&mut backend.process, "listening"),
            (&mut worker.process, "worker started"),
        ] {
            wait_for(started, LIMIT, async || {
                process.check_alive()?;
                let log = process.log();
                log.contains(started).then_some(()).ok_or(log)
            })
            .await;
            assert!(process.log().contains(warning), "{}", process.log());
        }
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_refused_at_the_start() {
    let nats = NatsServer::start().await;
    let file = TokensFile::new();
    let settings = Settings::fast(nats.url()).tokens(&file);
    let bad = "[[token]]\nname = \"ci\"\nsha256 = \"ab\"\nscopes = [\"read\"]";

    for (text, words) in [(Some(bad), "token 1 (ci)"), (None, "No such file")] {
        match text {
            Some(text) => file.replace(text),
            None => std::fs::remove_file(file.path()).unwrap(),
        }
        let mut backend = BackendProcess::launch(&settings);
        let mut worker = WorkerProcess::launch(&settings, "dummy", "w1");
        for process in [&mut backend.process, &mut worker.process] {
            assert!(!process.wait(LIMIT).await.success());
            assert!(process.log().contains(words), "{}", process.log());
        }
    }
}

fn token_new(arguments: &[&str]) -> Output {
    Command::new(program("ktrdr-backend"))
        .args(["token", "new"])
        .args(arguments)
        .output()
        .unwrap()
}

#[tokio::test]
async fn a_new_token_works_at_once_and_its_file_keeps_everything_else() {
    let scratch = Scratch::new("tokens");
    let path = scratch.join("tokens.toml");
    let file = path.to_str().unwrap();
    let text = || std::fs::read_to_string(&path).unwrap();
    let mode = || std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    let printed = |arguments: &[&str]| {
        let output = token_new(&[arguments, &["--file", file]].concat());
        assert!(output.status.success(), "{output:?}");
        let printed = String::from_utf8(output.stdout).unwrap();
        let token = printed.strip_suffix('\n').unwrap().to_owned();
        assert!(token.starts_with("ktrdr_") && token.len() == 49, "{token}");
        assert!(!text().contains(&token));
        token
    };

    let admin = printed(&["ops", "--scopes", "admin"]);
    assert_eq!(mode(), 0o600);

    std::fs::write(&path, format!("# by hand\n{}", text())).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
    let reader = printed(&[
        "reader",
        "--scopes",
        "read,start",
        "--types",
        "dummy,training",
        "--expires",
        "2999-01-01T00:00:00Z",
    ]);
    assert_eq!(mode(), 0o640);
    assert!(text().starts_with("# by hand\n[[token]]\nname = \"ops\"\n"));

    let stack = Stack::start_with(|settings| Settings {
        token: Some(admin),
        ..settings.with("KTRDR_TOKENS_FILE", file)
    })
    .await;
    stack.api().get("/metrics").await.expect(200);
    let reader = stack.api().with_token(&reader);
    reader.get("/api/v1/workers").await.expect(200);
    reader
        .delete("/api/v1/operations/x")
        .await
        .expect_problem(403, "forbidden");
    assert!(stack.backend.process.log().contains("chmod 600"));

    let late = stack
        .api()
        .with_token(&printed(&["late", "--scopes", "read"]));
    late.wait_for_answer("/api/v1/workers", "the new token to work", |answer| {
        answer.status == 200
    })
    .await;
}

#[test]
fn a_token_that_cannot_work_is_not_made() {
    let scratch = Scratch::new("tokens");
    let path = scratch.join("tokens.toml");
    let file = path.to_str().unwrap();
    assert!(
        token_new(&["ci", "--scopes", "read", "--file", file])
            .status
            .success()
    );
    let before = std::fs::read_to_string(&path).unwrap();

    for (arguments, words) in [
        (&["ci", "--scopes", "read"][..], "same name"),
        (&["x", "--scopes", "write"], "\"write\""),
        (&["x"], "--scopes"),
        (&["a\nb", "--scopes", "read"], "printable"),
        (&["x", "--scopes", "read", "--types", "a.b"], "a.b"),
        (&["x", "--scopes", "admin", "--types", "dummy"], "narrow"),
        (
            &["x", "--scopes", "read", "--expires", "2020-01-01T00:00:00Z"],
            "passed",
        ),
        (
            &["x", "--scopes", "read", "--expires", "soon"],
            "2027-01-01",
        ),
    ] {
        let output = token_new(&[arguments, &["--file", file]].concat());

        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && output.stdout.is_empty());
        assert!(said.contains(words), "{arguments:?}: {said}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), before);
    }
    // Several at once: none is lost.
    std::thread::scope(|scope| {
        for number in 0..8 {
            scope.spawn(move || {
                let name = format!("n{number}");
                let output = token_new(&[&name, "--scopes", "read", "--file", file]);
                assert!(output.status.success(), "{output:?}");
            });
        }
    });
    let after = std::fs::read_to_string(&path).unwrap();
    assert_eq!(after.matches("[[token]]").count(), 9);
}

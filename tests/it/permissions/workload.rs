//! Everything that the programs do, under the table.

use std::collections::{BTreeMap, BTreeSet};

use ktrdr_bus::permissions::{Action, Role, rules};
use ktrdr_tests::events::EventStream;
use ktrdr_tests::secure::{installation, violations};
use ktrdr_tests::{LIMIT, WorkerProcess, wait_for};
use serde_json::json;

use super::{Secure, TYPES};

/// What each user has published and subscribed, by the trace in the server's log.
fn used(log: &str) -> BTreeMap<String, BTreeSet<(Action, String)>> {
    let mut users: BTreeMap<&str, String> = BTreeMap::new();
    let mut used: BTreeMap<String, BTreeSet<(Action, String)>> = BTreeMap::new();
    for line in log.lines() {
        let Some((connection, message)) = line.split_once(" - <<- [") else {
            continue;
        };
        let connection = connection
            .rsplit(" - ")
            .find(|part| part.starts_with("cid:"));
        let Some(connection) = connection else {
            continue;
        };
        if let Some(text) = message.strip_prefix("CONNECT ") {
            // The server hides secrets in a way that leaves no JSON.
            let user = text.split_once("\"user\":\"");
            let user = user.and_then(|(_, rest)| rest.split('"').next());
            if let Some(user) = user {
                users.insert(connection, user.to_owned());
            }
            continue;
        }
        let mut words = message.trim_end_matches(']').split(' ');
        let action = match words.next() {
            Some("PUB" | "HPUB") => Action::Publish,
            Some("SUB") => Action::Subscribe,
            _ => continue,
        };
        if let (Some(user), Some(subject)) = (users.get(connection), words.next()) {
            let used = used.entry(user.clone()).or_default();
            used.insert((action, subject.to_owned()));
        }
    }
    used
}

/// Whether a subject, which may hold wildcards, is within a rule.
fn is_within(rule: &str, subject: &str) -> bool {
    let mut subject = subject.split('.');
    for token in rule.split('.') {
        match (token, subject.next()) {
            (">", Some(_)) => return true,
            ("*", Some(token)) if token != ">" => {}
            (token, Some(other)) if token == other => {}
            _ => return false,
        }
    }
    subject.next().is_none()
}

#[tokio::test]
async fn everything_works_under_the_table_and_every_line_of_it_is_needed() {
    let mut secure = Secure::start("trace: true\nmax_traced_msg_len: 16\n").await;
    let mut dummy = secure.worker("dummy", "d1").await;
    let mut training = secure.worker("training", "t1").await;
    let backtesting = secure.worker("backtesting", "b1").await;
    let processing = secure.worker("data_processing", "p1").await;

    routes(&secure).await;
    results_and_retries(&secure).await;
    cancels(&secure).await;
    for (worker, domain) in [
        (&dummy, "dummy"),
        (&training, "training"),
        (&backtesting, "backtests"),
        (&processing, "data-processing"),
    ] {
        direct_start(&secure, worker, domain).await;
    }
    takeover(&secure, &mut training).await;
    resume(&secure).await;
    pause_and_drain(&secure).await;
    schedule(&secure).await;
    keys(&secure).await;
    restart_of_nats(&mut secure).await;

    // An orderly end, with the operation given back.
    let api = secure.backend.api.clone();
    let id = api
        .running("dummy", &json!({"steps": 20, "step_ms": 50}))
        .await;
    dummy.process.stop().await;
    let _next = secure.worker("dummy", "d2").await;
    api.wait_for_status(&id, "completed").await;

    let log = secure.nats.log();
    assert_eq!(violations(&log), Vec::<&str>::new());
    drop(secure.data);
    let used = used(&log);
    let table = installation(&TYPES);
    let (mut needed, mut unused) = (BTreeSet::new(), BTreeSet::new());
    for role in table
        .roles()
        .into_iter()
        .filter(|role| *role != Role::Observer)
    {
        let used = used.get(&role.user()).cloned().unwrap_or_default();
        for rule in rules(&table, &role) {
            let is_used = used.iter().any(|(action, subject)| {
                *action == rule.action && is_within(&rule.subject, subject)
            });
            let line = (generic(&role.user()), rule.action, generic(&rule.subject));
            match rule.rare {
                _ if is_used => needed.insert(line),
                None => unused.insert(line),
                Some(_) => true,
            };
        }
    }
    let unused: Vec<_> = unused.difference(&needed).collect();
    assert!(unused.is_empty(), "lines that nobody needed: {unused:#?}");
}

/// A subject without the name of its worker type and of its queue: not every type does everything.
fn generic(subject: &str) -> String {
    let named = TYPES
        .iter()
        .fold(subject.to_owned(), |text, name| text.replace(name, "TYPE"));
    let Some((before, queue)) = named.split_once(".TYPE-") else {
        return named;
    };
    let rest = queue.split_once('.').map_or("", |(_, rest)| rest);
    format!("{before}.TYPE-QUEUE.{rest}")
}

/// Every route that reads, and the live events.
async fn routes(secure: &Secure) {
    let api = &secure.backend.api;
    let mut all = EventStream::open(api, "/api/v1/events", None).await;
    let id = api
        .running("dummy", &json!({"steps": 20, "step_ms": 50}))
        .await;
    let path = format!("/api/v1/operations/{id}/events");
    let mut one = EventStream::open(api, &path, None).await;
    for path in [
        "/health".to_owned(),
        "/ready".to_owned(),
        "/metrics".to_owned(),
        "/api/v1/stats".to_owned(),
        "/api/v1/workers".to_owned(),
        "/api/v1/worker-types".to_owned(),
        "/api/v1/operations".to_owned(),
        format!("/api/v1/operations/{id}?force_refresh=true"),
        format!("/api/v1/operations/{id}/history"),
        format!("/api/v1/operations/{id}/metrics"),
        format!("/api/v1/operations/{id}/logs"),
        "/openapi.json".to_owned(),
    ] {
        api.get(&path).await.expect(200);
    }
    one.until("metric points", |event| event.name == "metrics")
        .await;
    one.operation(&id, "completed").await;
    // The last points and lines of an operation that has ended are asked for in another way.
    for part in ["metrics", "logs"] {
        let path = format!("/api/v1/operations/{id}/{part}");
        api.get(&path).await.expect(200);
    }
    all.operation(&id, "completed").await;
}

/// Large results of every type that can make one, failures and retries.
async fn results_and_retries(secure: &Secure) {
    let api = &secure.backend.api;
    let large = json!({"steps": 0, "result_bytes": 600_000});
    let id = api.started("dummy", &large).await;
    let done = api.wait_for_status(&id, "completed").await;
    assert_eq!(done["status"], "completed");
    let path = format!("/api/v1/operations/{id}/results");
    let result = api.get(&path).await.expect(200);
    let filler = result.at("/data/filler").as_str().map(str::len);
    assert_eq!(filler, Some(600_000));

    let failing = json!({"steps": 1, "step_ms": 0, "fail_at_step": 1, "execution": {"max_attempts": 2, "retry_delay": 0.2}});
    let id = api.started("dummy", &failing).await;
    let failed = api.wait_for_status(&id, "failed").await;
    assert_eq!(failed["attempt"], 2, "{failed}");
    let said = api.get(&format!("/api/v1/operations/{id}/logs")).await;
    assert_eq!(
        said.at("/data/lines").as_array().unwrap().len(),
        2,
        "{said}"
    );
    let again = format!("/api/v1/operations/{id}/retry");
    api.post(&again, &json!({})).await.expect(202);
}

/// Cancels of a pending operation, of a running one, and one that its engine ignores.
async fn cancels(secure: &Secure) {
    let api = &secure.backend.api;
    let pending = json!({"execution": {"requirements": {"gpu": true}}});
    let id = api.started("dummy", &pending).await;
    api.cancel(&id).await.expect(200);
    api.wait_for_status(&id, "cancelled").await;

    let id = api.running("dummy", &json!({"steps": 1000})).await;
    api.cancel(&id).await.expect(200);
    api.wait_for_status(&id, "cancelled").await;

    let stubborn = json!({"steps": 40, "step_ms": 50, "ignore_cancel": true});
    let id = api.running("dummy", &stubborn).await;
    api.cancel(&id).await.expect(200);
    let forced = api.wait_for_status(&id, "cancelled").await;
    assert_eq!(forced["forced"], true);
    api.wait_for_worker("d1", "AVAILABLE").await;
}

/// A schedule from its first slot to its end.
async fn schedule(secure: &Secure) {
    let api = &secure.backend.api;
    let schedule = json!({"domain": "dummy", "body": {"steps": 0}, "cron": "* * * * * *"});
    let path = "/api/v1/schedules/tick";
    let put = api.request(reqwest::Method::PUT, path).json(&schedule);
    api.send(put).await.expect(201);
    wait_for("a slot", LIMIT, async || {
        let shown = api.get(path).await;
        let has_run = !shown.at("/data/last_run").is_null();
        has_run.then_some(()).ok_or(shown.to_string())
    })
    .await;
    api.delete(path).await.expect(200);
}

/// A unique key, and a concurrency key for which two operations wait.
async fn keys(secure: &Secure) {
    let api = &secure.backend.api;
    let body = |key: &str| {
        let concurrency = json!({"key": "k", "limit": 1});
        json!({"steps": 2, "execution": {"unique": {"key": key}, "concurrency": concurrency}})
    };
    let first = api.started("dummy", &body("a")).await;
    let second = api.started("dummy", &body("b")).await;
    for id in [first, second] {
        api.wait_for_status(&id, "completed").await;
    }
}

/// A pause of all queues of a type, and a worker that takes no work for a while.
async fn pause_and_drain(secure: &Secure) {
    let api = &secure.backend.api;
    for verb in ["pause", "resume"] {
        let path = format!("/api/v1/queues/dummy/{verb}");
        api.post(&path, &json!({})).await.expect(200);
    }
    for verb in ["drain", "undrain"] {
        let path = format!("/api/v1/workers/d1/{verb}");
        api.post(&path, &json!({})).await.expect(202);
    }
    api.wait_for_worker("d1", "AVAILABLE").await;
}

/// A start and a cancel at the worker's own REST interface.
async fn direct_start(secure: &Secure, worker: &WorkerProcess, domain: &str) {
    let id = format!("direct-{domain}");
    let body = match domain {
        "dummy" => json!({"task_id": id, "steps": 1000}),
        "data-processing" => {
            json!({"task_id": id, "source_file": "GOOG_1d.csv", "output_file": format!("{id}.csv"), "operations": [{"op": "clean"}]})
        }
        "training" => {
            json!({"task_id": id, "symbol": "GOOG", "timeframe": "1d", "epochs": 5_000})
        }
        _ => {
            json!({"task_id": id, "symbol": "GOOG", "timeframe": "1d", "strategy": {"type": "sma_cross", "fast": 5, "slow": 20}})
        }
    };
    wait_for("a free slot", LIMIT, async || {
        let answer = worker.api.post(&format!("/{domain}/start"), &body).await;
        match answer.status {
            200 => Ok(()),
            _ => Err(answer.to_string()),
        }
    })
    .await;
    let _ = worker.api.cancel(&id).await;
    let ended = ["cancelled", "completed", "failed"];
    secure.backend.api.wait_for_any_status(&id, &ended).await;
    secure
        .backend
        .api
        .wait_for_worker(&worker.id, "AVAILABLE")
        .await;
}

/// A worker is killed, and the next one continues from its checkpoint.
async fn takeover(secure: &Secure, training: &mut WorkerProcess) {
    let api = &secure.backend.api;
    let body = json!({"task_id": "taken-over", "symbol": "GOOG", "timeframe": "1d", "epochs": 200});
    api.start("training", &body).await.expect(202);
    wait_for_checkpoint(secure, "training.taken-over").await;
    training.process.kill();
    training.restart().await;

    let done = api.wait_for_status("taken-over", "completed").await;
    assert_eq!(done["attempt"], 2);
}

/// A cancelled operation is resumed as a new one.
async fn resume(secure: &Secure) {
    let api = &secure.backend.api;
    let body = json!({"task_id": "first", "symbol": "GOOG", "timeframe": "1d", "epochs": 200});
    api.start("training", &body).await.expect(202);
    wait_for_checkpoint(secure, "training.first").await;
    api.cancel("first").await.expect(200);
    api.wait_for_status("first", "cancelled").await;

    let answer = api
        .post("/api/v1/operations/first/resume", &json!({}))
        .await;
    let id = answer.expect(202).json["operation_id"]
        .as_str()
        .unwrap()
        .to_owned();
    api.wait_for_status(&id, "completed").await;
}

async fn wait_for_checkpoint(secure: &Secure, key: &str) {
    let bucket = secure.bus.jetstream.get_key_value("KTRDR_CHECKPOINTS");
    let bucket = bucket.await.unwrap();
    wait_for("a checkpoint", LIMIT, async || {
        match bucket.get(key).await {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

async fn restart_of_nats(secure: &mut Secure) {
    let api = secure.backend.api.clone();
    let id = api
        .running("dummy", &json!({"steps": 30, "step_ms": 50}))
        .await;
    secure.nats.restart().await;
    secure.backend.ready().await;
    api.wait_for_status(&id, "completed").await;
}

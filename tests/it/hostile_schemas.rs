//! Worker types whose catalogue entries attack: schemas that expand without bounds, that cannot be
//! used, or that claim the domain of another type. Backends and the other types go on.

use std::time::{Duration, Instant};

use futures::future::join_all;
use ktrdr_tests::process::{peak_memory, resident_memory};
use ktrdr_tests::{BackendProcess, Client, LIMIT, Stack, wait_for};
use serde_json::{Map, Value, json};

/// How long `GET /health` may take while schemas attack.
const PROMPT: Duration = Duration::from_secs(2);

/// How much memory of a backend the attacks may take, in MiB.
const MAX_GROWTH: u64 = 200;

/// `levels` definitions, each of which refers to the next one twice.
fn chain(levels: usize, keyword: &str, end: &Value) -> Value {
    let mut definitions = Map::new();
    for level in 0..levels {
        let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        definitions.insert(format!("d{level}"), json!({keyword: [next, next]}));
    }
    definitions.insert(format!("d{levels}"), end.clone());
    json!({"$defs": definitions, "$ref": "#/$defs/d0"})
}

async fn publish(stack: &Stack, worker_type: &str, domain: &str, request_schema: &Value) {
    let entry = json!({
        "worker_type": worker_type, "domain": domain, "description": "", "version": "1",
        "request_schema": request_schema, "result_schema": {},
    });
    stack
        .bus
        .jetstream
        .get_key_value("KTRDR_WORKER_TYPES")
        .await
        .unwrap()
        .put(worker_type, entry.to_string().into())
        .await
        .unwrap();
}

/// A worker type as a backend lists it, once it does.
async fn listed(api: &Client, worker_type: &str) -> Value {
    wait_for(&format!("{worker_type} to be listed"), LIMIT, async || {
        let answer = api.get("/api/v1/worker-types").await;
        let types = answer.at("/data/worker_types").as_array().unwrap();
        let found = types
            .iter()
            .find(|listed| listed["worker_type"] == worker_type);
        found.cloned().ok_or(answer.text)
    })
    .await
}

/// The most MiB that a process has had in memory so far.
fn peak(pid: u32) -> u64 {
    peak_memory(pid) / (1024 * 1024)
}

/// Asks for the health of `api` until `stop`. Returns the slowest answer.
async fn watch_health(api: Client, mut stop: tokio::sync::oneshot::Receiver<()>) -> Duration {
    let mut slowest = Duration::ZERO;
    while stop.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
        let began = Instant::now();
        api.get("/health").await.expect(200);
        slowest = slowest.max(began.elapsed());
    }
    slowest
}

#[tokio::test]
async fn a_schema_that_cannot_be_used_refuses_the_starts_of_its_type_and_stops_nobody_else() {
    let stack = Stack::start().await;
    let (_worker, gate) = stack.gate_worker("g1").await;
    gate.open_for_all();
    let before = peak(stack.backend.process.pid());
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let health = tokio::spawn(watch_health(stack.api().clone(), stopped));

    let attacks = [
        ("all_of", chain(30, "allOf", &json!({"type": "object"}))),
        ("any_of", chain(24, "anyOf", &json!({"type": "string"}))),
        ("endless", json!({"allOf": [{"$ref": "#"}]})),
        ("remote", json!({"$ref": "https://example.com/schema.json"})),
        ("list", json!([])),
        ("string", json!("object")),
        ("null", Value::Null),
        (
            "pattern",
            json!({"properties": {"a": {"pattern": "a?".repeat(200_000)}}}),
        ),
        ("broken", json!({"properties": {"a": {"pattern": "("}}})),
        ("wrong", json!({"type": "nonsense"})),
    ];
    for (worker_type, schema) in &attacks {
        publish(&stack, worker_type, worker_type, schema).await;
    }
    for (worker_type, _) in &attacks {
        listed(stack.api(), worker_type).await;
        let refused = stack
            .api()
            .start(worker_type, &json!({"a": 1}))
            .await
            .expect_problem(503, "schema_unusable");
        let entry = listed(stack.api(), worker_type).await;
        assert_eq!(refused.at("/worker_type"), *worker_type);
        assert!(entry["schema_error"].is_string());
        assert_eq!(refused.at("/reason"), &entry["schema_error"]);
        assert!(
            stack
                .bus
                .stored(&format!("ktrdr.start.{worker_type}.*"))
                .await
                .is_empty()
        );

        let id = stack.api().started("gate", &json!({})).await;
        stack.api().wait_for_status(&id, "completed").await;
    }

    // No schema is no restriction.
    publish(&stack, "free", "free", &json!({})).await;
    listed(stack.api(), "free").await;
    stack
        .api()
        .start("free", &json!({"a": 1}))
        .await
        .expect(202);

    stop.send(()).unwrap();
    let slowest = health.await.unwrap();
    assert!(slowest < PROMPT, "{slowest:?}");
    let grown = peak(stack.backend.process.pid()) - before;
    assert!(grown < MAX_GROWTH, "{grown} MiB");
}

/// A schema just below the limits, and a body with many items.
#[tokio::test]
async fn a_check_that_takes_too_long_is_given_up_and_stops_nobody_else() {
    let stack = Stack::start().await;
    let (_worker, gate) = stack.gate_worker("g1").await;
    gate.open_for_all();
    let before = peak(stack.backend.process.pid());
    let mut costly = chain(14, "allOf", &json!({"type": "integer"}));
    let first = json!({"$ref": costly.as_object_mut().unwrap().remove("$ref")});
    costly["properties"] = json!({"list": {"items": first}});
    publish(&stack, "costly", "costly", &costly).await;
    listed(stack.api(), "costly").await;
    let many = json!({"list": vec![7; 100_000]});
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let health = tokio::spawn(watch_health(stack.api().clone(), stopped));

    let attacks: Vec<_> = (0..8)
        .map(|_| {
            let (api, body) = (stack.api().clone(), many.clone());
            tokio::spawn(async move { api.start("costly", &body).await })
        })
        .collect();
    let id = stack.api().started("gate", &json!({})).await;
    stack.api().wait_for_status(&id, "completed").await;
    // A large body of another type has a place beside them.
    let large = json!({"filler": "x".repeat(100_000)});
    let answer = stack.api().start("gate", &large).await;
    assert_ne!(answer.json["code"], "check_timeout", "{answer}");

    for attack in attacks {
        attack.await.unwrap().expect_problem(503, "check_timeout");
    }
    stop.send(()).unwrap();
    let slowest = health.await.unwrap();
    assert!(slowest < PROMPT, "{slowest:?}");
    let grown = peak(stack.backend.process.pid()) - before;
    assert!(grown < MAX_GROWTH, "{grown} MiB");
    // What the schema says is still checked.
    stack
        .api()
        .start("costly", &json!({"list": [7]}))
        .await
        .expect(202);
    stack
        .api()
        .start("costly", &json!({"list": ["x"]}))
        .await
        .expect_problem(422, "invalid_request");
}

#[tokio::test]
async fn a_domain_stays_with_the_worker_type_that_had_it_first() {
    let stack = Stack::start().await;
    publish(&stack, "victim", "prey", &json!({})).await;
    listed(stack.api(), "victim").await;
    let recorded = stack
        .bus
        .jetstream
        .get_key_value("KTRDR_WORKER_TYPES")
        .await
        .unwrap();
    wait_for("the owner to be recorded", LIMIT, async || {
        match recorded.get("domain.prey").await.unwrap() {
            Some(owner) if *owner == *b"victim" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    // Earlier by name, and older than the next version of the victim's own entry.
    publish(&stack, "aaa", "prey", &json!({})).await;
    let thief = listed(stack.api(), "aaa").await;
    assert_eq!(thief["domain_owner"], "victim");
    publish(&stack, "victim", "prey", &json!({"title": "version 2"})).await;

    let other = BackendProcess::start(&stack.settings).await;
    for api in [stack.api(), &other.api] {
        wait_for("version 2", LIMIT, async || {
            let entry = listed(api, "victim").await;
            if entry["request_schema"]["title"] == "version 2" {
                Ok(())
            } else {
                Err(entry.to_string())
            }
        })
        .await;
        assert_eq!(listed(api, "aaa").await["domain_owner"], "victim");
        assert_eq!(listed(api, "victim").await.get("domain_owner"), None);
        let id = api.started("prey", &json!({})).await;
        let operation = api.operation(&id).await;
        assert_eq!(operation.at("/data/operation_type"), "victim");
    }
    let log = stack.backend.process.log();
    assert_eq!(
        log.lines()
            .filter(|line| line.contains("belongs to another worker type"))
            .count(),
        1
    );

    // An operator removes the owner, and the domain is free.
    recorded.delete("victim").await.unwrap();
    for api in [stack.api(), &other.api] {
        wait_for("the domain to change hands", LIMIT, async || {
            let entry = listed(api, "aaa").await;
            if entry.get("domain_owner").is_none() {
                Ok(())
            } else {
                Err(entry.to_string())
            }
        })
        .await;
        api.start("prey", &json!({})).await.expect(202);
    }
}

/// As values, schemas of small objects take a hundred times their text, and compiled even more.
#[tokio::test]
async fn sixty_schemas_at_the_limit_take_little_memory() {
    /// In MiB. It was 1,050.
    const MAX: u64 = 300;
    let stack = Stack::start().await;
    let pid = stack.backend.process.pid();
    let resident = || resident_memory(pid) / (1024 * 1024);
    let before = resident();

    let objects = vec![json!({"a": 0}); 8_000];
    let properties: Map<String, Value> =
        (0..4_500).map(|at| (format!("p{at}"), json!({}))).collect();
    let schemas = [
        json!({"examples": objects}),
        json!({"properties": {"a": {"enum": objects}}}),
        json!({"properties": properties}),
    ];
    let bucket = stack.bus.jetstream.get_key_value("KTRDR_WORKER_TYPES");
    let bucket = bucket.await.unwrap();
    let names: Vec<String> = (0..60).map(|at| format!("hostile{at}")).collect();
    for (name, schema) in names.iter().zip(schemas.iter().cycle()) {
        let entry = json!({
            "worker_type": name, "domain": name, "description": "", "version": "1",
            "request_schema": schema, "result_schema": schemas[0],
        });
        bucket.put(name, entry.to_string().into()).await.unwrap();
    }
    wait_for("the last one to be known", LIMIT, async || {
        let last = stack.api().start("hostile59", &json!({})).await;
        (last.status == 202).then_some(()).ok_or(last.to_string())
    })
    .await;
    for name in &names {
        // Compiled by now, at the latest.
        stack.api().start(name, &json!({})).await.expect(202);
    }
    // As text: read, it would take the test as much memory as it took the backend.
    for path in ["/api/v1/worker-types", "/openapi.json"] {
        let answer = reqwest::get(format!("{}{path}", stack.api().base())).await;
        let text = answer.unwrap().text().await.unwrap();
        assert_eq!(text.matches("/api/v1/hostile").count(), 60, "{path}");
    }
    // What only requests needed goes back to the system a moment later.
    wait_for("memory to be given back", LIMIT, async || {
        let grown = resident().saturating_sub(before);
        (grown < MAX).then_some(()).ok_or(format!("{grown} MiB"))
    })
    .await;
}

/// Names that are the same without their odd characters, and members that take a hundred times their
/// text.
#[tokio::test]
async fn the_document_of_costly_schemas_is_made_soon_and_once_for_all_clients() {
    let stack = Stack::start().await;
    let names = (0..6_000).map(|at| char::from_u32(0x4e00 + at).unwrap().to_string());
    let definitions: Map<String, Value> = names.map(|name| (name, json!({}))).collect();
    publish(&stack, "odd", "odd", &json!({"$defs": definitions})).await;
    let members = json!({"examples": vec![json!({"a": 0}); 6_000]});
    for name in ["a", "b", "c", "d"] {
        publish(&stack, name, name, &members).await;
        listed(stack.api(), name).await;
    }

    let pid = stack.backend.process.pid();
    let before = peak(pid);

    for path in ["/openapi.json", "/api/v1/worker-types"] {
        let all = (0..40).map(|_| stack.api().get(path));
        let texts: Vec<String> = join_all(all)
            .await
            .into_iter()
            .map(|answer| answer.expect(200).text)
            .collect();
        assert!(texts.iter().all(|text| text.len() == texts[0].len()));
    }

    let more = peak(pid) - before;
    assert!(more < 64, "{more} MiB");
}

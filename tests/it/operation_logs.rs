//! Log lines of operations: from every place of an engine to the REST interface, within their limits, and
//! without harm when the stream is missing or somebody lies.

use ktrdr_protocol::id::{OperationId, WorkerType};
use ktrdr_protocol::log_line::LogLevel;
use ktrdr_tests::events::EventStream;
use ktrdr_tests::talk::TalkEngine;
use ktrdr_tests::{Client, LIMIT, Stack, wait_for};
use reqwest::Method;
use serde_json::{Value, json};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

fn path(id: &str) -> String {
    format!("/api/v1/operations/{id}/logs")
}

/// One page of lines.
async fn page(api: &Client, id: &str, query: &str) -> Value {
    let answer = api.get(&format!("{}?{query}", path(id))).await.expect(200);
    answer.at("/data").clone()
}

fn texts(page: &Value) -> Vec<String> {
    let lines = page["lines"].as_array().unwrap();
    let texts = lines.iter().map(|line| line["text"].as_str().unwrap());
    texts.map(str::to_owned).collect()
}

/// Runs an operation of type `talk` to its end.
async fn talked(api: &Client, body: Value) -> String {
    let id = api.started("talk", &body).await;
    api.wait_for_any_status(&id, &["completed", "failed"]).await;
    id
}

#[tokio::test]
async fn what_an_engine_says_in_any_way_is_read_by_level_and_page_by_page() {
    let layer = ktrdr_worker::events_layer(Some(LogLevel::Info));
    tracing_subscriber::registry().with(layer).init();
    let stack = Stack::start().await;
    let _worker = stack.local_worker(TalkEngine, "t1", &[]).await;
    let api = stack.api();

    let id = talked(api, json!({"lines": 10, "ways": true})).await;

    let all = page(api, &id, "").await;
    let mut expected = vec![
        "with fields".to_owned(),
        "an event".to_owned(),
        "an event of a blocking thread".to_owned(),
        "an event of a thread of its own".to_owned(),
    ];
    expected.extend((0..10).map(|n| format!("line {n}")));
    assert_eq!(texts(&all), expected, "all are stored before the end");
    assert_eq!(all["has_more"], false);
    let first = &all["lines"][0];
    assert_eq!(first["fields"], json!({"rows": 7}));
    assert_eq!(
        (&first["level"], &first["attempt"], &first["worker_id"]),
        (&json!("warn"), &json!(1), &json!("t1"))
    );
    assert_eq!(all["lines"][1]["fields"], json!({"rows": 8}));

    let warnings = page(api, &id, "level=warn").await;
    assert_eq!(
        texts(&warnings),
        [&*expected[0], &expected[2], &expected[3]]
    );
    let (mut cursor, mut read) = (String::new(), Vec::new());
    loop {
        let next = page(api, &id, &format!("limit=3&cursor={cursor}")).await;
        read.extend(texts(&next));
        next["cursor"].as_str().unwrap().clone_into(&mut cursor);
        if next["has_more"] == false {
            break;
        }
    }
    assert_eq!(read, expected);
    assert_eq!(
        texts(&page(api, &id, &format!("cursor={cursor}")).await),
        [""; 0]
    );

    let silent = talked(api, json!({})).await;
    assert_eq!(page(api, &silent, "").await["lines"], json!([]));
    api.get(&path("never-was"))
        .await
        .expect_problem(404, "operation_not_found");
    for bad in ["cursor=x", "cursor=1-2-3"] {
        let answer = api.get(&format!("{}?{bad}", path(&id))).await;
        answer.expect_problem(400, "invalid_cursor");
    }
    let answer = api.get(&format!("{}?level=loud", path(&id))).await;
    answer.expect_problem(400, "invalid_query");
}

#[tokio::test]
async fn lines_are_followed_until_the_operation_has_ended() {
    let stack = Stack::start().await;
    let one = ["--concurrency", "1"];
    let _worker = stack.local_worker(TalkEngine, "t1", &one).await;
    let api = stack.api();
    // The worker says nothing of the operation before both streams are open.
    let silence = json!({"lines": 100_000, "pause_ms": 25, "silent": true});
    let before = api.running("talk", &silence).await;
    let id = api
        .started("talk", &json!({"lines": 40, "pause_ms": 25, "fail": true}))
        .await;

    let mut events = EventStream::open(api, &format!("{}?follow=true", path(&id)), None).await;
    let mut live = EventStream::open(
        api,
        &format!("/api/v1/operations/{id}/events?logs=true"),
        None,
    )
    .await;
    api.cancel(&before).await.expect(200);
    let (mut read, mut cursor, mut pages) = (Vec::new(), "0-0".to_owned(), 0);
    let end = loop {
        let event = events.next().await.expect("an end");
        if event.name == "end" {
            break event.data;
        }
        assert_eq!(event.name, "log");
        assert_eq!(event.data["from"], *cursor, "nothing is missing in between");
        event.data["cursor"]
            .as_str()
            .unwrap()
            .clone_into(&mut cursor);
        read.extend(texts(&event.data));
        pages += 1;
    };

    let expected: Vec<_> = (0..40).map(|n| format!("line {n}")).collect();
    assert_eq!(read, expected);
    assert!(pages > 1, "they come while it runs");
    assert_eq!(end["status"], "failed");
    assert!(events.next().await.is_none(), "nothing follows the end");
    let again = api
        .request(Method::GET, &format!("{}?follow=true", path(&id)))
        .header("last-event-id", cursor);
    assert_eq!(api.send(again).await.status, 204);

    let (mut read, mut others) = (Vec::new(), 0);
    while let Some(event) = live.next().await {
        if event.name == "log" {
            read.extend(texts(&event.data));
        } else {
            others += 1;
        }
    }
    assert_eq!(read, expected);
    assert!(others > 0);
}

/// Reads the events of an operation with its log lines, as a browser that comes back. Returns the answer's
/// status, the texts of the lines, and the last id.
async fn come_back(api: &Client, path: &str, last_id: Option<&str>) -> (u16, Vec<String>, String) {
    let mut request = api.request(Method::GET, path);
    if let Some(id) = last_id {
        request = request.header("last-event-id", id);
    }
    let answer = api.send(request).await;
    let fields = |name: &str| -> Vec<String> {
        let found = answer
            .text
            .lines()
            .filter_map(|line| line.strip_prefix(name));
        found.map(str::to_owned).collect()
    };
    let data = fields("data: ").into_iter();
    let pages = data.map(|data| serde_json::from_str::<Value>(&data).unwrap());
    let lines = pages.filter(|data| data.get("lines").is_some());
    let read = lines.flat_map(|page| texts(&page)).collect();
    let last_id = fields("id: ").pop().unwrap_or_default();
    (answer.status, read, last_id)
}

#[tokio::test]
async fn who_was_interrupted_after_the_end_and_before_the_last_line_gets_all_lines() {
    let stack = Stack::start().await;
    let _worker = stack.local_worker(TalkEngine, "t1", &[]).await;
    let api = stack.api();
    let id = talked(api, json!({"lines": 3})).await;
    let with_lines = format!("/api/v1/operations/{id}/events?logs=true");
    let expected = ["line 0", "line 1", "line 2"];
    let mut events = EventStream::open(api, &with_lines, None).await;
    let end = events.operation(&id, "completed").await.id.unwrap();

    // All that this client has seen is the end.
    let end = end.to_string();
    let (status, read, all) = come_back(api, &with_lines, Some(&end)).await;
    assert_eq!(status, 200);
    assert_eq!(read, expected);
    assert_ne!(all, end, "the last id says that the lines were sent, too");

    let (status, ..) = come_back(api, &with_lines, Some(&all)).await;
    assert_eq!(status, 204, "there is nothing more");
    let (_, read, first) = come_back(api, &with_lines, None).await;
    assert_eq!((read, first), (expected.map(str::to_owned).to_vec(), all));

    // Who has all lines, or wants none, has seen all with the end.
    let cursor = page(api, &id, "").await["cursor"].clone();
    let cursor = cursor.as_str().unwrap();
    for query in [format!("?logs={cursor}"), String::new()] {
        let path = format!("/api/v1/operations/{id}/events{query}");
        let (status, ..) = come_back(api, &path, Some(&end)).await;
        assert_eq!(status, 204, "{query}");
    }
    for bad in ["1/x", "1/", "/1-0", "1/1-0-1"] {
        let request = api
            .request(Method::GET, &with_lines)
            .header("last-event-id", bad);
        let answer = api.send(request).await;
        answer.expect_problem(400, "invalid_header");
    }
}

#[tokio::test]
async fn an_operation_says_no_more_than_it_may_and_keeps_its_last_lines() {
    let stack = Stack::start().await;
    let limits = ["--log-lines", "50", "--log-level", "info"];
    let _worker = stack.local_worker(TalkEngine, "t1", &limits).await;

    let id = talked(stack.api(), json!({"lines": 20_000})).await;

    let said = texts(&page(stack.api(), &id, "").await);
    assert_eq!(said[49], "line 49");
    assert!(said[50].contains("as much as it may"), "{}", said[50]);
    assert_eq!(said[51], "19850 lines left out");
    assert_eq!(said[52], "line 19900");
    assert_eq!(said.last().unwrap(), "line 19999");
    let result = stack
        .api()
        .get(&format!("/api/v1/operations/{id}/results"))
        .await;
    assert_eq!(result.at("/data/kept"), &json!(50));
}

#[tokio::test]
async fn what_the_attempts_before_have_said_counts_too() {
    let stack = Stack::start().await;
    let limits = ["--log-lines", "50"];
    let _worker = stack.local_worker(TalkEngine, "t1", &limits).await;
    let execution = json!({"max_attempts": 3});

    let body = json!({"lines": 30, "fail": true, "execution": execution});
    let id = talked(stack.api(), body).await;

    let found = page(stack.api(), &id, "").await;
    let of_attempt = |number: u64| -> Vec<String> {
        let lines = found["lines"].as_array().unwrap().iter();
        let own = lines.filter(|line| line["attempt"] == number);
        own.map(|line| line["text"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(of_attempt(1).len(), 30);
    let second = of_attempt(2);
    assert_eq!(second[19], "line 19");
    assert!(second[20].contains("said 50 lines"), "{second:?}");
    assert_eq!(second.last().unwrap(), "line 29", "the last ones are kept");
    let third = of_attempt(3);
    assert!(third[0].contains("as much as it may"), "{third:?}");
    let last: Vec<_> = (0..30).map(|n| format!("line {n}")).collect();
    assert_eq!(third[1..], last);
}

#[tokio::test]
async fn lines_that_do_not_agree_with_their_subject_are_not_believed_and_none_harms_a_terminal() {
    let stack = Stack::start().await;
    let _worker = stack.local_worker(TalkEngine, "t1", &[]).await;
    let id = talked(stack.api(), json!({"lines": 1})).await;
    let subject = stack.bus.names.logs(
        &WorkerType::new("talk").unwrap(),
        &OperationId::new(&id).unwrap(),
    );
    let line =
        |text: &str| json!({"timestamp": "2025-11-10T10:30:00Z", "level": "info", "text": text});
    let batch = |id: &str, text: &str| {
        json!({"operation_id": id, "worker_id": "other", "attempt": 9, "lines": [line(text)]})
            .to_string()
    };

    stack
        .bus
        .store(subject.as_str(), batch("another", "a lie"))
        .await;
    stack.bus.store(subject.as_str(), "no batch").await;
    let wild = "\u{1b}[2J\u{1b}]0;title\u{7}wild\u{9b}31m\u{202e}";
    stack.bus.store(subject.as_str(), batch(&id, wild)).await;
    let long = "x".repeat(100_000);
    stack.bus.store(subject.as_str(), batch(&id, &long)).await;

    let found = page(stack.api(), &id, "").await;
    let said = texts(&found);
    assert_eq!(said.len(), 3, "{said:?}");
    assert_eq!(said[0], "line 0");
    assert_eq!(said[1], "\u{fffd}]0;title\u{fffd}wild\u{fffd}31m\u{fffd}");
    assert!(said[2].len() <= 8 * 1024);
    assert_eq!(
        found["lines"][1]["attempt"], 9,
        "a late attempt is told apart"
    );
    let metrics = stack.api().get("/metrics").await.text;
    let refused = "ktrdr_refused_messages_total{kind=\"logs\"} 2";
    assert!(metrics.contains(refused), "{metrics}");
}

#[tokio::test]
async fn operations_run_and_end_without_the_stream_which_comes_back() {
    let stack = Stack::start().await;
    let _worker = stack.local_worker(TalkEngine, "t1", &[]).await;
    let jetstream = &stack.bus.jetstream;
    jetstream.delete_stream("KTRDR_LOGS").await.unwrap();

    let id = talked(stack.api(), json!({"lines": 3})).await;

    let status = stack.api().operation(&id).await;
    assert_eq!(status.at("/data/status"), "completed");
    // The steward may have made the stream again before the lines came.
    let found = texts(&page(stack.api(), &id, "").await);
    let is_whole = found == ["line 0", "line 1", "line 2"];
    assert!(found.is_empty() || is_whole, "{found:?}");
    let mut followed =
        EventStream::open(stack.api(), &format!("{}?follow=true", path(&id)), None).await;
    let mut last = followed.next().await.unwrap();
    while last.name == "log" {
        last = followed.next().await.unwrap();
    }
    assert_eq!(last.name, "end");

    wait_for("the stream", LIMIT, async || {
        let found = jetstream.get_stream("KTRDR_LOGS").await;
        found.map(drop).map_err(|error| error.to_string())
    })
    .await;
    wait_for("lines of a new operation", LIMIT, async || {
        let id = talked(stack.api(), json!({"lines": 1})).await;
        match texts(&page(stack.api(), &id, "").await).as_slice() {
            [line] if line == "line 0" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_cursor_of_a_stream_that_was_replaced_begins_anew() {
    let stack = Stack::start().await;
    let _worker = stack.local_worker(TalkEngine, "t1", &[]).await;
    let api = stack.api();
    let id = talked(api, json!({"lines": 2})).await;
    let end = page(api, &id, "").await["cursor"].clone();
    let end = end.as_str().unwrap();
    // The new stream does not reach as far as the one before.
    let old = "1000-0";

    let behind_end = page(api, &id, &format!("cursor={end}")).await;
    let all = page(api, &id, &format!("cursor={old}")).await;
    let path = format!("{}?follow=true&cursor={old}", path(&id));
    let mut followed = EventStream::open(api, &path, None).await;

    assert_eq!(texts(&behind_end), [""; 0]);
    assert_eq!(texts(&all), ["line 0", "line 1"]);
    assert_eq!(all["cursor"], end);
    let event = followed.next().await.unwrap();
    assert_eq!(texts(&event.data), ["line 0", "line 1"]);
    assert_eq!(event.data["from"], "0-0");
    assert_eq!(followed.next().await.unwrap().name, "end");
}

//! Operations that have left the stream are still there: by id, in lists, in totals.

use std::path::PathBuf;

use futures::future::join_all;
use ktrdr_protocol::id::WorkerType;
use ktrdr_tests::events::EventStream;
use ktrdr_tests::process::peak_memory;
use ktrdr_tests::{
    Answer, BackendProcess, Client, LIMIT, Scratch, Settings, Stack, TokensFile, wait_for,
};
use reqwest::Method;
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A folder for an archive.
struct Place {
    scratch: Scratch,
}

impl Place {
    fn new() -> Self {
        Self {
            scratch: Scratch::new("archive"),
        }
    }

    fn file(&self) -> PathBuf {
        self.scratch.join("archive.db")
    }

    fn setting(&self) -> String {
        format!("sqlite:{}", self.file().display())
    }

    fn settings(&self, settings: Settings) -> Settings {
        settings.with("KTRDR_ARCHIVE", self.setting())
    }

    /// Changes the file behind the backend's back.
    fn change(&self, sql: &str) {
        let file = Connection::open(self.file()).unwrap();
        file.busy_timeout(LIMIT).unwrap();
        file.execute_batch(sql).unwrap();
    }

    /// How many operations the file has.
    fn rows(&self) -> Result<u64, String> {
        let file = Connection::open(self.file()).map_err(|error| error.to_string())?;
        file.query_row("SELECT COUNT(*) FROM operations", [], |row| {
            row.get::<_, i64>(0)
        })
        .map(i64::unsigned_abs)
        .map_err(|error| error.to_string())
    }

    async fn wait_for_rows(&self, count: u64) {
        wait_for("operations in the archive", LIMIT, async || {
            match self.rows()? {
                rows if rows == count => Ok(()),
                rows => Err(format!("{rows} rows")),
            }
        })
        .await;
    }
}

/// Removes everything from the stream, as the retention does later.
async fn empty_stream(stack: &Stack) {
    let name = stack.bus.names.stream();
    let stream = stack.bus.jetstream.get_stream(&name).await.unwrap();
    stream.purge().await.unwrap();
}

async fn wait_until_archived(api: &Client, id: &str) -> Answer {
    api.wait_for_operation(id, "archived", |answer| {
        *answer.at("/data/archived") == json!(true)
    })
    .await
}

/// The operations of a list, newest first, and how many there are in all.
async fn listed(api: &Client, query: &str) -> (Vec<String>, u64) {
    let answer = api.operations(query).await.expect(200);
    assert_eq!(answer.json.get("warning"), None, "{answer}");
    let operations = answer.at("/data/operations").as_array().unwrap();
    let ids = operations.iter().map(|operation| {
        let id = operation["operation_id"].as_str().unwrap();
        id.to_owned()
    });
    (ids.collect(), answer.at("/data/total").as_u64().unwrap())
}

#[tokio::test]
async fn operations_that_left_the_stream_are_shown_as_before() {
    let place = Place::new();
    let stack = Stack::start_with(|settings| {
        let settings = place.settings(settings);
        settings.with("KTRDR_RETENTION", "3s")
    })
    .await;
    let _worker = stack.worker("dummy", "w1").await;
    let api = stack.api();

    let body = json!({"steps": 1, "step_ms": 1});
    let completed = api.started("dummy", &body).await;
    let execution = json!({"max_attempts": 1, "labels": {"sym.bol": "GOOG"}});
    let failing = json!({"steps": 2, "step_ms": 1, "fail_at_step": 1, "execution": execution});
    let failed = api.started("dummy", &failing).await;
    let before = [
        api.wait_for_status(&completed, "completed").await,
        api.wait_for_status(&failed, "failed").await,
    ];
    for operation in &before {
        assert_eq!(operation.get("archived"), None, "{operation}");
    }

    for mut operation in before {
        let id = operation["operation_id"].as_str().unwrap().to_owned();
        let archived = wait_until_archived(api, &id).await;
        operation["archived"] = json!(true);
        assert_eq!(*archived.at("/data"), operation);
        assert_eq!(archived.json["progress"], operation["progress"]);
    }

    // The stream is empty, and everything is still listed, in order.
    let newest_first = vec![failed.clone(), completed.clone()];
    assert_eq!(listed(api, "limit=10").await, (newest_first, 2));
    let only_failed = (vec![failed.clone()], 1);
    assert_eq!(listed(api, "status=failed").await, only_failed);
    assert_eq!(listed(api, "label=sym.bol:GOOG").await, only_failed);
    assert_eq!(listed(api, "label=sym.bol:IBM").await, (vec![], 0));
    assert_eq!(
        listed(api, "offset=1&limit=1").await,
        (vec![completed.clone()], 2)
    );
    let of_type = listed(api, "operation_type=dummy&limit=1").await;
    assert_eq!(of_type, (vec![failed.clone()], 2));
    let unknown = api.operations("operation_type=training").await;
    unknown.expect_problem(400, "invalid_query");

    let path = |id: &str, rest: &str| format!("/api/v1/operations/{id}/{rest}");
    let result = api.get(&path(&completed, "results")).await.expect(200);
    assert_eq!(result.json["status"], "completed");
    let history = api.get(&path(&completed, "history")).await.expect(200);
    assert_eq!(*history.at("/data/history"), json!([]));
    assert_eq!(*history.at("/data/truncated"), json!(true));
    api.get(&path(&completed, "metrics")).await.expect(200);
    let cancel = api.cancel(&completed).await;
    cancel.expect_problem(409, "already_finished");
    let mut events = EventStream::open(api, &path(&completed, "events"), None).await;
    let event = events.operation(&completed, "completed").await;
    assert_eq!(event.data["archived"], json!(true), "{event:?}");

    // Its id is not taken for a new one.
    let mut repeated = body;
    repeated["task_id"] = json!(completed);
    let known = api.start("dummy", &repeated).await.expect(200);
    assert_eq!(known.json["existed"], true, "{known}");
    repeated["steps"] = json!(2);
    let other = api.start("dummy", &repeated).await;
    other.expect_problem(409, "idempotency_mismatch");

    // It can be run again, with the same parameters.
    let again = api.post(&path(&failed, "retry"), &Value::Null).await;
    let again = again.expect(202).json["operation_id"].clone();
    let again = again.as_str().unwrap();
    let retried = api.wait_for_status(again, "failed").await;
    assert_eq!(retried["retry_of"], json!(failed));
    assert_eq!(retried["metadata"]["fail_at_step"], json!(1));
}

#[tokio::test]
async fn a_file_that_is_locked_delays_the_archive_and_nothing_else_also_over_a_kill() {
    let place = Place::new();
    let mut stack = Stack::start_with(|settings| place.settings(settings)).await;
    let _worker = stack.worker("dummy", "w1").await;
    let locked = Connection::open(place.file()).unwrap();
    locked.execute_batch("BEGIN IMMEDIATE").unwrap();

    let mut ids = Vec::new();
    for _ in 0..5 {
        let id = stack.api().started("dummy", &json!({"steps": 0})).await;
        ids.push(id);
    }
    for id in &ids {
        stack.api().wait_for_status(id, "completed").await;
    }
    wait_for("the log to say so", LIMIT, async || {
        match stack.backend.process.log() {
            log if log.contains("the archive cannot be used now") => Ok(()),
            log => Err(log.lines().last().unwrap_or_default().to_owned()),
        }
    })
    .await;
    let metrics = stack.api().get("/metrics").await.text;
    assert!(
        metrics.contains("ktrdr_archive_lag_operations 5"),
        "{metrics}"
    );
    assert!(
        !metrics.contains("ktrdr_archive_errors_total 0"),
        "{metrics}"
    );

    // Killed between the end of an operation and the row.
    stack.backend.process.kill();
    assert_eq!(place.rows(), Ok(0));
    locked.execute_batch("ROLLBACK").unwrap();
    stack.backend.restart().await;

    place.wait_for_rows(5).await;
    empty_stream(&stack).await;
    for id in &ids {
        wait_until_archived(stack.api(), id).await;
    }
    ids.reverse();
    assert_eq!(listed(stack.api(), "limit=10").await, (ids, 5));
}

#[tokio::test]
async fn two_backends_share_one_file_and_list_everything_once() {
    let place = Place::new();
    let stack = Stack::start_with(|settings| place.settings(settings)).await;
    let second = BackendProcess::start(&stack.settings).await;
    let _worker = stack.worker("dummy", "w1").await;
    let mut ids = Vec::new();
    for number in 0..40 {
        let api = [stack.api(), &second.api][number % 2];
        ids.push(api.started("dummy", &json!({"steps": 0})).await);
    }
    ids.reverse();
    for api in [stack.api(), &second.api] {
        for id in &ids {
            api.wait_for_status(id, "completed").await;
        }
    }

    place.wait_for_rows(40).await;
    let lists_all = async |api: &Client, what: &str| {
        wait_for(what, LIMIT, async || {
            let answer = api.try_get("/api/v1/operations?limit=100").await?;
            match answer.at("/data/total").as_u64() {
                Some(40) if answer.json.get("warning").is_none() => Ok(()),
                _ => Err(answer.text),
            }
        })
        .await;
        assert_eq!(listed(api, "limit=100").await, (ids.clone(), 40), "{what}");
        let middle = (ids[15..25].to_vec(), 40);
        assert_eq!(listed(api, "offset=15&limit=10").await, middle, "{what}");
    };
    for api in [stack.api(), &second.api] {
        lists_all(api, "operations in the stream and in the archive").await;
    }

    empty_stream(&stack).await;
    for api in [stack.api(), &second.api] {
        wait_until_archived(api, &ids[0]).await;
        lists_all(api, "operations in the archive").await;
    }
    assert_eq!(place.rows(), Ok(40));
}

#[tokio::test]
async fn a_large_result_is_kept_up_to_a_bound() {
    let place = Place::new();
    let stack = Stack::start_with(|settings| place.settings(settings)).await;
    let _worker = stack.worker("dummy", "w1").await;
    let mut ids = Vec::new();
    for bytes in [300_000_usize, 5_000_000] {
        let body = json!({"steps": 0, "result_bytes": bytes});
        let id = stack.api().started("dummy", &body).await;
        stack.api().wait_for_status(&id, "completed").await;
        ids.push(id);
    }
    place.wait_for_rows(2).await;

    let worker_type = WorkerType::new("dummy").unwrap();
    let bucket = stack.bus.names.results_bucket_of(&worker_type);
    let bucket = stack.bus.jetstream.get_stream(format!("OBJ_{bucket}"));
    bucket.await.unwrap().purge().await.unwrap();
    empty_stream(&stack).await;
    for id in &ids {
        wait_until_archived(stack.api(), id).await;
    }

    let result = |id: &str| format!("/api/v1/operations/{id}/results");
    let kept = stack.api().get(&result(&ids[0])).await.expect(200);
    let filler = kept.at("/data/filler").as_str().map(str::len);
    assert_eq!(filler, Some(300_000));
    let too_large = stack.api().get(&result(&ids[1])).await;
    too_large.expect_problem(410, "result_gone");

    place.change("UPDATE results SET result = '{'");
    let damaged = stack.api().get(&result(&ids[0])).await;
    damaged.expect_problem(502, "invalid_result");
}

#[tokio::test]
async fn a_damaged_row_is_left_out_and_hides_no_other() {
    let place = Place::new();
    let stack = Stack::start_with(|settings| place.settings(settings)).await;
    let _worker = stack.worker("dummy", "w1").await;
    let api = stack.api();
    let mut ids = Vec::new();
    for _ in 0..3 {
        let id = api.started("dummy", &json!({"steps": 0})).await;
        api.wait_for_status(&id, "completed").await;
        ids.push(id);
    }
    place.wait_for_rows(3).await;
    empty_stream(&stack).await;
    for id in &ids {
        wait_until_archived(api, id).await;
    }

    let damaged = &ids[1];
    place.change(&format!(
        "UPDATE operations SET document = '{{}}' WHERE operation_id = '{damaged}'"
    ));

    for query in ["limit=2", "limit=10"] {
        let answer = api.operations(query).await.expect(200);
        let shown = answer.at("/data/operations").as_array().unwrap();
        let shown: Vec<_> = shown.iter().map(|one| &one["operation_id"]).collect();
        assert_eq!(shown, [&json!(ids[2]), &json!(ids[0])], "{answer}");
        let warning = answer.json["warning"].as_str().unwrap();
        assert!(warning.contains("1 cannot be read"), "{warning}");
    }
    let log = stack.backend.process.log();
    let told = log.lines().filter(|line| line.contains("WARN"));
    let told: Vec<_> = told.filter(|line| line.contains(damaged)).collect();
    assert_eq!(told.len(), 1, "{log}");
    let metrics = api.get("/metrics").await.text;
    assert!(
        metrics.contains("ktrdr_archive_damaged_total 2"),
        "{metrics}"
    );
    let asked_for = api.operation(damaged).await;
    asked_for.expect_problem(500, "operation_damaged");
    let metrics = api.get("/metrics").await.text;
    assert!(
        metrics.contains("ktrdr_archive_errors_total 0"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_narrowed_token_sees_only_its_types_in_the_archive() {
    let (place, tokens) = (Place::new(), TokensFile::new());
    let narrow = tokens.set(
        "narrow",
        "scopes = [\"read\", \"cancel\"]\ntypes = [\"training\"]",
    );
    let stack = Stack::start_with(|settings| place.settings(settings.tokens(&tokens))).await;
    let _worker = stack.worker("dummy", "w1").await;
    let id = stack.api().started("dummy", &json!({"steps": 0})).await;
    stack.api().wait_for_status(&id, "completed").await;
    place.wait_for_rows(1).await;
    empty_stream(&stack).await;
    wait_until_archived(stack.api(), &id).await;

    let narrow = stack.api().with_token(&narrow);

    assert_eq!(listed(&narrow, "").await, (vec![], 0));
    let hidden = narrow.operation(&id).await;
    let never = narrow.operation("never-was-here").await;
    let hidden = hidden.expect_problem(404, "operation_not_found").text;
    let never = never.expect_problem(404, "operation_not_found").text;
    assert_eq!(hidden.replace(&id, "never-was-here"), never);
    let cancel = narrow.cancel(&id).await;
    cancel.expect_problem(404, "operation_not_found");
}

#[tokio::test]
async fn a_file_that_can_never_be_the_archive_ends_the_backend_with_a_sentence() {
    let place = Place::new();
    let stack = Stack::start().await;
    let foreign = Connection::open(place.file()).unwrap();
    foreign.execute_batch("CREATE TABLE mine (a)").unwrap();
    let missing = place.scratch.join("missing/archive.db");

    for (setting, text) in [
        (place.setting(), "a file of another program"),
        (
            format!("sqlite:{}", missing.display()),
            "missing does not exist",
        ),
        ("archive.db".to_owned(), "must be `sqlite:`"),
    ] {
        let settings = stack.settings.clone().with("KTRDR_ARCHIVE", setting);
        let mut backend = BackendProcess::launch(&settings);

        let status = backend.process.wait(LIMIT).await;

        assert!(!status.success(), "{text}");
        let log = backend.process.log();
        assert!(log.contains(text), "{text}: {log}");
    }
}

#[tokio::test]
async fn the_archive_forgets_what_is_older_than_its_retention() {
    let place = Place::new();
    let stack = Stack::start_with(|settings| {
        let settings = place.settings(settings);
        settings.with("KTRDR_ARCHIVE_RETENTION", "1ms")
    })
    .await;
    let _worker = stack.worker("dummy", "w1").await;
    let id = stack.api().started("dummy", &json!({"steps": 0})).await;
    stack.api().wait_for_status(&id, "completed").await;
    place.wait_for_rows(1).await;

    // It stays as long as the stream has it.
    empty_stream(&stack).await;

    stack
        .api()
        .wait_for_operation(&id, "forgotten", |answer| answer.status == 404)
        .await;
    place.wait_for_rows(0).await;
}

#[tokio::test]
async fn archived_operations_that_nobody_goes_on_reading_take_little_memory() {
    let place = Place::new();
    let stack = Stack::start_with(|settings| place.settings(settings)).await;
    let _worker = stack.worker("dummy", "w1").await;
    let id = stack.api().started("dummy", &json!({"steps": 0})).await;
    place.wait_for_rows(1).await;

    let file = Connection::open(place.file()).unwrap();
    let (kind, document): (String, String) = file
        .query_row("SELECT worker_type, document FROM operations", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();

    let filler = format!("\"metadata\":{{\"filler\":\"{}\",", "x".repeat(900_000));
    let document = document.replacen("\"metadata\":{", &filler, 1);
    for number in 0..60 {
        let name = format!("large-{number}");
        file.execute(
            "INSERT INTO operations (stream, start_sequence, operation_id, worker_type, status, ended_at, end_sequence, document)
                VALUES (5, ?1, ?2, ?3, 'completed', 9999999999999, ?1 + 1, ?4)",
            (number + 1, &name, &kind, document.replace(&id, &name)),
        )
        .unwrap();
    }

    let large = stack.api().operation("large-1").await.expect(200);
    assert_eq!(large.at("/data/archived"), &json!(true));
    let pid = stack.backend.process.pid();
    let before = peak_memory(pid);

    let address = stack.api().base().trim_start_matches("http://").to_owned();
    let deaf = (0..100).map(async |number| {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        let path = match number % 2 {
            0 => format!("/api/v1/operations?limit=1000&offset={number}"),
            _ => format!("/api/v1/operations/large-{}", number % 60),
        };
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut first = [0; 16];
        // The others have been refused, or read to the end of what the kernel takes.
        let _ = timeout(LIMIT, stream.read(&mut first)).await;
        stream
    });
    let _held = join_all(deaf).await;

    let more = peak_memory(pid).saturating_sub(before) / (1024 * 1024);
    assert!(more < 250, "{more} MiB");
}

#[tokio::test]
async fn a_retry_that_is_repeated_after_both_have_left_the_stream_starts_nothing_twice() {
    let place = Place::new();
    let stack = Stack::start_with(|settings| place.settings(settings)).await;
    let _worker = stack.worker("dummy", "w1").await;
    let api = stack.api();
    let body = json!({"steps": 2, "step_ms": 1, "fail_at_step": 1});
    let failed = api.started("dummy", &body).await;
    api.wait_for_status(&failed, "failed").await;
    let path = format!("/api/v1/operations/{failed}/retry");
    let retry = async || {
        let request = api.request(Method::POST, &path);
        api.send(request.header("idempotency-key", "once")).await
    };
    let first = retry().await.expect(202).json["operation_id"].clone();
    let first = first.as_str().unwrap();
    api.wait_for_status(first, "failed").await;
    place.wait_for_rows(2).await;
    empty_stream(&stack).await;
    wait_until_archived(api, &failed).await;
    wait_until_archived(api, first).await;

    let again = retry().await.expect(200);

    assert_eq!(again.json["operation_id"], first, "{again}");
    assert_eq!(again.json["existed"], true, "{again}");
    assert!(stack.bus.stored("ktrdr.start.*.*").await.is_empty());
}

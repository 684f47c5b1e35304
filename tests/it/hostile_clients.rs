//! Clients without any rights that take connections, memory or time from the others.

use std::time::Duration;

use futures::future::join_all;
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_tests::process::peak_memory;
use ktrdr_tests::{
    BackendProcess, Bus, Client, LIMIT, NatsServer, Settings, Stack, WorkerProcess, wait_for,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{interval, timeout};

/// A connection whose socket holds little: an answer that is not read stays with the backend.
/// With the default, the system takes megabytes of answers, and how many depends on the machine.
async fn connect(api: &Client) -> TcpStream {
    let address = api.base().trim_start_matches("http://");
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 * 1024).unwrap();
    socket.connect(address.parse().unwrap()).await.unwrap()
}

/// Asks on an open connection; the first bytes of the answer, or nothing when there is none soon.
async fn ask(stream: &mut TcpStream, path: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
    let mut buffer = vec![0; 64 * 1024];
    let answer = async {
        stream.write_all(request.as_bytes()).await.ok()?;
        stream.read(&mut buffer).await.ok()
    };
    let read = timeout(Duration::from_secs(2), answer).await;
    let length = read.ok().flatten().unwrap_or_default();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[tokio::test]
async fn idle_connections_do_not_keep_nats_away_and_others_are_told() {
    let mut nats = NatsServer::start().await;
    let settings = Settings {
        descriptors: Some(160),
        ..Settings::fast(nats.url())
    };
    let backend = BackendProcess::start(&settings).await;

    // More than there are descriptors. Those that are served keep their connection.
    let many = (0..300).map(|_| async {
        let mut stream = connect(&backend.api).await;
        let answer = ask(&mut stream, "/health").await;
        (stream, answer)
    });
    let (mut held, mut refused) = (Vec::new(), 0);
    for (stream, answer) in join_all(many).await {
        if answer.starts_with("HTTP/1.1 200 ") {
            held.push(stream);
        } else if answer.starts_with("HTTP/1.1 503 ") && answer.contains("overloaded") {
            refused += 1;
        }
    }
    assert!(held.len() > 50, "{} are served", held.len());

    nats.restart().await;

    let known = &mut held[0];
    wait_for("the backend to be ready again", LIMIT, async || {
        let answer = ask(known, "/ready").await;
        if answer.starts_with("HTTP/1.1 200 ") {
            Ok(())
        } else {
            Err(answer)
        }
    })
    .await;
    assert!(refused > 0, "nobody was told");

    drop(held);
    wait_for("room for others", LIMIT, async || {
        match backend.api.try_get("/metrics").await {
            Ok(page) if page.status == 200 => Ok(page.text),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_header_that_drips_is_cut_off_by_backend_and_worker() {
    let stack = Stack::start().await;
    let worker = stack.worker("dummy", "w1").await;

    let drip = |api: Client| async move {
        let mut stream = connect(&api).await;
        let mut pace = interval(Duration::from_millis(100));

        while stream.write_all(b"G").await.is_ok() {
            pace.tick().await;
        }
    };
    let both = join_all([drip(stack.api().clone()), drip(worker.api.clone())]);
    timeout(LIMIT, both).await.expect("both to be cut off");
}

/// Stores operations with parameters of this size.
async fn store_large(bus: &Bus, count: usize, size: usize) {
    for number in 0..count {
        let request = json!({
            "operation_id": format!("large-{number}"), "operation_type": "dummy",
            "parameters": {"filler": "x".repeat(size)}, "created_at": "2026-01-01T00:00:00Z",
        });
        bus.store("ktrdr.start.dummy.any", request.to_string())
            .await;
    }
}

async fn listed(api: &Client, total: usize) {
    wait_for("all to be listed", LIMIT, async || {
        let answer = api.operations("limit=1").await;
        if answer.at("/data/total") == &json!(total) {
            Ok(())
        } else {
            Err(answer.at("/data/total").to_string())
        }
    })
    .await;
}

#[tokio::test]
async fn a_page_of_large_operations_ends_early_and_nothing_is_left_out() {
    let stack = Stack::start().await;
    store_large(&stack.bus, 50, 500_000).await;
    listed(stack.api(), 50).await;

    let mut ids = Vec::new();
    loop {
        let query = format!("limit=1000&include=result&offset={}", ids.len());
        let page = stack.api().operations(&query).await.expect(200);
        assert!(page.text.len() < 10_000_000, "{} bytes", page.text.len());
        assert_eq!(page.at("/data/limit"), &json!(1000));
        let operations = page.at("/data/operations").as_array().unwrap().clone();
        assert!(!operations.is_empty());
        ids.extend(operations.iter().map(|one| one["operation_id"].clone()));
        if page.at("/data/has_more") != &json!(true) {
            break;
        }
    }

    let expected: Vec<Value> = (0..50).rev().map(|n| json!(format!("large-{n}"))).collect();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn readers_that_never_read_take_little_memory_and_keep_nobody_out() {
    let stack = Stack::start().await;
    store_large(&stack.bus, 50, 500_000).await;
    listed(stack.api(), 50).await;
    let before = peak_memory(stack.backend.process.pid());

    let mut deaf = Vec::new();
    for _ in 0..20 {
        let mut stream = connect(stack.api()).await;
        let request =
            "GET /api/v1/operations?limit=1000&include=result HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        deaf.push(stream);
    }
    // Some begin to be answered, the others are refused.
    let answers = join_all(deaf.iter_mut().map(|stream| async {
        let mut begin = [0; 12];
        let read = timeout(LIMIT, stream.read_exact(&mut begin)).await;
        read.expect("an answer").unwrap();
        String::from_utf8_lossy(&begin).into_owned()
    }))
    .await;

    let served = answers
        .iter()
        .filter(|answer| *answer == "HTTP/1.1 200")
        .count();
    let refused = answers
        .iter()
        .filter(|answer| *answer == "HTTP/1.1 503")
        .count();
    assert!(
        served > 0 && refused > 0 && served + refused == 20,
        "{answers:?}"
    );
    let grown = peak_memory(stack.backend.process.pid()) - before;
    assert!(grown < 64_000_000, "{grown} bytes");
    stack.api().get("/health").await.expect(200);
    stack.api().operation("large-1").await.expect(200);
}

#[tokio::test]
async fn downloads_that_nobody_goes_on_reading_take_little_memory() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let body = json!({"steps": 0, "result_bytes": 24_000_000});
    let id = stack.api().started("dummy", &body).await;
    stack.api().wait_for_status(&id, "completed").await;
    let path = format!("/api/v1/operations/{id}/results");
    let whole = stack.api().get(&path).await.expect(200);
    let filler = whole.at("/data/filler").as_str().map(str::len);
    assert_eq!(filler, Some(24_000_000));
    let before = peak_memory(stack.backend.process.pid());

    // Whoever has read for a while is sent more ahead.
    let mut begun = vec![0; 8_000_000];
    let mut deaf = Vec::new();
    for _ in 0..16 {
        let mut stream = connect(stack.api()).await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let read = timeout(LIMIT, stream.read_exact(&mut begun)).await;
        read.expect("the beginning of the result").unwrap();
        deaf.push(stream);
    }

    let grown = peak_memory(stack.backend.process.pid()) - before;
    assert!(grown < 64_000_000, "{grown} bytes");
    stack.api().get("/health").await.expect(200);
}

#[tokio::test]
async fn requests_that_wait_leave_room_for_those_that_do_not() {
    let nats = NatsServer::start().await;
    let settings = Settings {
        descriptors: Some(128),
        ..Settings::fast(nats.url())
    };
    let backend = BackendProcess::start(&settings).await;
    let names = SubjectNames::new(&settings.prefix).unwrap();
    let bus = Bus::connect(&nats.url(), names).await;
    store_large(&bus, 1, 10).await;
    listed(&backend.api, 1).await;

    // As many as there are connections; half of them follow events.
    let mut held = Vec::new();
    for number in 0..56 {
        let path = match number % 2 {
            0 => "/api/v1/events",
            _ => "/api/v1/operations/large-0?wait=60",
        };
        let mut stream = connect(&backend.api).await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        held.push(stream);
    }

    // Otherwise one of those below could take the last place.
    wait_for("all to be received", LIMIT, async || {
        let log = backend.process.log();
        let count = |path| {
            let line = |line: &&str| line.contains("request received") && line.contains(path);
            log.lines().filter(line).count()
        };
        match (count("/api/v1/events"), count("large-0")) {
            (28, 28) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;

    wait_for("further ones to be refused", LIMIT, async || {
        let answer = backend
            .api
            .try_get("/api/v1/operations/large-0?wait=0.1")
            .await?;
        if answer.status == 503 {
            answer.expect_problem(503, "overloaded");
            Ok(())
        } else {
            Err(answer.to_string())
        }
    })
    .await;
    backend.api.operation("large-0").await.expect(200);
}

#[tokio::test]
async fn a_flood_of_bad_messages_writes_few_log_lines() {
    let stack = Stack::start().await;

    for number in 0..1000 {
        let subject = format!("ktrdr.op.dummy.bad-{number}");
        stack
            .bus
            .jetstream
            .publish(subject, "noise".into())
            .await
            .unwrap();
    }
    let page = wait_for("all to be counted", LIMIT, async || {
        let page = stack.api().try_get("/metrics").await?;
        let wanted = "ktrdr_projection_skipped_messages_total 1000";
        if page.text.lines().any(|line| line == wanted) {
            Ok(page)
        } else {
            Err("fewer".to_owned())
        }
    })
    .await;
    page.expect(200);

    let log = stack.backend.process.log();
    let lines = log.lines().filter(|line| line.contains(" WARN ")).count();
    assert!((1..10).contains(&lines), "{lines} lines");
}

#[tokio::test]
async fn bodies_that_are_held_back_take_little_memory_and_keep_nobody_out() {
    let nats = NatsServer::start().await;
    let settings = Settings::fast(nats.url()).with("KTRDR_MAX_BODY", "8MiB");
    let backend = BackendProcess::start(&settings).await;
    let _worker = WorkerProcess::start(&settings, "dummy", "w1").await;
    backend.api.wait_for_worker("w1", "AVAILABLE").await;
    let before = peak_memory(backend.process.pid());

    // Each sends all but the last byte of its body.
    const SIZE: usize = 7 * 1024 * 1024;
    let held = join_all((0..40).map(|_| async {
        let mut stream = connect(&backend.api).await;
        let head = format!(
            "POST /api/v1/dummy/start HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {SIZE}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b' '; SIZE - 1]).await.unwrap();
        stream
    }))
    .await;

    wait_for("a large start to be refused", LIMIT, async || {
        let body = json!({"filler": "x".repeat(15 * 512 * 1024)});
        let answer = backend.api.start("dummy", &body).await;
        if answer.status == 503 {
            answer.expect_problem(503, "overloaded");
            Ok(())
        } else {
            Err(answer.status.to_string())
        }
    })
    .await;
    let grown = peak_memory(backend.process.pid()) - before;
    // All of them together have sent 294 MB.
    assert!(grown < 160_000_000, "{grown} bytes");

    drop(held);
    wait_for("room for others", LIMIT, async || {
        match backend.api.start("dummy", &json!({"steps": 0})).await {
            answer if answer.status == 202 => Ok(()),
            answer => Err(answer.to_string()),
        }
    })
    .await;
}

#[tokio::test]
async fn single_documents_that_nobody_reads_take_little_memory() {
    let stack = Stack::start().await;
    store_large(&stack.bus, 1, 500_000).await;
    listed(stack.api(), 1).await;
    let before = peak_memory(stack.backend.process.pid());

    // Several requests on each connection: the socket holds the first answer.
    let mut deaf = Vec::new();
    for number in 0..400 {
        let path = match number % 2 {
            0 => "/api/v1/operations/large-0",
            _ => "/api/v1/operations/large-0/history",
        };
        let mut stream = connect(stack.api()).await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n");
        stream
            .write_all(request.repeat(16).as_bytes())
            .await
            .unwrap();
        deaf.push(stream);
    }

    wait_for("large answers to be refused", LIMIT, async || {
        let answer = stack.api().try_get("/api/v1/operations/large-0").await?;
        if answer.status == 503 {
            Ok(())
        } else {
            Err(answer.status.to_string())
        }
    })
    .await;
    stack.api().get("/health").await.expect(200);
    let grown = peak_memory(stack.backend.process.pid()) - before;
    assert!(grown < 200_000_000, "{grown} bytes");

    drop(deaf);
    wait_for("room for others", LIMIT, async || {
        match stack.api().try_get("/api/v1/operations/large-0").await? {
            answer if answer.status == 200 => Ok(()),
            answer => Err(answer.status.to_string()),
        }
    })
    .await;
}

//! The Rust client beside starting and waiting: many operations at once, schedules, queues, workers, and
//! TLS with an authority of one's own.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Json;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use ktrdr_client::{
    ByFilter, Client, Error, ErrorCode, ListOperations, OperationFilter, OperationId, Overlap,
    PutSchedule, ScheduleId, Status, Timestamp, WorkerId, WorkerType,
};
use ktrdr_tests::certificates::Authority;
use ktrdr_tests::{BackendProcess, LIMIT, NatsServer, Settings, Stack, wait_for};
use serde_json::{Value, json};

fn client_of(stack: &Stack) -> Client {
    Client::new(stack.api().base()).unwrap()
}

fn id(text: &str) -> OperationId {
    OperationId::new(text).unwrap()
}

/// Operations of no worker that is there, so they wait.
fn waiting() -> Value {
    json!({"execution": {"requirements": {"gpu": true}}})
}

fn with_label(label: &str) -> OperationFilter {
    OperationFilter {
        label: vec![label.parse().unwrap()],
        ..OperationFilter::default()
    }
}

/// A server that refuses twice what passes, and then answers.
async fn recovering_server() -> (String, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let count = requests.clone();
    let answer = async move || match count.fetch_add(1, Ordering::SeqCst) {
        0 => {
            let busy = json!({"success": false, "error": "busy", "code": "overloaded", "status_code": 503});
            let after = [("retry-after", "1")];
            (StatusCode::SERVICE_UNAVAILABLE, after, Json(busy)).into_response()
        }
        1 => (StatusCode::BAD_GATEWAY, "<html>Bad gateway</html>").into_response(),
        _ => Json(json!({"success": true, "data": {"worker_types": []}})).into_response(),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, get(answer).into_make_service()).await });
    (address, requests)
}

#[tokio::test]
async fn what_passes_is_repeated_and_not_before_the_server_wants_it() {
    let (address, requests) = recovering_server().await;
    let client = Client::new(&address).unwrap().give_up_after(Duration::MAX);
    let begin = Instant::now();

    let types = client.worker_types().await.unwrap();

    assert!(types.is_empty());
    assert_eq!(requests.load(Ordering::SeqCst), 3);
    assert!(begin.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn a_certificate_that_is_not_believed_is_an_error_at_once() {
    let (ours, other) = (Authority::new(), Authority::new());
    let (_nats, _backend, address) = https_backend(&ours).await;
    let pem = fs::read(other.certificate()).unwrap();
    let client = Client::with_authority(&address, &pem).unwrap();
    let client = client.give_up_after(Duration::MAX);

    let refused = tokio::time::timeout(LIMIT, client.stats()).await;

    let refused = refused.expect("an error before the patience ends");
    assert!(matches!(refused, Err(Error::Unreachable(_))), "{refused:?}");
}

#[tokio::test]
async fn many_operations_start_with_one_call_and_are_found_by_their_labels() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let client = client_of(&stack);
    let noop = json!({"steps": 0});
    let starts = || {
        (0..1001).map(|number| {
            client
                .start("dummy", &noop)
                .operation_id(id(&format!("many-{number}")))
                .label("group", if number % 2 == 0 { "even" } else { "odd" })
        })
    };

    let started = client.start_many(starts()).await.unwrap();
    let again = client.start_many(starts()).await.unwrap();

    assert_eq!((started.accepted, started.refused), (1001, 0));
    assert_eq!(started.results[1000].operation_id, Some(id("many-1000")));
    assert_eq!(started.results[1000].status_code, 202);
    assert_eq!(again.accepted, 1001);
    assert!(again.results.iter().all(|one| one.status_code == 200));
    client.wait(&id("many-1000")).await.unwrap();
    let query = ListOperations {
        filter: with_label("group:even"),
        limit: Some(1),
        ..ListOperations::default()
    };
    assert_eq!(client.list(&query).await.unwrap().total, 501);
}

#[tokio::test]
async fn a_refused_start_keeps_none_of_the_others() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let client = client_of(&stack);
    let (good, bad) = (json!({"steps": 0}), json!({"steps": -1}));

    let starts = [client.start("dummy", &bad), client.start("dummy", &good)];
    let started = client.start_many(starts).await.unwrap();
    let mixed = [
        client.start("dummy", &good),
        client.start("training", &good),
    ];
    let mixed = client.start_many(mixed).await;
    let keyed = [client.start("dummy", &good).idempotency_key("k")];
    let keyed = client.start_many(keyed).await;
    let none = client.start_many([]).await.unwrap();

    assert_eq!((started.accepted, started.refused), (1, 1));
    assert_eq!(started.results[0].code, Some(ErrorCode::InvalidRequest));
    assert_eq!(started.results[1].status_code, 202);
    for refused in [mixed, keyed] {
        let refused = refused.unwrap_err().error;
        assert!(matches!(refused, Error::InvalidStarts(_)), "{refused:?}");
    }
    assert!(none.results.is_empty());
}

#[tokio::test]
async fn all_that_match_are_cancelled_and_retried() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let client = client_of(&stack);
    let body = waiting();
    for (name, group) in [("a1", "a"), ("a2", "a"), ("b1", "b")] {
        let start = client.start("dummy", &body).operation_id(id(name));
        start.label("group", group).await.unwrap();
    }
    let mut asked = ByFilter {
        filter: with_label("group:a"),
        limit: None,
        dry_run: true,
    };

    let would = client.cancel_all(&asked).await.unwrap().data;
    assert_eq!((would.matched, would.done), (2, 0));
    assert_eq!(client.get(&id("a1")).await.unwrap().status, Status::Pending);

    asked.dry_run = false;
    let did = client.cancel_all(&asked).await.unwrap().data;
    assert_eq!((did.matched, did.done), (2, 2));
    for (name, status) in [("a1", "cancelled"), ("a2", "cancelled"), ("b1", "pending")] {
        stack.api().wait_for_status(name, status).await;
    }

    let retried = client.retry_all(&asked).await.unwrap().data;
    assert_eq!(retried.done, 2);
    let new = retried.results[0].retried_as.clone().unwrap();
    let repeats = client
        .get(&new)
        .await
        .unwrap()
        .retry_of
        .map(|id| id.to_string());
    assert_eq!(repeats, Some(retried.results[0].operation_id.to_string()));

    let everything = ByFilter {
        filter: OperationFilter::default(),
        limit: None,
        dry_run: true,
    };
    let refused = client.cancel_all(&everything).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::InvalidRequest));
}

#[tokio::test]
async fn a_schedule_is_written_run_paused_and_deleted() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let client = client_of(&stack);
    let nightly: ScheduleId = "nightly".parse().unwrap();
    let schedule = PutSchedule {
        time_zone: "Europe/Berlin".to_owned(),
        overlap: Overlap::Queue,
        ..PutSchedule::new("dummy", "30 2 * * *", &json!({"steps": 0})).unwrap()
    };

    let put = client.put_schedule(&nightly, &schedule).await.unwrap();
    assert_eq!((put.next_runs.len(), put.overlap), (5, Overlap::Queue));
    assert_eq!(client.schedules().await.unwrap().len(), 1);

    let started = client.run_schedule(&nightly).await.unwrap();
    client.wait(&started.operation_id).await.unwrap();
    let shown = client.schedule(&nightly).await.unwrap();
    assert_eq!(shown.last_run.unwrap().operation_id, *started.operation_id);

    assert!(client.pause_schedule(&nightly).await.unwrap().paused);
    assert!(!client.resume_schedule(&nightly).await.unwrap().paused);
    client.delete_schedule(&nightly).await.unwrap();
    let gone = client.schedule(&nightly).await.unwrap_err();
    assert_eq!(gone.code(), Some(ErrorCode::ScheduleNotFound));

    let bad = PutSchedule::new("dummy", "every day", &json!({})).unwrap();
    let refused = client.put_schedule(&nightly, &bad).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::InvalidRequest));
}

#[tokio::test]
async fn queues_are_paused_and_workers_drained() {
    let stack = Stack::start().await;
    let _worker = stack.worker("dummy", "w1").await;
    let client = client_of(&stack);
    let dummy: WorkerType = "dummy".parse().unwrap();
    let worker: WorkerId = "w1".parse().unwrap();
    let later = Timestamp::from_millis(Timestamp::now().as_millis() + 3_600_000);

    let paused = client.pause_queues(&dummy, Some(later)).await.unwrap();
    assert_eq!(paused.paused_until, Some(later));
    wait_for("the queue to be shown as paused", LIMIT, async || {
        let queues = client.queues().await.unwrap();
        let is_paused = queues.iter().any(|queue| queue.paused);
        is_paused.then_some(()).ok_or(format!("{queues:?}"))
    })
    .await;
    assert!(!client.resume_queues(&dummy).await.unwrap().paused);

    assert!(client.drain(&worker).await.unwrap().draining);
    stack.api().wait_for_worker("w1", "DRAINING").await;
    assert!(!client.undrain(&worker).await.unwrap().draining);
    stack.api().wait_for_worker("w1", "AVAILABLE").await;

    let nobody = client.drain(&"nobody".parse().unwrap()).await.unwrap_err();
    assert_eq!(nobody.code(), Some(ErrorCode::WorkerNotFound));
}

/// A backend that speaks only HTTPS, with a certificate for this host.
pub(super) async fn https_backend(authority: &Authority) -> (NatsServer, BackendProcess, String) {
    let nats = NatsServer::start().await;
    let own = authority.issue("IP:127.0.0.1");
    let settings = Settings::fast(nats.url())
        .with("KTRDR_TLS_CERT", own.certificate.display().to_string())
        .with("KTRDR_TLS_KEY", own.key.display().to_string());
    let backend = BackendProcess::launch(&settings);
    let address = backend.api.base().replace("http://", "https://");

    let pem = fs::read(authority.certificate()).unwrap();
    let client = Client::with_authority(&address, &pem).unwrap();
    wait_for("the backend to answer over TLS", LIMIT, async || {
        let answer = client.stats().await;
        answer.map(drop).map_err(|error| format!("{error:?}"))
    })
    .await;
    (nats, backend, address)
}

#[tokio::test]
async fn only_the_authority_of_the_backend_is_believed() {
    let authority = Authority::new();
    let (_nats, _backend, address) = https_backend(&authority).await;
    let other = fs::read(Authority::new().certificate()).unwrap();

    for stranger in [
        Client::with_authority(&address, &other).unwrap(),
        // The authorities of the machine do not know it.
        Client::new(&address).unwrap(),
    ] {
        let stranger = stranger.give_up_after(Duration::ZERO);
        let refused = stranger.stats().await.unwrap_err();
        let Error::Unreachable(source) = refused else {
            panic!("{refused:?}");
        };
        let why = format!("{source:?}");
        assert!(why.contains("InvalidCertificate"), "{why}");
    }
}

#[tokio::test]
async fn a_schedule_is_deleted_also_when_the_answer_to_it_was_lost() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let lossy = std::thread::spawn(move || {
        // The first answer is lost. Afterwards the schedule is not there.
        let (mut first, _) = listener.accept().unwrap();
        assert!(first.read(&mut [0; 4096]).unwrap() > 0);
        drop(first);
        for _ in 0..2 {
            let (mut later, _) = listener.accept().unwrap();
            assert!(later.read(&mut [0; 4096]).unwrap() > 0);
            let gone = "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
            later.write_all(gone.as_bytes()).unwrap();
        }
    });
    let client = Client::new(&address).unwrap();
    let nightly: ScheduleId = "nightly".parse().unwrap();

    client.delete_schedule(&nightly).await.unwrap();

    let missing = client.delete_schedule(&nightly).await.unwrap_err();
    assert!(matches!(missing, Error::Refused(refusal) if refusal.status == 404));
    lossy.join().unwrap();
}

//! What is said when a permission is missing, or when a stream belongs to another prefix.

use ktrdr_tests::secure::{configuration, installation};
use ktrdr_tests::{BackendProcess, LIMIT, NatsServer, Settings, WorkerProcess, wait_for};
use serde_json::json;

use super::TYPES;

#[tokio::test]
async fn a_backend_without_a_permission_names_it() {
    let users = configuration(&installation(&TYPES));
    let without = users.replacen("\"$JS.API.STREAM.MSG.GET.KTRDR\"", "", 1);
    let without = without.replacen("\"$JS.API.CONSUMER.CREATE.KTRDR\"", "", 1);
    assert_ne!(users, without);
    let nats = NatsServer::start_with(&without).await;
    let settings = Settings {
        secure: true,
        ..Settings::fast(nats.url())
    };

    let backend = BackendProcess::launch(&settings);
    let subject = "publish $JS.API.CONSUMER.CREATE.KTRDR";
    wait_for("/ready to name the permission", LIMIT, async || {
        let answer = backend.api.try_get("/ready").await?;
        if answer.status == 503 && answer.text.contains(subject) {
            Ok(())
        } else {
            Err(answer.to_string())
        }
    })
    .await;

    let log = backend.process.log();
    let lines = log.lines().filter(|line| line.contains("may not publish"));
    let named: Vec<&str> = lines.collect();
    assert_eq!(named.len(), 1, "{named:#?}");
}

/// A backend and a dummy worker at a server with this configuration. The server and the worker live as
/// long as the second part of the answer.
async fn start_with(configuration: &str) -> (BackendProcess, (NatsServer, WorkerProcess)) {
    let nats = NatsServer::start_with(configuration).await;
    let settings = Settings {
        secure: true,
        ..Settings::fast(nats.url())
    };

    let backend = BackendProcess::start(&settings).await;
    let worker = WorkerProcess::start(&settings, "dummy", "d1").await;
    backend.api.wait_for_worker("d1", "AVAILABLE").await;
    (backend, (nats, worker))
}

#[tokio::test]
async fn a_start_that_the_server_does_not_permit_names_the_permission() {
    let users = configuration(&installation(&TYPES));
    let without = users.replacen("\"ktrdr.start.*.*\"", "\"ktrdr.start.training.*\"", 1);
    assert_ne!(users, without);
    let (backend, _others) = start_with(&without).await;

    let refused = backend.api.start("dummy", &json!({"steps": 0})).await;

    let missing = json!(["publish ktrdr.start.dummy.any"]);
    let refused = refused.expect_problem(503, "nats_unavailable");
    assert_eq!(refused.json["missing_permissions"], missing);
    assert!(refused.text.contains("does not permit"), "{refused}");
}

#[tokio::test]
async fn a_large_result_that_may_not_be_stored_fails_and_frees_its_slot() {
    let users = configuration(&installation(&TYPES));
    let parts = "\"$O.KTRDR_RESULTS_of_dummy.C.*\"";
    let descriptions = "\"$O.KTRDR_RESULTS_of_dummy.M.*\"";
    let without = users.replace(&format!("{parts}, {descriptions}"), descriptions);
    assert_ne!(users, without);
    let (backend, _others) = start_with(&without).await;

    let large = json!({"steps": 0, "result_bytes": 600_000});
    let id = backend.api.started("dummy", &large).await;

    let failed = backend.api.wait_for_status(&id, "failed").await;
    assert_eq!(failed["error"]["code"], "result_not_stored", "{failed}");
    let message = failed["error_message"].as_str().unwrap();
    assert!(
        message.contains("$O.KTRDR_RESULTS_of_dummy.C."),
        "{message}"
    );
    backend.api.wait_for_worker("d1", "AVAILABLE").await;
}

#[tokio::test]
async fn prefixes_with_the_same_stream_names_do_not_mix() {
    let nats = NatsServer::start().await;
    let of = |prefix: &str| Settings {
        prefix: prefix.to_owned(),
        ..Settings::fast(nats.url())
    };
    let _first = BackendProcess::start(&of("acme.prod")).await;
    let bus = nats.bus().await;
    let subjects = async |stream: &str| {
        let mut stream = bus.jetstream.get_stream(stream).await.unwrap();
        stream.info().await.unwrap().config.subjects.clone()
    };
    let before = (
        subjects("ACME_PROD").await,
        subjects("ACME_PROD_METRICS").await,
    );

    for other in ["acme_prod", "ACME.PROD", "acme.prod.metrics"] {
        let mut backend = BackendProcess::launch(&of(other));
        let status = backend.process.wait(LIMIT).await;
        assert!(!status.success());
        let log = backend.process.log();
        assert!(
            log.contains("belongs to another KTRDR_SUBJECT_PREFIX"),
            "{log}"
        );

        if other == "acme.prod.metrics" {
            // No backend of this prefix has made anything yet, so its workers wait for one.
            continue;
        }
        let mut worker = WorkerProcess::launch(&of(other), "dummy", "w1");
        let status = worker.process.wait(LIMIT).await;
        assert!(!status.success());
        let log = worker.process.log();
        assert!(
            log.contains("belongs to another KTRDR_SUBJECT_PREFIX"),
            "{log}"
        );
    }

    let after = (
        subjects("ACME_PROD").await,
        subjects("ACME_PROD_METRICS").await,
    );
    assert_eq!(before, after);
}

//! Least privilege on the bus.

use ktrdr_tests::{BackendProcess, LIMIT, NatsServer, Settings, WorkerProcess};

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

//! The harness itself, which the other tests rely on.

use std::time::Duration;

use futures::FutureExt;
use ktrdr_bus::nats;
use ktrdr_bus::settings::NatsOptions;
use ktrdr_protocol::subject::SubjectNames;
use ktrdr_tests::engines::{BlockingEngine, FlakyEngine, GateEngine};
use ktrdr_tests::process::Signal;
use ktrdr_tests::{LIMIT, NatsServer, Proxy, wait_for};
use ktrdr_worker::OperationError;
use ktrdr_worker::testing::TestRun;
use serde_json::json;

async fn create_stream(server: &NatsServer) -> ktrdr_tests::Bus {
    let bus = server.bus().await;
    let config = async_nats::jetstream::stream::Config {
        name: bus.names.stream(),
        subjects: bus.names.stream_subjects(),
        ..Default::default()
    };
    bus.jetstream.create_stream(config).await.unwrap();
    bus
}

#[tokio::test]
async fn stored_messages_survive_stop_and_kill_at_the_same_port() {
    let mut server = NatsServer::start().await;

    let port = server.port();
    let bus = create_stream(&server).await;
    let subject = format!("{}.op.dummy.a", bus.names.prefix());
    bus.store(subject.clone(), "one").await;
    server.stop().await;
    server.run().await;
    bus.store(subject.clone(), "two").await;
    server.restart().await;

    assert_eq!(server.port(), port);

    let bus = server.bus().await;

    let payloads: Vec<_> = bus
        .stored(&subject)
        .await
        .into_iter()
        .map(|message| message.payload)
        .collect();
    assert_eq!(payloads, ["one", "two"]);
    assert_eq!(bus.backlog().await, []);
}

#[tokio::test]
async fn two_servers_are_strangers() {
    let (one, two) = tokio::join!(NatsServer::start(), NatsServer::start());
    create_stream(&one).await;
    let bus = two.bus().await;
    assert!(bus.jetstream.get_stream(bus.names.stream()).await.is_err());
}

#[tokio::test]
async fn a_frozen_server_continues_where_it_was() {
    let mut server = NatsServer::start().await;

    let bus = create_stream(&server).await;
    server.signal(Signal::Stop);

    let request = bus.jetstream.get_stream(bus.names.stream());
    assert!(
        tokio::time::timeout(Duration::from_millis(300), request)
            .await
            .is_err()
    );

    server.signal(Signal::Cont);
    bus.jetstream.get_stream(bus.names.stream()).await.unwrap();
}

#[tokio::test]
async fn a_server_takes_a_configuration_of_the_tests_own() {
    let server = NatsServer::start_with("max_payload: 1000").await;
    assert_eq!(server.bus().await.client.server_info().max_payload, 1000);
}

fn options(url: String) -> NatsOptions {
    NatsOptions {
        nats_url: url,
        ..ktrdr_worker::Config::default().nats
    }
}

#[tokio::test]
async fn a_cut_line_is_noticed_and_comes_back() {
    let server = NatsServer::start().await;
    let proxy = Proxy::start(server.port()).await;

    let connection = nats::connect(&options(proxy.url()), "test").await.unwrap();
    connection.up().await;
    proxy.cut();
    wait_for("the loss to be noticed", LIMIT, async || {
        if connection.is_up() {
            Err("up".into())
        } else {
            Ok(())
        }
    })
    .await;
    proxy.restore();
    connection.up().await;
    connection.jetstream.query_account().await.unwrap();

    assert_eq!(connection.link.borrow().epoch, 2);
}

#[tokio::test]
async fn a_held_line_delivers_what_was_held() {
    let server = NatsServer::start().await;
    let proxy = Proxy::start(server.port()).await;
    let direct = server.bus().await;
    let through = ktrdr_tests::Bus::connect(&proxy.url(), direct.names.clone()).await;

    let mut heard = direct.subscribe("x").await;
    proxy.hold();
    through.client.publish("x", "late".into()).await.unwrap();
    direct.publish("x", "first").await;

    assert_eq!(direct.next(&mut heard).await.payload, "first");

    proxy.restore();

    assert_eq!(direct.next(&mut heard).await.payload, "late");
}

#[tokio::test]
async fn a_proxy_follows_to_another_server() {
    let (one, two) = tokio::join!(NatsServer::start(), NatsServer::start());
    let proxy = Proxy::start(one.port()).await;
    let names = SubjectNames::new("ktrdr").unwrap();
    let name = |bus: &ktrdr_tests::Bus| bus.client.server_info().server_id;
    let before = name(&ktrdr_tests::Bus::connect(&proxy.url(), names.clone()).await);

    proxy.redirect(two.port());
    let after = name(&ktrdr_tests::Bus::connect(&proxy.url(), names).await);

    assert_eq!(
        (before, after),
        (name(&one.bus().await), name(&two.bus().await))
    );
}

#[tokio::test]
async fn a_wait_that_fails_says_what_it_saw_last() {
    let wait = wait_for("the impossible", Duration::from_millis(50), async || {
        Err::<(), _>("a unicorn".to_owned())
    });
    let panic = std::panic::AssertUnwindSafe(wait)
        .catch_unwind()
        .await
        .unwrap_err();
    let text = panic.downcast_ref::<String>().unwrap();
    assert!(
        text.contains("the impossible")
            && text.contains("a unicorn")
            && text.contains("harness.rs"),
        "{text}"
    );
}

#[tokio::test]
async fn a_gate_holds_its_engine_until_it_is_opened() {
    let (engine, gate) = GateEngine::new();

    let run = TestRun::new();
    let work = run.run(&engine, json!({}));
    tokio::pin!(work);

    assert!(work.as_mut().now_or_never().is_none());
    assert_eq!(gate.started().await.1, 1);
    assert!(work.as_mut().now_or_never().is_none());

    gate.open(1);

    assert_eq!(work.await.unwrap().attempt, 1);

    run.cancel();

    assert_eq!(
        run.run(&engine, json!({})).await.unwrap_err(),
        OperationError::Cancelled
    );
    assert_eq!(gate.unseen().await.len(), 1);
}

#[tokio::test]
async fn blocking_and_flaky_engines_do_as_told() {
    let run = TestRun::new();
    assert_eq!(
        run.run(&BlockingEngine, json!({"millis": 5}))
            .await
            .unwrap()
            .attempt,
        1
    );
    assert_eq!(run.run(&FlakyEngine, json!({})).await.unwrap().attempt, 1);

    let error = run
        .run(&FlakyEngine, json!({"failures": 1, "how": "permanent"}))
        .await
        .unwrap_err();
    assert!(matches!(
        error,
        OperationError::Permanent { ref code, .. } if code == "flaky"
    ));

    run.cancel();

    let error = run
        .run(&BlockingEngine, json!({"millis": 60_000}))
        .await
        .unwrap_err();
    assert_eq!(error, OperationError::Cancelled);
}

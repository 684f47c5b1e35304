//! Measures what fsync before acknowledgement costs on this machine: acknowledged publishes a
//! second, with it and without.
//!
//!     NATS_SERVER=$(scripts/get-nats) cargo run -p ktrdr-tests --example publish_rate
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a measurement reports by panicking"
)]

use std::time::{Duration, Instant};

use futures::StreamExt;
use ktrdr_tests::chaos::SYNC_ALWAYS;
use ktrdr_tests::{Cluster, NatsServer};

/// How long each figure is measured.
const LENGTH: Duration = Duration::from_secs(3);

/// The size of a start request or a state change.
const MESSAGE: usize = 400;

#[tokio::main]
async fn main() {
    println!(
        "{:<44} {:>10} {:>14}",
        "acknowledged publishes a second", "one by one", "64 under way"
    );

    for (name, configuration) in [
        ("sync_interval: always", SYNC_ALWAYS),
        ("sync_interval: 2m, the default", ""),
    ] {
        let server = NatsServer::start_with(configuration).await;
        measure(&format!("one server, {name}"), &server.url(), 1).await;
        let cluster = Cluster::start_with(configuration).await;
        measure(
            &format!("three servers and copies, {name}"),
            &cluster.servers[0].url(),
            3,
        )
        .await;
    }
}

async fn measure(name: &str, url: &str, copies: usize) {
    let jetstream = async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
    let config = async_nats::jetstream::stream::Config {
        name: "rate".to_owned(),
        subjects: vec!["rate.*".to_owned()],
        num_replicas: copies,
        ..Default::default()
    };

    jetstream.create_stream(config).await.unwrap();

    let mut rates = Vec::new();
    for under_way in [1, 64] {
        let began = Instant::now();
        let publishes = futures::stream::iter(0_u64..)
            .take_while(|_| std::future::ready(began.elapsed() < LENGTH));
        let acknowledged = publishes.map(|n| {
            let (jetstream, subject) = (jetstream.clone(), format!("rate.{}", n % 1000));
            async move {
                jetstream
                    .publish(subject, vec![b'x'; MESSAGE].into())
                    .await
                    .unwrap()
                    .await
                    .unwrap()
            }
        });
        let count = acknowledged.buffer_unordered(under_way).count().await;
        rates.push(count as f64 / began.elapsed().as_secs_f64());
    }

    println!("{name:<44} {:>10.0} {:>14.0}", rates[0], rates[1]);
}

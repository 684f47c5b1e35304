//! Three nats-servers that are one JetStream.

use std::time::Duration;

use async_nats::jetstream;
use futures::future::join_all;

use crate::nats::NatsServer;
use crate::process::free_port;
use crate::wait::{LIMIT, wait_for};

/// A cluster of three, each with a store of its own.
#[derive(Debug)]
pub struct Cluster {
    /// The servers.
    pub servers: Vec<NatsServer>,
}

impl Cluster {
    /// Starts three servers and waits until they are one.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// The same with further configuration for each of them.
    ///
    /// # Panics
    /// When they do not find each other.
    pub async fn start_with(configuration: &str) -> Self {
        let ports: Vec<u16> = (0..3).map(|_| free_port()).collect();
        let routes: Vec<String> = ports
            .iter()
            .map(|port| format!("\"nats://127.0.0.1:{port}\""))
            .collect();
        let member = |(n, port): (usize, &u16)| {
            NatsServer::launch(&format!(
                "server_name: n{n}\ncluster {{ name: c, listen: \"127.0.0.1:{port}\", routes: [{}] }}\n{configuration}",
                routes.join(", ")
            ))
        };
        let mut this = Self {
            servers: ports.iter().enumerate().map(member).collect(),
        };

        // None answers before two have found each other, and one that has ended is told at once.
        join_all(this.servers.iter_mut().map(NatsServer::up)).await;

        // A stream of three copies can be made only when all have joined.
        let client = async_nats::connect(this.servers[0].url())
            .await
            .expect("a server that answers");
        let jetstream = jetstream::new(client);

        wait_for("a cluster of three", LIMIT, async || {
            let config = jetstream::stream::Config {
                name: "probe".to_owned(),
                subjects: vec!["probe".to_owned()],
                num_replicas: 3,
                ..Default::default()
            };
            jetstream
                .create_stream(config)
                .await
                .map_err(|error| error.to_string())?;
            jetstream
                .delete_stream("probe")
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        })
        .await;

        this
    }

    /// Where clients connect: all of them.
    pub fn url(&self) -> String {
        self.servers
            .iter()
            .map(NatsServer::url)
            .collect::<Vec<_>>()
            .join(",")
    }

    /// The servers, to end them one by one.
    pub fn into_servers(self) -> Vec<NatsServer> {
        self.servers
    }

    /// Which server leads a stream.
    ///
    /// # Panics
    /// When nobody does within [`LIMIT`].
    pub async fn leader_of(&self, jetstream: &jetstream::Context, stream: &str) -> usize {
        wait_for(&format!("a leader of {stream}"), LIMIT, async || {
            let look =
                tokio::time::timeout(Duration::from_secs(2), jetstream.get_stream(stream)).await;
            let stream = look
                .map_err(|error| error.to_string())?
                .map_err(|error| error.to_string())?;
            let leader = stream
                .cached_info()
                .cluster
                .as_ref()
                .and_then(|cluster| cluster.leader.clone());
            let leader = leader.ok_or("no leader")?;
            leader
                .trim_start_matches('n')
                .parse::<usize>()
                .map_err(|_| leader)
        })
        .await
    }
}

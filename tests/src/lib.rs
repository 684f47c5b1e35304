//! The harness of the integration tests: real servers, real processes, and ways to break them.
//!
//! | module | holds |
//! |---|---|
//! | [`nats`] | a nats-server of a test's own: start, stop, kill, restart on the same port |
//! | [`cluster`] | three of them that are one JetStream |
//! | [`proxy`] | a TCP proxy at a fixed port that can cut, hold and restore what goes through it |
//! | [`process`] | the built programs `ktrdr-backend` and `ktrdr-worker` as child processes, and signals for them |
//! | [`secure`] | a nats-server with the permissions that each program needs, and no more |
//! | [`settings`] | short heartbeats and leases, as environment and as flags |
//! | [`certificates`] | a certificate authority of a test's own |
//! | [`tls`] | a client that speaks TLS |
//! | [`client`] | the REST APIs as a user sees them |
//! | [`mod@bench`] | the program behind scripts/bench |
//! | [`contract`] | whether answers match `/openapi.json` |
//! | [`bus`] | what is on NATS: publish anything, read every event of an operation, look at the queues |
//! | [`events`] | server-sent events as a client reads them |
//! | [`browser`] | a headless Chromium, to look at the dashboard with |
//! | [`engines`] | engines that wait at a gate, block a thread, or fail a number of times |
//! | [`talk`] | an engine that says much |
//! | [`tokens`] | a file of tokens that a test changes |
//! | [`stack`] | all of it together |
//! | [`chaos`] | a load with faults from a seed, and the check that nothing was lost or done twice |
//! | [`wire`] | the messages that the programs write, recorded from a script |
//! | [`wait`] | waiting for a condition instead of for time to pass |
//!
//! Every part ends what it started when it is dropped. When the test failed, it keeps its files and
//! prints where they are.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test harness reports by panicking"
)]

pub mod bench;
pub mod browser;
pub mod bus;
pub mod certificates;
pub mod chaos;
pub mod client;
pub mod cluster;
pub mod contract;
pub mod engines;
pub mod events;
pub mod local_worker;
pub mod mixed;
pub mod nats;
pub mod process;
pub mod proxy;
pub mod scratch;
pub mod secure;
pub mod settings;
pub mod stack;
pub mod talk;
pub mod tls;
pub mod tokens;
pub mod wait;
pub mod wire;

pub use bus::Bus;
pub use certificates::{Authority, Certificate};
pub use client::{Answer, Client};
pub use cluster::Cluster;
pub use local_worker::LocalWorker;
pub use mixed::{Mixed, Version};
pub use nats::NatsServer;
pub use process::{BackendProcess, WorkerProcess, free_port};
pub use proxy::Proxy;
pub use scratch::Scratch;
pub use settings::Settings;
pub use stack::Stack;
pub use tokens::TokensFile;
pub use wait::{LIMIT, wait_for};

//! Least privilege on the bus: everything works under the table of [`ktrdr_bus::permissions`], every
//! line of it is needed, and a program in hostile hands gets no further than its own lines.
//!
//! | module | shows |
//! |---|---|
//! | [`hostile`] | what programs in hostile hands are refused |
//! | [`workload`] | that everything works, and that every line of the table is needed |
//! | [`missing`] | what is said when a permission is missing, or a stream belongs to others |
//! | [`printed`] | the printed configuration, and the tables of the documentation |

mod hostile;
mod missing;
mod printed;
mod workload;

use async_nats::{Event, ServerError};
use ktrdr_bus::permissions::Role;
use ktrdr_protocol::id::WorkerType;
use ktrdr_tests::secure::{configuration, connect_as, installation};
use ktrdr_tests::settings::repository;
use ktrdr_tests::{BackendProcess, Bus, LIMIT, NatsServer, Scratch, Settings, WorkerProcess};
use tokio::sync::mpsc;

const TYPES: [&str; 4] = ["dummy", "data_processing", "backtesting", "training"];

/// A server with users, and what runs on it.
struct Secure {
    nats: NatsServer,
    bus: Bus,
    settings: Settings,
    backend: BackendProcess,
    data: Scratch,
}

impl Secure {
    async fn start(more: &str) -> Self {
        let users = configuration(&installation(&TYPES));
        let nats = NatsServer::start_with(&format!("{users}\n{more}")).await;
        let data = Scratch::new("secure");
        std::fs::copy(
            repository().join("data/GOOG_1d.csv"),
            data.join("GOOG_1d.csv"),
        )
        .unwrap();
        let settings = Settings {
            secure: true,
            ..Settings::fast(nats.url()).data_dir(data.path())
        };
        let settings = settings.with("KTRDR_CHECKPOINT_INTERVAL", "0s");
        let backend = BackendProcess::start(&settings).await;
        let bus = nats.bus().await;
        Self {
            nats,
            bus,
            settings,
            backend,
            data,
        }
    }

    async fn worker(&self, worker_type: &str, id: &str) -> WorkerProcess {
        let worker = WorkerProcess::start(&self.settings, worker_type, id).await;
        self.backend.api.wait_for_worker(id, "AVAILABLE").await;
        worker
    }

    /// Connects as somebody else than the programs that run.
    async fn intruder(&self, role: &Role) -> Intruder {
        Intruder::connect(&self.nats.url(), role).await
    }
}

fn worker_of(name: &str) -> Role {
    Role::Worker(WorkerType::new(name).unwrap())
}

/// A program with the rights of a role, that does what it likes.
struct Intruder {
    client: async_nats::Client,
    jetstream: async_nats::jetstream::Context,
    refusals: mpsc::UnboundedReceiver<String>,
}

impl Intruder {
    async fn connect(url: &str, role: &Role) -> Self {
        let (sender, refusals) = mpsc::unbounded_channel();
        let client = connect_as(role)
            .event_callback(move |event| {
                if let Event::ServerError(ServerError::Other(text)) = event {
                    let _ = sender.send(text);
                }
                std::future::ready(())
            })
            .connect(url)
            .await
            .unwrap();
        Self {
            jetstream: async_nats::jetstream::new(client.clone()),
            client,
            refusals,
        }
    }

    /// Publishes, and checks that the server refuses it.
    async fn may_not_publish(&mut self, subject: &str, payload: impl Into<bytes::Bytes>) {
        let inbox = self.client.new_inbox();
        self.client
            .publish_with_reply(subject.to_owned(), inbox, payload.into())
            .await
            .unwrap();
        self.refused("Publish to", subject).await;
    }

    async fn may_not_subscribe(&mut self, subject: &str) {
        let _heard = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.refused("Subscription to", subject).await;
    }

    async fn refused(&mut self, what: &str, subject: &str) {
        self.client.flush().await.unwrap();
        let wanted = format!("Permissions Violation for {what} \"{subject}\"");
        let told = tokio::time::timeout(LIMIT, async {
            while let Some(text) = self.refusals.recv().await {
                if text.contains(&wanted) {
                    return;
                }
            }
        });
        assert!(told.await.is_ok(), "nobody refused {what} {subject}");
    }
}

//! Programs of an earlier version beside those of this workspace.

use std::path::PathBuf;

use crate::settings::repository;
use crate::{BackendProcess, Bus, NatsServer, Scratch, Settings, WorkerProcess};

/// Whose programs run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The programs in `KTRDR_TEST_OLD_BIN`.
    Old,
    /// Those of this workspace.
    New,
}

/// A NATS server and a data directory that programs of both versions share.
pub struct Mixed {
    /// The server.
    pub nats: NatsServer,
    /// The test's own connection.
    pub bus: Bus,
    /// The data directory.
    pub data: Scratch,
    old_programs: PathBuf,
}

impl Mixed {
    /// Starts the server. `None`, and a word about it, when no old programs are given.
    ///
    /// # Panics
    /// When `KTRDR_TEST_OLD_BIN` names no directory.
    pub async fn start() -> Option<Self> {
        let Some(directory) = std::env::var_os("KTRDR_TEST_OLD_BIN") else {
            eprintln!("SKIPPED: KTRDR_TEST_OLD_BIN names no directory with older programs");
            return None;
        };
        let old_programs = PathBuf::from(&directory)
            .canonicalize()
            .unwrap_or_else(|error| panic!("KTRDR_TEST_OLD_BIN={}: {error}", directory.display()));

        let nats = NatsServer::start().await;
        let bus = nats.bus().await;
        let data = Scratch::new("mixed");
        std::fs::copy(
            repository().join("data/GOOG_1d.csv"),
            data.join("GOOG_1d.csv"),
        )
        .expect("a copy of the price bars");
        Some(Self {
            nats,
            bus,
            data,
            old_programs,
        })
    }

    /// Settings for programs of this version.
    pub fn settings(&self, version: Version) -> Settings {
        Settings {
            programs: (version == Version::Old).then(|| self.old_programs.clone()),
            ..Settings::fast(self.nats.url())
                .data_dir(self.data.path())
                .with("KTRDR_CHECKPOINT_INTERVAL", "0s")
        }
    }

    /// A backend that is ready.
    pub async fn backend(&self, version: Version) -> BackendProcess {
        BackendProcess::start(&self.settings(version)).await
    }

    /// A worker.
    pub async fn worker(&self, version: Version, worker_type: &str, id: &str) -> WorkerProcess {
        WorkerProcess::start(&self.settings(version), worker_type, id).await
    }
}

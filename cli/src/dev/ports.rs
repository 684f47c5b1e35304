//! Free ports for the programs of a system.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use tokio::time::Instant;

use crate::failure::Failure;

/// How many ports after the usual one are tried.
const PORTS: u16 = 1000;

/// How often somebody who waits for a turn looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The turn to choose ports. A port is free until its program listens, so another `ktrdr dev` would
/// choose the same one meanwhile.
pub struct Turn {
    /// Unlocked when it is dropped.
    _lock: Option<File>,
}

impl Turn {
    /// Waits until no other system starts, at most for so long.
    pub async fn wait(longest: Duration) -> Self {
        // Each user has a file: whoever made a shared one could keep the others waiting.
        let user = rustix::process::getuid().as_raw();
        let path = std::env::temp_dir().join(format!("ktrdr-dev-ports-{user}.lock"));
        let opened = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path);
        // The file may belong to another user all the same. Two systems that start in the same second are
        // rare, and the second one says which port is taken.
        let Ok(file) = opened else {
            return Self { _lock: None };
        };

        let deadline = Instant::now() + longest;
        while file.try_lock().is_err() {
            if Instant::now() > deadline {
                return Self { _lock: None };
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Self { _lock: Some(file) }
    }
}

/// The ports that were given to programs, which may not listen yet.
#[derive(Default)]
pub struct Ports {
    given: Vec<u16>,
}

impl Ports {
    /// This port, or the next free one. All lie below the ports of outgoing connections (32768 and
    /// above on Linux): one of those would take it before the program that it is meant for listens.
    ///
    /// # Errors
    /// [`Failure::Dev`] when none is free.
    pub fn take(&mut self, usual: u16) -> Result<u16, Failure> {
        let is_free = |port: &u16| {
            !self.given.contains(port) && TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()
        };
        let found = (usual..usual + PORTS).find(is_free).ok_or_else(|| {
            let last = usual + PORTS - 1;
            Failure::Dev(format!("no port from {usual} to {last} is free"))
        })?;
        self.given.push(found);
        Ok(found)
    }
}

//! The disk of nats-server is full, for real: a small file system of its own.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use ktrdr_tests::scratch::Scratch;
use ktrdr_tests::{BackendProcess, LIMIT, NatsServer, Settings, WorkerProcess, wait_for};
use serde_json::json;

/// A file system in memory, with a size that can be changed.
struct SmallDisk(Scratch);

impl SmallDisk {
    /// `None` without the right to mount one.
    fn new(size: &str) -> Option<Self> {
        let place = Scratch::new("disk");
        mount(
            &["-t", "tmpfs", "-o", &format!("size={size}"), "ktrdr-test"],
            place.path(),
        )
        .then(|| Self(place))
    }

    /// Writes a file until nothing more fits.
    fn fill(&self) {
        let mut file = File::create(self.0.join("ballast")).unwrap();
        while file.write_all(&[b'x'; 4096]).is_ok() {}
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a server may still be there when a test fails.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn mount(arguments: &[&str], place: &Path) -> bool {
    let mut command = Command::new("mount");
    let status = command.args(arguments).arg(place).status();
    status.is_ok_and(|status| status.success())
}

#[tokio::test]
async fn a_full_disk_refuses_starts_and_loses_none_that_was_acknowledged() {
    let Some(disk) = SmallDisk::new("24m") else {
        eprintln!("SKIPPED: no right to mount a small file system");
        return;
    };
    let store = disk.0.join("store");
    let mut nats = NatsServer::start_in(&store, "jetstream { sync_interval: always }\n").await;
    let settings = Settings::fast(nats.url());
    let mut backend = BackendProcess::start(&settings).await;

    let worker = WorkerProcess::start(&settings, "dummy", "w1").await;
    backend.api.wait_for_worker("w1", "AVAILABLE").await;

    // The disk becomes full while operations are started. Some of them run then.
    let mut acknowledged = Vec::new();
    let refused = loop {
        let id = format!("full-{}", acknowledged.len());
        let body = json!({"task_id": id, "steps": 5, "step_ms": 20});
        let answer = backend.api.start("dummy", &body).await;
        if answer.status != 202 {
            break answer;
        }
        acknowledged.push(id);
        if acknowledged.len() == 20 {
            disk.fill();
        }
        assert!(acknowledged.len() < 2_000, "the disk is never full");
    };
    assert!(matches!(refused.status, 503 | 507), "{refused}");

    // nats-server notices the room when it starts.
    disk.make_room();
    nats.restart().await;
    backend.ready().await;

    let deadline = LIMIT + Duration::from_secs(30);
    for id in &acknowledged {
        wait_for(
            &format!("{id} to complete"),
            deadline,
            async || match backend.api.operation(id).await.json["status"].as_str() {
                Some("completed") => Ok(()),
                other => Err(format!("{other:?}")),
            },
        )
        .await;
    }
    assert!(acknowledged.len() >= 20);
    drop((worker, backend));
    drop(nats);
}

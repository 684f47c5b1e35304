//! A directory that is gone after a test, unless the test failed.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether directories are kept in any case.
static KEEP: AtomicBool = AtomicBool::new(false);

/// Keeps every directory of this process from now on, for an investigation.
pub fn keep_all() {
    KEEP.store(true, Ordering::Relaxed);
}

/// A temporary directory. Kept, and its path printed, when it is dropped by a panic.
#[derive(Debug)]
pub struct Scratch {
    dir: tempfile::TempDir,
    label: String,
}

impl Scratch {
    /// A new empty directory; `label` becomes a part of its name.
    pub fn new(label: &str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix(&format!("ktrdr-test-{label}-"))
            .tempdir()
            .expect("a temporary directory");
        Self {
            dir,
            label: label.to_owned(),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The path of a file in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() || KEEP.load(Ordering::Relaxed) {
            self.dir.disable_cleanup(true);
            eprintln!(
                "files of {} kept in {}",
                self.label,
                self.dir.path().display()
            );
        }
    }
}

/// The last lines of a log file, for a failure message.
pub fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default();
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

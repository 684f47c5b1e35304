//! The archive: operations that have ended, in a file, for longer than the stream keeps them.
//!
//! The problem: the stream forgets operations after the retention, and every backend holds what is
//! in the stream in memory. Users want to look up an operation of last year.
//!
//! How it is solved: `KTRDR_ARCHIVE` names a `SQLite` file. A duty takes operations that have ended
//! from the projection, and writes the document of each into a row. The projection remembers which
//! ones the file lacks, so a file that cannot be written delays the archive and nothing else. After a
//! restart the projection reads the whole stream anyway, and each ended operation is looked up in
//! the file: what was not written before is written then. So the file needs no position in the
//! stream, an older copy of it catches up with what the stream still has, and several backends may
//! write one file.
//!
//! Rejected: a durable consumer of the stream, shared by the backends. Its position would be state
//! beside the file that it describes, so a file that was brought back from a backup would keep a
//! gap; and each row would need the projection of that moment all the same.
//!
//! | module | holds |
//! |---|---|
//! | [`schema`] | the tables and their version |
//! | [`store`] | what is read from the file and written to it |
//! | [`document`] | an operation as a row, and back |
//! | [`list`] | a page of operations that goes on in the archive |
//! | [`results`] | reads the large results that are kept |
//! | [`writer`] | the duty that writes |

mod document;
mod list;
mod results;
mod schema;
mod store;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ktrdr_bus::telemetry::{Repeated, chain};
use ktrdr_http::metrics::{register_counter, register_gauge};
use ktrdr_protocol::id::OperationId;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use rusqlite::Connection;
use tokio::sync::Semaphore;

pub use list::{Page, Wanted};
pub use writer::{Sources, run};

use crate::projection::Projection;
use crate::projection::record::{Record, View};

/// Requests that read the file at a time. Each has a thread and a connection.
const READERS: usize = 4;

/// Why the archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The folder of the file is not there.
    #[error("KTRDR_ARCHIVE: the folder {} does not exist; make it, or name another one", .0.display())]
    NoFolder(PathBuf),
    /// The file belongs to another program.
    #[error("KTRDR_ARCHIVE names a file of another program; name another file")]
    Foreign,
    /// A later version of this program has written the file.
    #[error(
        "KTRDR_ARCHIVE names a file with tables of version {found}, and this backend knows version {known}; run the later backend, or name another file"
    )]
    Newer {
        /// Version of the file.
        found: i64,
        /// Newest version that this program knows.
        known: i64,
    },
    /// The large result of an operation cannot be read from the object store now.
    #[error("the result of operation {id} cannot be read for the archive: {cause}")]
    Result {
        /// The operation.
        id: OperationId,
        /// What the object store says.
        cause: String,
    },
    /// A row holds something else than an operation.
    #[error("the archive holds an operation that cannot be read: {0}")]
    Damaged(String),
    /// The file cannot be read or written.
    #[error("the file of the archive cannot be used")]
    Sqlite(#[from] rusqlite::Error),
    /// A thread panicked.
    #[error("a thread of the archive ended")]
    Thread(#[from] tokio::task::JoinError),
}

impl ArchiveError {
    /// Whether the file is meant for something else: to go on would not help.
    fn is_wrong_file(&self) -> bool {
        matches!(self, Self::NoFolder(_) | Self::Foreign | Self::Newer { .. })
    }
}

/// The archive, shared by the duty that writes it and the requests that read it.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    retention: Option<Duration>,
    /// Connections of requests that no request uses.
    idle: Mutex<Vec<Connection>>,
    readers: Semaphore,
    /// Held while rows are committed and noted in the projection. A list looks at both under it.
    together: Mutex<()>,
    /// The generation of the projection that was compared with the file to its end, plus one.
    compared: AtomicU64,
    written: AtomicU64,
    removed: AtomicU64,
    errors: AtomicU64,
    /// Lines about errors.
    lines: Repeated,
    /// Lines about operations that were forgotten without being archived.
    missed: Repeated,
    /// How many of these were told.
    told_missed: AtomicU64,
}

impl Archive {
    /// The archive in this file. It is made when it does not exist. A file that is locked, damaged or
    /// full is told and tried again later.
    ///
    /// # Errors
    /// [`ArchiveError`] when the file can never be the archive.
    pub fn open(path: &Path, retention: Option<Duration>) -> Result<Self, ArchiveError> {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(ArchiveError::NoFolder(folder.to_owned()));
        }

        let archive = Self {
            path: path.to_owned(),
            retention,
            idle: Mutex::default(),
            readers: Semaphore::new(READERS),
            together: Mutex::default(),
            compared: AtomicU64::new(0),
            written: AtomicU64::new(0),
            removed: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            lines: Repeated::new(),
            missed: Repeated::new(),
            told_missed: AtomicU64::new(0),
        };
        match schema::open_to_write(path) {
            Ok(_) => {}
            Err(error) if error.is_wrong_file() => return Err(error),
            Err(error) => archive.note_error(&error),
        }
        Ok(archive)
    }

    /// The newest archived operation with this id.
    ///
    /// # Errors
    /// [`ArchiveError`] when the file cannot be read.
    pub async fn find(self: &Arc<Self>, id: &str) -> Result<Option<View>, ArchiveError> {
        let id = id.to_owned();
        self.read(move |_, connection| store::find(connection, &id))
            .await
    }

    /// The large result of an operation of the archive, as JSON, if it is kept.
    ///
    /// # Errors
    /// [`ArchiveError`] when the file cannot be read.
    pub async fn result(self: &Arc<Self>, record: &Record) -> Result<Option<String>, ArchiveError> {
        let (id, start_sequence) = (record.id.clone(), record.start_sequence);
        self.read(move |_, connection| store::result(connection, id.as_str(), start_sequence))
            .await
    }

    /// A page of the operations in the stream and in the archive. `None` while it is not known yet
    /// which ones are in both.
    ///
    /// # Errors
    /// [`ArchiveError`] when the file cannot be read.
    pub async fn list(
        self: &Arc<Self>,
        projection: &Arc<Projection>,
        wanted: Wanted<'_>,
    ) -> Result<Option<Page>, ArchiveError> {
        if self.compared.load(Ordering::SeqCst) != projection.generation() + 1 {
            return Ok(None);
        }
        let projection = Arc::clone(projection);
        let types: Option<Vec<String>> = wanted
            .types
            .map(|types| types.iter().map(|&name| name.to_owned()).collect());
        let (status, offset) = (wanted.status, wanted.offset);
        let (limit, bytes) = (wanted.limit, wanted.bytes);
        let page = self.read(move |archive, connection| {
            let types: Option<Vec<&str>> = types
                .as_ref()
                .map(|types| types.iter().map(String::as_str).collect());
            let wanted = Wanted {
                types: types.as_deref(),
                status,
                offset,
                limit,
                bytes,
            };
            list::page(connection, &archive.together, &*projection, wanted)
        });
        page.await.map(Some)
    }

    /// Reads the file on a thread where waiting harms nobody.
    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self, &Connection) -> Result<T, ArchiveError> + Send + 'static,
    ) -> Result<T, ArchiveError> {
        // The semaphore is never closed.
        let _place = self.readers.acquire().await;
        let archive = Arc::clone(self);
        let read = tokio::task::spawn_blocking(move || {
            let idle = archive.idle.lock().pop();
            let connection = match idle {
                Some(connection) => connection,
                None => schema::open_to_read(&archive.path)?,
            };
            let read = work(&archive, &connection)?;
            // One that has failed is closed: the file may be another one now.
            archive.idle.lock().push(connection);
            Ok::<T, ArchiveError>(read)
        });
        let read = read.await.map_err(ArchiveError::from).flatten();
        read.inspect_err(|error| self.note_error(error))
    }

    fn note_error(&self, error: &ArchiveError) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        if let Some(count) = self.lines.note() {
            tracing::warn!(
                file = %self.path.display(),
                cause = %chain(error),
                count,
                "the archive cannot be used now; operations that end wait for it as long as the stream has them"
            );
        }
    }

    /// Shows how far the archive is.
    pub fn register(&self, projection: &Projection, registry: &mut Registry) {
        let (waiting, missed) = projection.archive_lag();
        register_gauge(
            registry,
            "ktrdr_archive_lag_operations",
            "Operations that have ended and are not in the archive yet.",
            waiting as f64,
        );
        register_counter(
            registry,
            "ktrdr_archive_written_total",
            "Operations that this backend wrote to the archive.",
            self.written.load(Ordering::Relaxed),
        );
        register_counter(
            registry,
            "ktrdr_archive_removed_total",
            "Operations that this backend removed because of their age.",
            self.removed.load(Ordering::Relaxed),
        );
        register_counter(
            registry,
            "ktrdr_archive_errors_total",
            "Tries to read or write the archive that failed.",
            self.errors.load(Ordering::Relaxed),
        );
        register_counter(
            registry,
            "ktrdr_archive_missed_total",
            "Operations that left the stream and could not be archived before.",
            missed,
        );
    }
}

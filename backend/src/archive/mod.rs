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
#[cfg(test)]
mod fuzz;
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

pub use writer::{Sources, run};

use crate::projection::Projection;
use crate::projection::filter::{DamagedRow, Page, Wanted};
use crate::projection::record::{Record, Turn, View};
use crate::refused::LoggedOnce;

/// Requests that read the file at a time. Each has a thread and a connection.
const READERS: usize = 4;

/// Pages and operations that were read and do not count for an answer yet. Each may have 8 MiB.
const TURNS: usize = 8;

/// Why the archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The folder of the file is not there.
    #[error("KTRDR_ARCHIVE: the folder {} does not exist; make it, or name another one", .0.display())]
    NoFolder(PathBuf),
    /// It is a directory, a pipe or a device.
    #[error("KTRDR_ARCHIVE: {} is not a regular file; name another one", .0.display())]
    NoFile(PathBuf),
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
    pub(crate) fn is_wrong_file(&self) -> bool {
        matches!(
            self,
            Self::NoFolder(_) | Self::NoFile(_) | Self::Foreign | Self::Newer { .. }
        )
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
    turns: Arc<Semaphore>,
    /// Held while rows are committed and noted in the projection. A list looks at both under it.
    together: Mutex<()>,
    /// The generation of the projection that was compared with the file to its end, plus one.
    compared: AtomicU64,
    written: AtomicU64,
    removed: AtomicU64,
    errors: AtomicU64,
    damaged: AtomicU64,
    /// The damaged rows that were told.
    told_damaged: LoggedOnce,
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
        if path.metadata().is_ok_and(|found| !found.is_file()) {
            return Err(ArchiveError::NoFile(path.to_owned()));
        }

        let archive = Self {
            path: path.to_owned(),
            retention,
            idle: Mutex::default(),
            readers: Semaphore::new(READERS),
            turns: Arc::new(Semaphore::new(TURNS)),
            together: Mutex::default(),
            compared: AtomicU64::new(0),
            written: AtomicU64::new(0),
            removed: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
            told_damaged: LoggedOnce::default(),
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

    /// The newest archived operation with this id. It keeps its turn.
    ///
    /// # Errors
    /// [`ArchiveError`] when the file cannot be read; `Damaged` when only the row of this operation cannot.
    pub async fn find(self: &Arc<Self>, id: &str) -> Result<Option<View>, ArchiveError> {
        let turn = self.turn().await;
        let id = id.to_owned();
        let wanted = id.clone();
        let found = self.read(move |_, connection| {
            let Some(view) = store::find(connection, &wanted)? else {
                return Ok(None);
            };
            let retried_as = store::retried_as(connection, &view.record)?;
            Ok(Some(View { retried_as, ..view }))
        });
        match found.await {
            Ok(found) => Ok(found.map(|view| View { turn, ..view })),
            Err(ArchiveError::Damaged(cause)) => {
                let operation_id = id;
                self.note_damaged(&DamagedRow {
                    operation_id,
                    cause: cause.clone(),
                });
                Err(ArchiveError::Damaged(cause))
            }
            Err(error) => Err(error),
        }
    }

    /// The large result of an operation that has its turn, as JSON, if it is kept.
    ///
    /// # Errors
    /// [`ArchiveError`] when the file cannot be read.
    pub async fn result(self: &Arc<Self>, record: &Record) -> Result<Option<String>, ArchiveError> {
        let (id, start_sequence) = (record.id.clone(), record.start_sequence);
        self.read(move |_, connection| store::result(connection, id.as_str(), start_sequence))
            .await
    }

    /// Whether there is an operation of this type.
    ///
    /// # Errors
    /// [`ArchiveError`] when the file cannot be read.
    pub async fn knows_type(self: &Arc<Self>, name: &str) -> Result<bool, ArchiveError> {
        let name = name.to_owned();
        self.read(move |_, connection| store::knows_type(connection, &name))
            .await
    }

    /// A page of the operations in the stream and in the archive, with its turn, which must be kept
    /// until the page counts for an answer. `None` while it is not known yet which ones are in both.
    ///
    /// # Errors
    /// [`ArchiveError`] when the file cannot be read.
    pub async fn list(
        self: &Arc<Self>,
        projection: &Arc<Projection>,
        wanted: Wanted,
    ) -> Result<Option<(Page, Option<Turn>)>, ArchiveError> {
        if self.compared.load(Ordering::SeqCst) != projection.generation() + 1 {
            return Ok(None);
        }
        let turn = self.turn().await;
        let projection = Arc::clone(projection);
        let page = self.read(move |archive, connection| {
            list::page(connection, &archive.together, &*projection, &wanted)
        });
        let page = page.await?;
        page.damaged.iter().for_each(|row| self.note_damaged(row));
        Ok(Some((page, turn)))
    }

    fn note_damaged(&self, row: &DamagedRow) {
        self.damaged.fetch_add(1, Ordering::Relaxed);
        let DamagedRow {
            operation_id,
            cause,
        } = row;
        if self.told_damaged.is_first(operation_id) {
            tracing::warn!(
                operation_id,
                cause,
                file = %self.path.display(),
                "an archived operation cannot be read; lists leave it out"
            );
        }
    }

    /// Waits for a turn. It comes soon: whoever has one waits for no other.
    async fn turn(&self) -> Option<Turn> {
        // The semaphore is never closed.
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        turn.ok().map(Arc::new)
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
        read.inspect_err(|error| {
            // A damaged row says nothing about the others.
            if !matches!(error, ArchiveError::Damaged(_)) {
                self.note_error(error);
            }
        })
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
            "ktrdr_archive_damaged_total",
            "Archived operations that cannot be read and were asked for or left out of lists, each time.",
            self.damaged.load(Ordering::Relaxed),
        );
        register_counter(
            registry,
            "ktrdr_archive_missed_total",
            "Operations that left the stream and could not be archived before.",
            missed,
        );
    }
}

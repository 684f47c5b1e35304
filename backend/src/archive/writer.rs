//! The duty that writes operations that have ended, and removes those that are too old.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ktrdr_protocol::time::Timestamp;
use rusqlite::Connection;
use tokio::time::Instant;

use super::results::Results;
use super::{Archive, ArchiveError, schema, store};
use crate::projection::Projection;
use crate::projection::model::archiving::Ended;
use crate::projection::search::Look;
use crate::result_buckets::ResultBuckets;

/// Operations in one transaction, at most.
const BATCH: usize = 1000;

/// Bytes of the documents of one transaction, about.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Pause after a transaction that took all there was: a few operations later the next one costs the
/// disk as much as this one.
const PAUSE: Duration = Duration::from_millis(50);

/// Pause before the file is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How often old operations are removed; oftener when they are kept for a shorter time.
const REMOVAL_INTERVAL: Duration = Duration::from_secs(60);

/// Where the writer takes operations and their results from.
pub struct Sources {
    /// The operations.
    pub projection: Arc<Projection>,
    /// The connection to NATS.
    pub connection: ktrdr_bus::nats::Connection,
    /// Subjects and streams.
    pub names: ktrdr_protocol::subject::SubjectNames,
    /// The buckets of large results.
    pub buckets: Arc<ResultBuckets>,
}

/// Writes until the task is dropped.
pub async fn run(archive: Arc<Archive>, sources: Sources) {
    let mut writer = Writer {
        archive,
        projection: sources.projection,
        results: Results::new(sources.connection, sources.names, sources.buckets),
        file: None,
        removal_due: Instant::now(),
    };
    loop {
        if let Err(error) = writer.round().await {
            writer.archive.note_error(&error);
            tokio::time::sleep(RETRY).await;
        }
    }
}

struct Writer {
    archive: Arc<Archive>,
    projection: Arc<Projection>,
    results: Results,
    /// `None` before the first use and after a failure.
    file: Option<Connection>,
    removal_due: Instant,
}

impl Writer {
    /// Writes what has ended, or waits until something ends.
    async fn round(&mut self) -> Result<(), ArchiveError> {
        self.tell_missed();
        let generation = self.projection.generation();
        // To write during the replay would only make it longer.
        let is_loaded = self.projection.is_caught_up();
        let batch = match is_loaded {
            true => self.projection.to_archive(BATCH, BATCH_BYTES),
            false => Vec::new(),
        };
        if !batch.is_empty() {
            let is_all = batch.len() < BATCH;
            self.write(batch).await?;
            if is_all {
                tokio::time::sleep(PAUSE).await;
            }
            return Ok(());
        }

        if is_loaded {
            let compared = self.archive.compared.swap(generation + 1, Ordering::SeqCst);
            if compared != generation + 1 {
                self.projection.archive_is_compared();
            }
            self.remove_old().await?;
        }
        // An end wakes this duty; the loading of the projection does not.
        let _ = tokio::time::timeout(RETRY, self.projection.some_ended.notified()).await;
        Ok(())
    }

    async fn write(&mut self, batch: Vec<Ended>) -> Result<(), ArchiveError> {
        let projection = Arc::clone(&self.projection);
        let missing = self.on_thread(move |archive, file| {
            let missing = store::missing(file, &batch)?;
            // Those that are there already, for example after a restart.
            let is_there = |ended: &Ended| !missing.iter().any(|other| other.is(ended));
            let there: Vec<Ended> = match missing.len() {
                0 => batch,
                _ => batch.into_iter().filter(is_there).collect(),
            };
            let _in_no_list = archive.together.lock();
            projection.archived(&there);
            Ok(missing)
        });
        let missing = missing.await?;
        if missing.is_empty() {
            return Ok(());
        }

        let batch = self.results.of(missing).await?;
        let projection = Arc::clone(&self.projection);
        let written = self.on_thread(move |archive, file| {
            let note = || {
                let written: Vec<Ended> = batch.iter().map(|(ended, _)| ended.clone()).collect();
                projection.archived(&written);
            };
            store::write(file, &batch, &archive.together, note)
        });
        let written = written.await?;
        self.archive
            .written
            .fetch_add(written as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Removes operations that are older than the archive's retention. Those in the stream stay: they
    /// would be written again.
    async fn remove_old(&mut self) -> Result<(), ArchiveError> {
        let Some(retention) = self.archive.retention else {
            return Ok(());
        };
        if Instant::now() < self.removal_due {
            return Ok(());
        }

        let limit = Timestamp::now().minus(retention);
        let projection = Arc::clone(&self.projection);
        let removed = self.on_thread(move |_, file| {
            let is_needed =
                |stream, id: &str, start| projection.look(|model| model.holds(stream, id, start));
            store::remove_old(file, limit, is_needed)
        });
        let (removed, has_more) = removed.await?;
        self.archive
            .removed
            .fetch_add(removed as u64, Ordering::Relaxed);
        if !has_more {
            let interval = retention.clamp(RETRY, REMOVAL_INTERVAL);
            self.removal_due = Instant::now() + interval;
        }
        Ok(())
    }

    /// Uses the file on a thread where waiting harms nobody. A file that failed is opened again next
    /// time.
    async fn on_thread<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&Archive, &mut Connection) -> Result<T, ArchiveError> + Send + 'static,
    ) -> Result<T, ArchiveError> {
        let (archive, file) = (Arc::clone(&self.archive), self.file.take());
        let done = tokio::task::spawn_blocking(move || {
            let mut file = match file {
                Some(file) => file,
                None => schema::open_to_write(&archive.path)?,
            };
            let done = work(&archive, &mut file)?;
            Ok::<_, ArchiveError>((done, file))
        });
        let (done, file) = done.await??;
        self.file = Some(file);
        Ok(done)
    }

    fn tell_missed(&self) {
        let (_, missed) = self.projection.archive_lag();
        let told = self.archive.told_missed.swap(missed, Ordering::Relaxed);
        if missed > told
            && let Some(_count) = self.archive.missed.note()
        {
            tracing::warn!(
                missed,
                "operations left the stream before they could be archived; they are lost to it"
            );
        }
    }
}

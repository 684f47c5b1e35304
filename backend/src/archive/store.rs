//! What is read from and written to the file. Blocking: it runs on threads of its own.

use std::ops::Range;

use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params};

use super::schema::SEGMENT;
use super::{ArchiveError, document};
use crate::projection::model::archiving::Ended;
use crate::projection::record::View;

/// Rows that are looked at in one round of removing old ones.
const ROUND: usize = 1000;

/// Which operations a list shows. `None` matches all.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The worker types as a JSON list.
    types: Option<String>,
    status: Option<&'static str>,
}

impl Filter {
    /// Operations of these types with this status.
    pub fn new(types: Option<&[&str]>, status: Option<Status>) -> Self {
        Self {
            types: types.map(|types| serde_json::json!(types).to_string()),
            status: status.map(Status::as_str),
        }
    }
}

/// How many matching operations a segment has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentCount {
    /// Its stream.
    pub stream: i64,
    /// Its number.
    pub segment: u64,
    /// Matching operations.
    pub operations: u64,
}

/// One operation of a segment.
#[derive(Debug)]
pub struct Entry {
    /// Where it is in the archive.
    pub number: i64,
    /// Sequence of its start request.
    pub start_sequence: u64,
    /// Its id.
    pub operation_id: String,
}

/// The sequences of a segment.
pub fn sequences(segment: u64) -> Range<u64> {
    segment * SEGMENT..(segment + 1) * SEGMENT
}

/// Those of `batch` that are not there, or ended in another way there.
pub fn missing(connection: &Connection, batch: &[Ended]) -> Result<Vec<Ended>, ArchiveError> {
    const LOOK: &str = "SELECT end_sequence, ended_at FROM operations
        WHERE stream = ?1 AND start_sequence = ?2 AND operation_id = ?3";

    let mut look = connection.prepare_cached(LOOK)?;
    let mut missing = Vec::new();
    for ended in batch {
        let record = &ended.record;
        let start_sequence = record.start_sequence as i64;
        let key = (ended.stream, start_sequence, record.id.as_str());
        let found: Option<(i64, i64)> = look
            .query_row(key, |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let end = (record.state.last_sequence as i64, ended_at(ended));
        if found != Some(end) {
            missing.push(ended.clone());
        }
    }
    Ok(missing)
}

/// Writes operations with their large results in one transaction, and returns how many were
/// written. One that another backend has written meanwhile is left alone. `note` is called when all
/// of them are there; `together` is held from the commit until then.
pub fn write(
    connection: &mut Connection,
    batch: &[(Ended, Option<String>)],
    together: &Mutex<()>,
    note: impl FnOnce(),
) -> Result<usize, ArchiveError> {
    const WRITE: &str = "INSERT INTO operations (stream, start_sequence, operation_id, worker_type,
            status, ended_at, end_sequence, document) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
        ON CONFLICT DO UPDATE SET worker_type = excluded.worker_type, status = excluded.status,
            ended_at = excluded.ended_at, end_sequence = excluded.end_sequence,
            document = excluded.document
        WHERE end_sequence <> excluded.end_sequence OR ended_at <> excluded.ended_at";
    const KEEP: &str = "INSERT OR REPLACE INTO results SELECT number, ?4 FROM operations
        WHERE stream = ?1 AND start_sequence = ?2 AND operation_id = ?3";

    let documents: Vec<String> = batch
        .iter()
        .map(|(ended, _)| document::write(&ended.record))
        .collect::<Result<_, _>>()?;
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let mut written = 0;
    {
        let mut write = change.prepare_cached(WRITE)?;
        let mut keep = change.prepare_cached(KEEP)?;
        for ((ended, result), document) in batch.iter().zip(documents) {
            let record = &ended.record;
            let start_sequence = record.start_sequence as i64;
            written += write.execute(params![
                ended.stream,
                start_sequence,
                record.id.as_str(),
                record.queue.worker_type.as_str(),
                record.state.status.as_str(),
                ended_at(ended),
                record.state.last_sequence as i64,
                document,
            ])?;
            if let Some(result) = result {
                let id = record.id.as_str();
                keep.execute((ended.stream, start_sequence, id, result))?;
            }
        }
    }
    let _in_no_list = together.lock();
    change.commit()?;
    note();
    Ok(written)
}

fn ended_at(ended: &Ended) -> i64 {
    let record = &ended.record;
    record.completed_at.unwrap_or(record.updated_at).as_millis()
}

/// Removes operations that ended before `limit`, except those that `is_needed` names by stream, id
/// and start sequence. Returns how many were removed, and whether there may be more.
pub fn remove_old(
    connection: &mut Connection,
    limit: Timestamp,
    is_needed: impl Fn(i64, &str, u64) -> bool,
) -> Result<(usize, bool), ArchiveError> {
    const OLD: &str = "SELECT number, stream, operation_id, start_sequence FROM operations
        WHERE ended_at < ?1 ORDER BY ended_at LIMIT ?2";

    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (mut seen, mut removed) = (0, 0);
    {
        let mut old = change.prepare_cached(OLD)?;
        let mut remove = change.prepare_cached("DELETE FROM operations WHERE number = ?1")?;
        let mut rows = old.query(params![limit.as_millis(), ROUND as i64])?;
        let mut numbers: Vec<i64> = Vec::new();
        while let Some(row) = rows.next()? {
            let (number, stream, id) = (row.get(0)?, row.get(1)?, row.get::<_, String>(2)?);
            seen += 1;
            if !is_needed(stream, &id, sequence(row, 3)?) {
                numbers.push(number);
            }
        }
        for number in numbers {
            removed += remove.execute([number])?;
        }
    }
    change.commit()?;
    Ok((removed, seen == ROUND && removed > 0))
}

/// The newest operation with this id.
pub fn find(connection: &Connection, id: &str) -> Result<Option<View>, ArchiveError> {
    const FIND: &str = "SELECT document, start_sequence, end_sequence FROM operations
        WHERE operation_id = ?1 ORDER BY stream DESC, start_sequence DESC LIMIT 1";

    let mut find = connection.prepare_cached(FIND)?;
    let row = find.query_row([id], |row| Ok(stored(row)));
    row.optional()?.transpose()
}

/// The large result of an operation, if it is there.
pub fn result(
    connection: &Connection,
    id: &str,
    start_sequence: u64,
) -> Result<Option<String>, ArchiveError> {
    const RESULT: &str = "SELECT result FROM results JOIN operations ON number = operation
        WHERE operation_id = ?1 AND start_sequence = ?2 ORDER BY stream DESC LIMIT 1";

    let mut result = connection.prepare_cached(RESULT)?;
    let row = result.query_row((id, start_sequence as i64), |row| row.get(0));
    Ok(row.optional()?)
}

/// How many operations match in each segment, newest first.
pub fn segments(
    connection: &Connection,
    filter: &Filter,
) -> Result<Vec<SegmentCount>, ArchiveError> {
    const SEGMENTS: &str = "SELECT stream, segment, SUM(operations) FROM segments
        WHERE (?1 IS NULL OR status = ?1)
        AND (?2 IS NULL OR worker_type IN (SELECT value FROM json_each(?2)))
        GROUP BY stream, segment ORDER BY stream DESC, segment DESC";

    let mut segments = connection.prepare_cached(SEGMENTS)?;
    let rows = segments.query_map(params![filter.status, filter.types], |row| {
        Ok(SegmentCount {
            stream: row.get(0)?,
            segment: sequence(row, 1)?,
            operations: sequence(row, 2)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The matching operations of a segment, newest first.
pub fn entries(
    connection: &Connection,
    filter: &Filter,
    stream: i64,
    segment: u64,
) -> Result<Vec<Entry>, ArchiveError> {
    const ENTRIES: &str = "SELECT number, start_sequence, operation_id FROM operations
        WHERE stream = ?3 AND start_sequence >= ?4 AND start_sequence < ?5
        AND (?1 IS NULL OR status = ?1)
        AND (?2 IS NULL OR worker_type IN (SELECT value FROM json_each(?2)))
        ORDER BY start_sequence DESC, operation_id DESC";

    let range = sequences(segment);
    let mut entries = connection.prepare_cached(ENTRIES)?;
    let (first, end) = (range.start as i64, range.end as i64);
    let key = (filter.status, filter.types.as_deref(), stream, first, end);
    let rows = entries.query_map(key, |row| {
        Ok(Entry {
            number: row.get(0)?,
            start_sequence: sequence(row, 1)?,
            operation_id: row.get(2)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The operation of an entry.
pub fn view(connection: &Connection, number: i64) -> Result<View, ArchiveError> {
    const VIEW: &str = "SELECT document, start_sequence, end_sequence FROM operations
        WHERE number = ?1";

    let mut view = connection.prepare_cached(VIEW)?;
    view.query_row([number], |row| Ok(stored(row)))?
}

fn stored(row: &Row<'_>) -> Result<View, ArchiveError> {
    let text: String = row.get(0)?;
    document::read(&text, sequence(row, 1)?, sequence(row, 2)?)
}

/// A column with a sequence or a number of operations.
fn sequence(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    Ok(u64::try_from(value).unwrap_or_default())
}

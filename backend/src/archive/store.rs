//! What is read from and written to the file. Blocking: it runs on threads of its own.

use std::ops::Range;

use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::state::Status;
use ktrdr_protocol::time::Timestamp;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, TransactionBehavior, params, params_from_iter};

use super::schema::SEGMENT;
use super::{ArchiveError, document};
use crate::projection::filter::Filter;
use crate::projection::model::archiving::Ended;
use crate::projection::record::{Record, View};

/// Rows that are looked at in one round of removing old ones.
const ROUND: usize = 1000;

/// Which operations a list shows, as a condition of SQL.
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// Begins with `AND`, or is empty. Its parameters are numbered from 1 on.
    text: String,
    values: Vec<String>,
    /// Whether it is about more than worker types and statuses, which are counted by segment.
    is_fine: bool,
}

impl Condition {
    /// The operations that match this filter.
    pub fn new(filter: &Filter) -> Self {
        let mut condition = Self::default();
        let list = |values: &[String]| serde_json::json!(values).to_string();
        if let Some(types) = &filter.types {
            condition.add(
                "worker_type IN (SELECT value FROM json_each(?))",
                list(types),
            );
        }
        if !filter.statuses.is_empty() {
            let statuses = serde_json::json!(filter.statuses).to_string();
            condition.add("status IN (SELECT value FROM json_each(?))", statuses);
        }

        let coarse = condition.values.len();
        if let Some(worker) = &filter.worker {
            condition.add("document ->> '$.worker_id' = ?", worker.clone());
        }
        if let Some(schedule) = &filter.schedule {
            condition.add("document ->> '$.schedule_id' = ?", schedule.clone());
        }
        if !filter.error_codes.is_empty() {
            let codes = list(&filter.error_codes);
            let is_one = "document ->> '$.error.code' IN (SELECT value FROM json_each(?))";
            condition.add(is_one, codes);
        }
        for label in &filter.labels {
            let has_it = "number IN (SELECT operation FROM labels WHERE label = ?)";
            condition.add(has_it, label.to_string());
        }
        // All are written in the same form, so their texts are in the order of time.
        if let Some(time) = filter.created_after {
            condition.add("document ->> '$.created_at' >= ?", time.to_string());
        }
        if let Some(time) = filter.created_before {
            condition.add("document ->> '$.created_at' < ?", time.to_string());
        }
        if let Some(time) = filter.ended_after {
            let millis = time.as_millis().to_string();
            condition.add("ended_at >= CAST(? AS INTEGER)", millis);
        }
        if let Some(search) = &filter.search {
            condition.add(
                "instr(lower(concat(operation_id, char(10), document ->> '$.summary', char(10),
                    document ->> '$.error.code', char(10), document ->> '$.error.message')), ?) > 0",
                search.text().to_owned(),
            );
        }
        condition.is_fine = condition.values.len() > coarse;
        condition
    }

    /// Adds a condition with one parameter, which is written as `?`.
    fn add(&mut self, text: &str, value: String) {
        self.values.push(value);
        let numbered = text.replace('?', &format!("?{}", self.values.len()));
        self.text.extend([" AND ", &numbered]);
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
    // Of the newest operation alone: an older one with the same id may be of another worker type.
    const RESULT: &str = "SELECT result FROM results WHERE operation = (
        SELECT number FROM operations WHERE operation_id = ?1 AND start_sequence = ?2
        ORDER BY stream DESC LIMIT 1)";

    let mut result = connection.prepare_cached(RESULT)?;
    let row = result.query_row((id, start_sequence as i64), |row| row.get(0));
    Ok(row.optional()?)
}

/// Whether there is an operation of this type.
pub fn knows_type(connection: &Connection, name: &str) -> Result<bool, ArchiveError> {
    const KNOWS: &str = "SELECT EXISTS (SELECT 1 FROM segments WHERE worker_type = ?1)";

    let mut knows = connection.prepare_cached(KNOWS)?;
    Ok(knows.query_row([name], |row| row.get(0))?)
}

/// How many operations match in each segment, newest first.
pub fn segments(
    connection: &Connection,
    condition: &Condition,
) -> Result<Vec<SegmentCount>, ArchiveError> {
    let from = match condition.is_fine {
        false => "segment, SUM(operations) FROM segments".to_owned(),
        true => format!("start_sequence / {SEGMENT} AS segment, COUNT(*) FROM operations"),
    };
    let text = format!(
        "SELECT stream, {from} WHERE TRUE {} GROUP BY stream, segment
            ORDER BY stream DESC, segment DESC",
        condition.text
    );

    let mut segments = connection.prepare_cached(&text)?;
    let rows = segments.query_map(params_from_iter(&condition.values), |row| {
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
    condition: &Condition,
    stream: i64,
    segment: u64,
) -> Result<Vec<Entry>, ArchiveError> {
    let range = sequences(segment);
    // Numbers that this program has made, not text from outside.
    let text = format!(
        "SELECT number, start_sequence, operation_id FROM operations
            WHERE stream = {stream} AND start_sequence >= {} AND start_sequence < {} {}
            ORDER BY start_sequence DESC, operation_id DESC",
        range.start, range.end, condition.text
    );

    let mut entries = connection.prepare(&text)?;
    let rows = entries.query_map(params_from_iter(&condition.values), |row| {
        Ok(Entry {
            number: row.get(0)?,
            start_sequence: sequence(row, 1)?,
            operation_id: row.get(2)?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// The newest operation of the archive that repeats this one.
pub fn retried_as(
    connection: &Connection,
    record: &Record,
) -> Result<Option<OperationId>, ArchiveError> {
    const RETRIED: &str = "SELECT operation_id FROM operations
        WHERE document ->> '$.retry_of' = ?1 ORDER BY stream DESC, start_sequence DESC LIMIT 1";

    if !matches!(record.state.status, Status::Failed | Status::Cancelled) {
        return Ok(None);
    }
    let mut retried = connection.prepare_cached(RETRIED)?;
    let row = retried.query_row([record.id.as_str()], |row| row.get::<_, String>(0));
    Ok(row.optional()?.and_then(|id| OperationId::new(id).ok()))
}

/// The operation of an entry.
pub fn view(connection: &Connection, number: i64) -> Result<View, ArchiveError> {
    const VIEW: &str = "SELECT document, start_sequence, end_sequence FROM operations
        WHERE number = ?1";

    let mut view = connection.prepare_cached(VIEW)?;
    view.query_row([number], |row| Ok(stored(row)))?
}

fn stored(row: &Row<'_>) -> Result<View, ArchiveError> {
    let text: String = row
        .get(0)
        .map_err(|error| ArchiveError::Damaged(error.to_string()))?;
    document::read(&text, sequence(row, 1)?, sequence(row, 2)?)
}

/// A column with a sequence or a number of operations.
fn sequence(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    Ok(u64::try_from(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::schema;
    use super::*;

    #[test]
    fn the_result_of_an_older_operation_with_the_same_id_is_not_shown() {
        let scratch = tempfile::tempdir().unwrap();
        let file = schema::open_to_write(&scratch.path().join("archive.db")).unwrap();
        // The stream was made again, and counts from the beginning.
        let rows = "INSERT INTO operations VALUES
            (1, 1, 5, 'a', 'secret', 'completed', 0, 6, '{}'),
            (2, 2, 5, 'a', 'dummy', 'completed', 0, 6, '{}');
            INSERT INTO results VALUES (1, '7')";
        file.execute_batch(rows).unwrap();

        assert_eq!(result(&file, "a", 5).unwrap(), None);

        file.execute_batch("INSERT INTO results VALUES (2, '8')")
            .unwrap();
        assert_eq!(result(&file, "a", 5).unwrap().as_deref(), Some("8"));
    }
}

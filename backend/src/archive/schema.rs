//! The file of the archive: opening it, its tables, and their version.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use super::ArchiveError;

/// Version of the tables. A file of a later version is refused, one of an earlier version migrated.
const VERSION: i64 = 1;

/// Marks a file as an archive of this program ("KTRD").
const APPLICATION: i64 = 0x4b54_5244;

/// How long a writer waits for another one.
const PATIENCE: Duration = Duration::from_secs(5);

/// Sequences of one segment. Counts are kept for each segment, so that a list can skip it.
pub const SEGMENT: u64 = 8192;

/// `number` is the order of writing. `start_sequence` and `end_sequence` are sequences of the stream
/// that was created at `stream` (nanoseconds since 1970), `ended_at` is in milliseconds since 1970.
/// `document` is the operation document, without the worker among the metadata. `results` has large
/// results, which are not in the document.
const TABLES: &str = "
CREATE TABLE operations (
    number INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    start_sequence INTEGER NOT NULL,
    operation_id TEXT NOT NULL,
    worker_type TEXT NOT NULL,
    status TEXT NOT NULL,
    ended_at INTEGER NOT NULL,
    end_sequence INTEGER NOT NULL,
    document TEXT NOT NULL,
    UNIQUE (stream, start_sequence, operation_id)
) STRICT;
CREATE INDEX operations_by_id ON operations (operation_id);
CREATE INDEX operations_by_end ON operations (ended_at);

CREATE TABLE results (
    operation INTEGER PRIMARY KEY,
    result TEXT NOT NULL
) STRICT;

CREATE TABLE segments (
    stream INTEGER NOT NULL,
    segment INTEGER NOT NULL,
    worker_type TEXT NOT NULL,
    status TEXT NOT NULL,
    operations INTEGER NOT NULL,
    PRIMARY KEY (stream, segment, worker_type, status)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER operation_added AFTER INSERT ON operations BEGIN
    INSERT INTO segments
        VALUES (new.stream, new.start_sequence / 8192, new.worker_type, new.status, 1)
        ON CONFLICT DO UPDATE SET operations = operations + 1;
END;
CREATE TRIGGER operation_removed AFTER DELETE ON operations BEGIN
    DELETE FROM results WHERE operation = old.number;
    UPDATE segments SET operations = operations - 1
        WHERE stream = old.stream AND segment = old.start_sequence / 8192
        AND worker_type = old.worker_type AND status = old.status;
    DELETE FROM segments
        WHERE stream = old.stream AND segment = old.start_sequence / 8192 AND operations = 0;
END;
CREATE TRIGGER operation_changed AFTER UPDATE OF status ON operations BEGIN
    UPDATE segments SET operations = operations - 1
        WHERE stream = old.stream AND segment = old.start_sequence / 8192
        AND worker_type = old.worker_type AND status = old.status;
    INSERT INTO segments
        VALUES (new.stream, new.start_sequence / 8192, new.worker_type, new.status, 1)
        ON CONFLICT DO UPDATE SET operations = operations + 1;
END;
";

/// Indexes that were added after version 1. Programs that do not know them read and write the file as
/// before, so they are no new version.
const INDEXES: &str = "
CREATE INDEX IF NOT EXISTS operations_by_retry ON operations (document ->> '$.retry_of')
    WHERE document ->> '$.retry_of' IS NOT NULL;
CREATE INDEX IF NOT EXISTS operations_by_worker ON operations (document ->> '$.worker_id');
CREATE INDEX IF NOT EXISTS operations_by_code ON operations (document ->> '$.error.code')
    WHERE document ->> '$.error.code' IS NOT NULL;
CREATE INDEX IF NOT EXISTS operations_by_creation ON operations (document ->> '$.created_at');
";

/// The labels of operations, as `name:value`, which was added after version 1, too. Triggers keep it,
/// so programs that do not know it do so as well. It begins with the operations that are there.
const LABELS: &str = "
CREATE TABLE labels (
    label TEXT NOT NULL,
    operation INTEGER NOT NULL,
    PRIMARY KEY (label, operation)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER labels_added AFTER INSERT ON operations
WHEN new.document ->> '$.execution.labels' IS NOT NULL BEGIN
    INSERT INTO labels SELECT key || ':' || value, new.number
        FROM json_each(new.document, '$.execution.labels') WHERE type = 'text';
END;
CREATE TRIGGER labels_removed AFTER DELETE ON operations
WHEN old.document ->> '$.execution.labels' IS NOT NULL BEGIN
    DELETE FROM labels WHERE operation = old.number AND label IN
        (SELECT key || ':' || value FROM json_each(old.document, '$.execution.labels'));
END;
CREATE TRIGGER labels_changed AFTER UPDATE OF document ON operations
WHEN concat(old.document ->> '$.execution.labels', new.document ->> '$.execution.labels') <> '' BEGIN
    DELETE FROM labels WHERE operation = old.number AND label IN
        (SELECT key || ':' || value FROM json_each(old.document, '$.execution.labels'));
    INSERT INTO labels SELECT key || ':' || value, new.number
        FROM json_each(new.document, '$.execution.labels') WHERE type = 'text';
END;

INSERT INTO labels SELECT key || ':' || value, number
    FROM operations, json_each(document, '$.execution.labels')
    WHERE instr(document, '\"labels\"') > 0 AND type = 'text';
";

/// Opens the file to write it; makes it, or brings its tables up to date.
pub fn open_to_write(path: &Path) -> Result<Connection, ArchiveError> {
    make_private(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut connection = open(path, flags)?;
    // Refused before anything is changed.
    check(&connection)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // What was committed survives a loss of power.
    connection.pragma_update(None, "synchronous", "full")?;
    migrate(&mut connection)?;
    connection.execute_batch(INDEXES)?;
    add_labels(&mut connection)?;
    Ok(connection)
}

/// Adds the table of labels if it is not there. Several backends may do so at the same time.
fn add_labels(connection: &mut Connection) -> Result<(), ArchiveError> {
    const IS_THERE: &str = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE name = 'labels')";
    let is_there = |connection: &Connection| connection.query_row(IS_THERE, (), |row| row.get(0));

    if is_there(connection)? {
        return Ok(());
    }
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another backend may have been first.
    if !is_there(&change)? {
        change.execute_batch(LABELS)?;
    }
    change.commit()?;
    Ok(())
}

/// Makes an empty file that only its owner may read, if there is none. `SQLite` gives the files
/// beside it the same permissions.
fn make_private(path: &Path) {
    let mut options = std::fs::File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // A file that exists, or that cannot be made: what opens it says so.
    let _ = options.open(path);
}

/// Opens the file to read it.
pub fn open_to_read(path: &Path) -> Result<Connection, ArchiveError> {
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    check(&connection)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

fn open(path: &Path, flags: OpenFlags) -> Result<Connection, ArchiveError> {
    let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(PATIENCE)?;
    Ok(connection)
}

fn pragma(connection: &Connection, name: &str) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, name, |row| row.get(0))
}

/// Refuses a file of another program, and one of a later version.
fn check(connection: &Connection) -> Result<(), ArchiveError> {
    let (application, version) = (
        pragma(connection, "application_id")?,
        pragma(connection, "user_version")?,
    );
    let is_empty = application == 0 && pragma(connection, "schema_version")? == 0;
    if !is_empty && application != APPLICATION {
        return Err(ArchiveError::Foreign);
    }
    if version > VERSION {
        return Err(ArchiveError::Newer {
            found: version,
            known: VERSION,
        });
    }
    Ok(())
}

/// Makes the tables of this version. Several backends may do so at the same time.
fn migrate(connection: &mut Connection) -> Result<(), ArchiveError> {
    if pragma(connection, "user_version")? == VERSION {
        return Ok(());
    }
    let change = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Another backend may have been first. A later version adds its step here.
    if pragma(&change, "user_version")? == 0 {
        change.execute_batch(TABLES)?;
        change.pragma_update(None, "application_id", APPLICATION)?;
        change.pragma_update(None, "user_version", VERSION)?;
    }
    change.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triggers_count_by_the_segments_that_lists_skip() {
        assert!(TABLES.contains(&format!("start_sequence / {SEGMENT}")));
    }

    #[test]
    fn labels_follow_their_operations_also_those_that_were_there_before() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("archive.db");
        let add = |file: &Connection, number: i64, labels: &str| {
            let row = "INSERT INTO operations VALUES (?1, 1, ?1, ?1, 'dummy', 'failed', 0, 9, ?2)";
            let document = format!(r#"{{"execution":{{"labels":{labels}}}}}"#);
            file.execute(row, (number, document)).unwrap();
        };
        let found = |file: &Connection| {
            let all = "SELECT group_concat(label || operation, ' ') FROM labels";
            file.query_row(all, (), |row| row.get::<_, Option<String>>(0))
                .unwrap()
                .unwrap_or_default()
        };
        // As a version without the table wrote it.
        let file = open_to_write(&path).unwrap();
        let back = "DROP TRIGGER labels_added; DROP TRIGGER labels_removed;
            DROP TRIGGER labels_changed; DROP TABLE labels";
        file.execute_batch(back).unwrap();
        add(&file, 1, r#"{"a.b":"x:y"}"#);
        add(&file, 2, "null");
        drop(file);

        let file = open_to_write(&path).unwrap();
        assert_eq!(found(&file), "a.b:x:y1");
        add(&file, 3, r#"{"a.b":"x:y","night":""}"#);
        add(&file, 4, "{}");
        assert_eq!(found(&file), "a.b:x:y1 a.b:x:y3 night:3");
        file.execute_batch("DELETE FROM operations WHERE number <> 1")
            .unwrap();
        assert_eq!(found(&file), "a.b:x:y1");
        // The stream lost its end, and the operation came back in another way.
        let change = r#"UPDATE operations SET document = '{"execution":{"labels":{"b":"c"}}}'"#;
        file.execute_batch(change).unwrap();
        assert_eq!(found(&file), "b:c1");
        file.execute_batch("UPDATE operations SET document = '{}'")
            .unwrap();
        assert_eq!(found(&file), "");
    }

    #[test]
    fn a_file_of_another_program_or_of_a_later_version_is_refused_and_not_changed() {
        let scratch = tempfile::tempdir().unwrap();
        let other = scratch.path().join("other.db");
        let foreign = Connection::open(&other).unwrap();
        foreign.execute_batch("CREATE TABLE mine (a)").unwrap();
        let later = scratch.path().join("later.db");
        let newer = open_to_write(&later).unwrap();
        newer.pragma_update(None, "user_version", 2).unwrap();

        let refused = open_to_write(&other).unwrap_err();
        assert!(matches!(refused, ArchiveError::Foreign), "{refused}");
        let refused = open_to_write(&later).unwrap_err();
        assert!(
            matches!(refused, ArchiveError::Newer { found: 2, known: 1 }),
            "{refused}"
        );
        let mode: String = foreign
            .pragma_query_value(None, "journal_mode", |row| row.get(0))
            .unwrap();
        assert_eq!(mode, "delete");
    }
}

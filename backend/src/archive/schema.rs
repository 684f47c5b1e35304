//! The file of the archive: opening it, its tables, and their version.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

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
    Ok(connection)
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
    let change = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
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

//! Writes the table that a run leaves: to a temporary name first, to the name asked for when it is complete.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use super::error::DataError;
use super::row::Row;
use crate::Context;

/// How much is written at a time.
const CHUNK: usize = 256 * 1024;

/// A table that is being written. Dropped before [`OutputTable::publish`], it leaves nothing behind.
pub(super) struct OutputTable {
    file: File,
    buffer: Vec<u8>,
    temporary: PathBuf,
    target: PathBuf,
    /// The name in the request, for messages.
    name: String,
    published: bool,
}

impl OutputTable {
    /// Begins the table that will be `target`, called `name` in the request.
    pub(super) fn create(ctx: &Context, target: PathBuf, name: &str) -> Result<Self, DataError> {
        let directory = target.parent().unwrap_or(Path::new(".")).to_path_buf();
        fs::create_dir_all(&directory).map_err(DataError::io("create the directory of", name))?;
        let temporary = |attempt| directory.join(format!(".{}.{attempt}.tmp", ctx.operation_id()));
        // What attempts left that died without a chance to clean up. One that should still be alive has lost the operation to this
        // one and may not write its output any more.
        for earlier in 1..=ctx.attempt() {
            let _ = fs::remove_file(temporary(earlier));
        }
        let temporary = temporary(ctx.attempt());
        let file = File::create_new(&temporary).map_err(DataError::io("create", name))?;
        Ok(Self {
            file,
            buffer: Vec::with_capacity(CHUNK + 4096),
            temporary,
            target,
            name: name.to_owned(),
            published: false,
        })
    }

    /// Writes the header.
    pub(super) fn header(&mut self, names: &[String]) -> Result<(), DataError> {
        self.record(names.iter().map(|name| name.as_bytes()))
    }

    /// Writes a row.
    pub(super) fn row(&mut self, row: &Row) -> Result<(), DataError> {
        self.record(row.iter())
    }

    fn record<'a>(&mut self, cells: impl Iterator<Item = &'a [u8]>) -> Result<(), DataError> {
        write_record(&mut self.buffer, cells);
        if self.buffer.len() >= CHUNK { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), DataError> {
        self.file.write_all(&self.buffer).map_err(DataError::io("write", &self.name))?;
        self.buffer.clear();
        Ok(())
    }

    /// Makes the table durable and gives it its name, in one step: whoever looks sees the whole of it or nothing.
    pub(super) fn publish(mut self, ctx: &Context) -> Result<(), DataError> {
        self.flush()?;
        ctx.check_cancelled()?;
        self.file.sync_all().map_err(DataError::io("write", &self.name))?;
        // The last moment at which nobody has seen anything yet: not cancelled, and not taken over by another attempt.
        ctx.ensure_owner_blocking()?;
        fs::rename(&self.temporary, &self.target).map_err(DataError::io("write", &self.name))?;
        self.published = true;
        // The name, too, shall survive a power cut; where directories cannot be synced there is nothing more to do.
        if let Some(directory) = self.target.parent() {
            let _ = File::open(directory).and_then(|directory| directory.sync_all());
        }
        Ok(())
    }
}

impl Drop for OutputTable {
    fn drop(&mut self) {
        if !self.published {
            let _ = fs::remove_file(&self.temporary);
        }
    }
}

/// Appends a record to `text`. Cells are quoted only where they must be.
fn write_record<'a>(text: &mut Vec<u8>, cells: impl Iterator<Item = &'a [u8]>) {
    let start = text.len();
    for (index, cell) in cells.enumerate() {
        if index > 0 {
            text.push(b',');
        }
        if cell.iter().any(|byte| matches!(byte, b',' | b'"' | b'\r' | b'\n')) {
            quote(text, cell);
        } else {
            text.extend_from_slice(cell);
        }
    }
    // A record of one empty cell would be an empty line, which no reader takes for a record.
    if text.len() == start {
        text.extend_from_slice(b"\"\"");
    }
    text.push(b'\n');
}

fn quote(text: &mut Vec<u8>, cell: &[u8]) {
    text.push(b'"');
    for &byte in cell {
        if byte == b'"' {
            text.push(b'"');
        }
        text.push(byte);
    }
    text.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TestRun;

    #[test]
    fn quotes_only_what_must_be() {
        let mut text = Vec::new();
        for cells in [&["a", "b,c", ""][..], &["q\"q", "x\ny", "\r"], &[" ", "'"], &[""], &["", ""]] {
            write_record(&mut text, cells.iter().map(|cell| cell.as_bytes()));
        }
        assert_eq!(text, b"a,\"b,c\",\n\"q\"\"q\",\"x\ny\",\"\r\"\n ,'\n\"\"\n,\n");
    }

    #[test]
    fn appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let (run, target) = (TestRun::in_dir(dir.path()), dir.path().join("out.csv"));
        let names = || fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
        // Left by an attempt that was killed.
        fs::write(dir.path().join(".test.1.tmp"), "half a tab").unwrap();
        let mut table = OutputTable::create(run.ctx(), target.clone(), "out.csv").unwrap();
        table.header(&["a".into()]).unwrap();
        assert_eq!(names(), [".test.1.tmp"]);
        drop(table);
        assert!(names().is_empty());

        let table = OutputTable::create(run.ctx(), target.clone(), "out.csv").unwrap();
        table.publish(run.ctx()).unwrap();
        assert_eq!(names(), ["out.csv"]);
        fs::write(&target, "the one before").unwrap();
        run.cancel();
        let table = OutputTable::create(run.ctx(), target.clone(), "out.csv").unwrap();
        assert!(table.publish(run.ctx()).is_err());
        assert_eq!((names(), fs::read_to_string(&target).unwrap()), (vec!["out.csv".into()], "the one before".into()));
    }
}

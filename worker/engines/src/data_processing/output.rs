//! Writes the output table: first to a file of the attempt, which gets the requested name when the
//! table is complete.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::attempt_files::AttemptFiles;
use super::error::DataError;
use super::row::Row;
use ktrdr_worker::Context;

/// Bytes written at a time.
const CHUNK: usize = 256 * 1024;

/// A table that is being written. Only this attempt writes the file, and the file only grows.
pub(super) struct OutputTable {
    file: File,
    buffer: Vec<u8>,
    /// Bytes in the file.
    written: u64,
    temporary: PathBuf,
    target: PathBuf,
    /// The name in the request, for messages.
    name: String,
}

impl OutputTable {
    /// Creates the table that will be published as `target`, which the request calls `name`.
    pub(super) fn create(
        files: &mut AttemptFiles,
        target: PathBuf,
        name: &str,
    ) -> Result<Self, DataError> {
        // Fail before the work when the directory cannot be created.
        if let Some(directory) = target.parent() {
            fs::create_dir_all(directory)
                .map_err(DataError::io("create the directory of", name))?;
        }

        let (file, temporary) = files
            .create_output()
            .map_err(DataError::io("create", name))?;
        let buffer = Vec::with_capacity(CHUNK + 4096);

        Ok(Self {
            file,
            buffer,
            written: 0,
            temporary,
            target,
            name: name.to_owned(),
        })
    }

    /// Starts with the first `len` bytes of the table that another attempt wrote.
    pub(super) fn copy_from(&mut self, path: &Path, len: u64) -> io::Result<()> {
        self.written = io::copy(&mut File::open(path)?.take(len), &mut self.file)?;
        if self.written == len {
            Ok(())
        } else {
            Err(io::Error::other("it is shorter than the checkpoint says"))
        }
    }

    /// Removes everything written so far.
    pub(super) fn truncate(&mut self) -> Result<(), DataError> {
        self.buffer.clear();
        self.written = 0;
        self.file
            .set_len(0)
            .and_then(|()| self.file.rewind())
            .map_err(DataError::io("write", &self.name))
    }

    /// Writes the header.
    pub(super) fn write_header(&mut self, names: &[String]) -> Result<(), DataError> {
        self.append_record(names.iter().map(String::as_bytes))
    }

    /// Writes a row.
    pub(super) fn write_row(&mut self, row: &Row) -> Result<(), DataError> {
        self.append_record(row.iter())
    }

    fn append_record<'a>(
        &mut self,
        cells: impl Iterator<Item = &'a [u8]>,
    ) -> Result<(), DataError> {
        append_record_text(&mut self.buffer, cells);
        if self.buffer.len() >= CHUNK {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<(), DataError> {
        self.file
            .write_all(&self.buffer)
            .map_err(DataError::io("write", &self.name))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Syncs all rows so far to disk. Returns their length in bytes.
    pub(super) fn sync(&mut self) -> Result<u64, DataError> {
        self.flush()?;
        self.file
            .sync_data()
            .map_err(DataError::io("write", &self.name))?;
        Ok(self.written)
    }

    /// Syncs the table to disk and renames it to its target. Others see the whole table or nothing.
    pub(super) fn publish(mut self, ctx: &Context) -> Result<(), DataError> {
        self.flush()?;
        ctx.check_cancelled()?;
        self.file
            .sync_all()
            .map_err(DataError::io("write", &self.name))?;

        // The last check before others can see the table: no other attempt has taken over.
        ctx.ensure_owner_blocking()?;

        match fs::rename(&self.temporary, &self.target) {
            Err(error) if error.kind() == ErrorKind::CrossesDevices => self.publish_copy(ctx)?,
            renamed => renamed.map_err(DataError::io("write", &self.name))?,
        }

        // Sync the directory too, so that the new name survives a power failure. Some file systems
        // cannot; then nothing more can be done.
        if let Some(directory) = self.target.parent() {
            let _ = File::open(directory).and_then(|directory| directory.sync_all());
        }

        Ok(())
    }

    /// Publishes to another device: copies the table beside its target, then renames the copy.
    fn publish_copy(&self, ctx: &Context) -> Result<(), DataError> {
        let beside = |attempt| {
            self.target
                .with_file_name(format!(".{}.{attempt}.tmp", ctx.operation_id()))
        };

        // Remove copies of attempts that died here.
        for earlier in 1..=ctx.attempt() {
            let _ = fs::remove_file(beside(earlier));
        }

        let copy = beside(ctx.attempt());
        let published = (|| {
            let io = || DataError::io("write", &self.name);
            let mut file = File::create_new(&copy).map_err(io())?;
            io::copy(&mut File::open(&self.temporary).map_err(io())?, &mut file).map_err(io())?;
            file.sync_all().map_err(io())?;
            ctx.ensure_owner_blocking()?;
            fs::rename(&copy, &self.target).map_err(io())
        })();

        if published.is_err() {
            let _ = fs::remove_file(&copy);
        }

        published
    }
}

/// Appends a record to `text`. Quotes a cell only when it holds a comma, a quote or a line end.
fn append_record_text<'a>(text: &mut Vec<u8>, cells: impl Iterator<Item = &'a [u8]>) {
    let start = text.len();
    for (index, cell) in cells.enumerate() {
        if index > 0 {
            text.push(b',');
        }

        if cell
            .iter()
            .any(|byte| matches!(byte, b',' | b'"' | b'\r' | b'\n'))
        {
            append_quoted(text, cell);
        } else {
            text.extend_from_slice(cell);
        }
    }

    // A record of one empty cell would be an empty line, which readers skip.
    if text.len() == start {
        text.extend_from_slice(b"\"\"");
    }

    text.push(b'\n');
}

fn append_quoted(text: &mut Vec<u8>, cell: &[u8]) {
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
    use crate::data_processing::tests::names;
    use ktrdr_worker::testing::TestRun;

    #[test]
    fn quotes_only_what_must_be() {
        let mut text = Vec::new();
        for cells in [
            &["a", "b,c", ""][..],
            &["q\"q", "x\ny", "\r"],
            &[" ", "'"],
            &[""],
            &["", ""],
        ] {
            append_record_text(&mut text, cells.iter().map(|cell| cell.as_bytes()));
        }

        assert_eq!(
            text,
            b"a,\"b,c\",\n\"q\"\"q\",\"x\ny\",\"\r\"\n ,'\n\"\"\n,\n"
        );
    }

    fn table(run: &TestRun, target: &Path) -> (AttemptFiles, OutputTable) {
        let mut files = AttemptFiles::open(
            run.ctx().data_dir(),
            run.ctx().operation_id(),
            run.ctx().attempt(),
            false,
        );
        let table = OutputTable::create(&mut files, target.to_owned(), "out.csv").unwrap();
        (files, table)
    }

    #[test]
    fn appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let (run, target) = (TestRun::in_dir(dir.path()), dir.path().join("out.csv"));
        let (files, mut first) = table(&run, &target);

        first.write_header(&["a".into()]).unwrap();

        assert_eq!(
            (first.sync().unwrap(), names(dir.path())),
            (2, vec![".unfinished".to_owned()])
        );

        drop((files, first));

        assert!(names(dir.path()).is_empty());

        let (files, second) = table(&run, &target);

        second.publish(run.ctx()).unwrap();
        files.complete();

        assert_eq!(names(dir.path()), ["out.csv"]);

        fs::write(&target, "the one before").unwrap();
        run.cancel();

        let (files, third) = table(&run, &target);

        assert!(third.publish(run.ctx()).is_err());

        drop(files);

        assert_eq!(names(dir.path()), ["out.csv"]);
        assert_eq!(fs::read_to_string(&target).unwrap(), "the one before");
    }

    #[test]
    fn a_target_on_another_device_gets_a_copy() {
        let dir = tempfile::tempdir().unwrap();
        let (run, target) = (TestRun::in_dir(dir.path()), dir.path().join("out.csv"));

        // The copy of an attempt that was killed.
        fs::write(dir.path().join(".test.1.tmp"), "half a tab").unwrap();

        let (files, mut whole) = table(&run, &target);

        whole.write_header(&["a".into()]).unwrap();
        whole.sync().unwrap();
        whole.publish_copy(run.ctx()).unwrap();
        files.complete();

        assert_eq!(
            (names(dir.path()), fs::read_to_string(&target).unwrap()),
            (vec!["out.csv".into()], "a\n".into())
        );

        let (files, whole) = table(&run, &target);

        run.cancel();

        assert!(whole.publish_copy(run.ctx()).is_err());

        drop(files);

        assert_eq!(
            (names(dir.path()), fs::read_to_string(&target).unwrap()),
            (vec!["out.csv".into()], "a\n".into())
        );
    }

    #[test]
    fn continues_the_table_of_another_attempt() {
        let dir = tempfile::tempdir().unwrap();
        let (run, other) = (TestRun::in_dir(dir.path()), dir.path().join("other"));

        fs::write(&other, "a\n1\nhalf a r").unwrap();

        let (_files, mut table) = table(&run, &dir.path().join("out.csv"));

        assert!(table.copy_from(&other, 100).is_err());

        table.truncate().unwrap();
        table.copy_from(&other, 4).unwrap();
        table.write_row(&Row::of(&["2"])).unwrap();

        assert_eq!(table.sync().unwrap(), 6);

        table.publish(run.ctx()).unwrap();

        assert_eq!(
            fs::read_to_string(dir.path().join("out.csv")).unwrap(),
            "a\n1\n2\n"
        );
    }
}

//! Writes the output table: first to a file of the attempt, which gets the requested name when the
//! table is complete.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::attempt_files::AttemptFiles;
use super::error::DataError;
use super::row::Row;
use ktrdr_worker::{DataDir, Output};

/// Bytes written at a time.
const CHUNK: usize = 256 * 1024;

/// A table that is being written. Only this attempt writes the file, and the file only grows.
pub(super) struct OutputTable {
    file: File,
    buffer: Vec<u8>,
    /// Bytes in the file.
    written: u64,
    /// Path of the file, relative to the data directory.
    temporary: PathBuf,
    data_dir: DataDir,
    output: Output,
}

impl OutputTable {
    /// Creates the table that will be published as `output`.
    pub(super) fn create(files: &mut AttemptFiles, output: Output) -> Result<Self, DataError> {
        let (file, temporary) = files
            .create_output()
            .map_err(DataError::io("create", output.name()))?;
        let buffer = Vec::with_capacity(CHUNK + 4096);

        Ok(Self {
            file,
            buffer,
            written: 0,
            temporary,
            data_dir: files.data_dir().clone(),
            output,
        })
    }

    /// Starts with the first `len` bytes of the table that another attempt wrote.
    pub(super) fn copy_from(&mut self, table: File, len: u64) -> io::Result<()> {
        self.written = io::copy(&mut table.take(len), &mut self.file)?;
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
            .map_err(DataError::io("write", self.output.name()))
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
            .map_err(DataError::io("write", self.output.name()))?;
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Syncs all rows so far to disk. Returns their length in bytes.
    pub(super) fn sync(&mut self) -> Result<u64, DataError> {
        self.flush()?;
        self.file
            .sync_data()
            .map_err(DataError::io("write", self.output.name()))?;
        Ok(self.written)
    }

    /// Syncs the table to disk and gives it its name. Others see the whole table or nothing.
    pub(super) fn publish(mut self) -> Result<(), DataError> {
        self.flush()?;

        if Path::new(self.output.name()).extension() == Some("gz".as_ref()) {
            return self.publish_compressed();
        }
        Ok(self.output.publish(&self.file, &self.temporary)?)
    }

    /// Compresses the complete table. Not row by row: a compressed table cannot be continued by
    /// another attempt.
    fn publish_compressed(self) -> Result<(), DataError> {
        let mut table = self
            .data_dir
            .open_path(&self.temporary)
            .map_err(DataError::io("read", self.output.name()))?;

        Ok(self.output.write(|file| {
            let mut encoder = GzEncoder::new(file, Compression::default());
            io::copy(&mut table, &mut encoder)?;
            encoder.finish().map(drop)
        })?)
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
    use std::fs;

    use super::*;
    use crate::data_processing::tests::names;
    use ktrdr_worker::NamedBy;
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

    fn table(run: &TestRun) -> (AttemptFiles, OutputTable) {
        let mut files = AttemptFiles::open(
            run.ctx().data_dir(),
            run.ctx().operation_id(),
            run.ctx().attempt(),
            false,
        );
        let output = run.ctx().output("out.csv", NamedBy::Request, true).unwrap();
        let table = OutputTable::create(&mut files, output).unwrap();
        (files, table)
    }

    #[test]
    fn appears_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let (run, target) = (TestRun::in_dir(dir.path()), dir.path().join("out.csv"));
        let (files, mut first) = table(&run);

        first.write_header(&["a".into()]).unwrap();

        assert_eq!(
            (first.sync().unwrap(), names(dir.path())),
            (2, vec![".unfinished".to_owned()])
        );

        drop((files, first));

        assert!(names(dir.path()).is_empty());

        let (files, second) = table(&run);

        second.publish().unwrap();
        files.complete();

        assert_eq!(names(dir.path()), ["out.csv"]);

        fs::write(&target, "the one before").unwrap();
        run.cancel();

        let (files, third) = table(&run);

        assert!(third.publish().is_err());

        drop(files);

        assert_eq!(names(dir.path()), ["out.csv"]);
        assert_eq!(fs::read_to_string(&target).unwrap(), "the one before");
    }

    #[test]
    fn continues_the_table_of_another_attempt() {
        let dir = tempfile::tempdir().unwrap();
        let (run, other) = (TestRun::in_dir(dir.path()), dir.path().join("other"));

        fs::write(&other, "a\n1\nhalf a r").unwrap();

        let (_files, mut table) = table(&run);

        assert!(table.copy_from(File::open(&other).unwrap(), 100).is_err());

        table.truncate().unwrap();
        table.copy_from(File::open(&other).unwrap(), 4).unwrap();
        table.write_row(&Row::of(&["2"])).unwrap();

        assert_eq!(table.sync().unwrap(), 6);

        table.publish().unwrap();

        assert_eq!(
            fs::read_to_string(dir.path().join("out.csv")).unwrap(),
            "a\n1\n2\n"
        );
    }
}

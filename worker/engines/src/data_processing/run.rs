//! One run: opens the files, plans the operations, reads the source in one or several passes, and
//! publishes the output.
//!
//! The problem: a file of any size must be processed in bounded memory, although a rule may need a
//! figure of a whole column (a median, a standard deviation) before it can write the first row. The
//! source is therefore read once per pass. In each pass every row goes through the operations that
//! need it; earlier passes only learn figures, and the last pass writes the table. Two alternatives
//! were rejected: keeping the table in memory bounds the file size, and writing the table between
//! two operations costs more disk traffic than reading the source again.
//!
//! Between two rows, at least every 250 rows, the run reports progress, saves a checkpoint when one
//! is due, and stops when the operation was cancelled. A later attempt resumes behind the row of
//! the last checkpoint (see `checkpoint`).

use std::path::Path;
use std::time::Instant;

use super::checkpoint::CheckpointSaver;
use super::decode::Decoded;
use super::error::{DataError, shown};
use super::input::Ragged;
use super::output::OutputTable;
use super::plan::{Plan, PlannedOperation};
use super::progress::{Position, ProgressReporter, RaggedRecords};
use super::reader::CsvReader;
use super::row::{Row, Span};
use super::source::Source;
use super::table::Table;
use super::text::trim;
use super::{DataProcessingOutput, DataProcessingRequest};
use crate::warnings::Warnings;
use ktrdr_worker::{Context, NamedBy, Output};

/// Executes `request`. Resumes from the checkpoint of an earlier attempt if there is one.
pub(super) fn process(
    ctx: &Context,
    request: &DataProcessingRequest,
) -> Result<DataProcessingOutput, DataError> {
    let started = Instant::now();
    if request.operations.is_empty() {
        return Err(DataError::Request(
            "operations is empty: name at least one of clean, transform, validate".into(),
        ));
    }

    let numbers = request.input.numbers()?;
    let source = Source::open(ctx.data_dir(), &request.source_file, &request.input)?;
    let mut header = Row::default();
    read_header(&source, &mut source.read()?, &mut header)?;
    let mut warnings = Warnings::default();
    warn_about_header(&header, &mut warnings);

    if request.input.trailing_delimiter {
        drop_empty_last_cell(&mut header, 1);
    }

    let fresh = || {
        Plan::new(
            &request.operations,
            source.name(),
            Table::new(source.name(), &header, numbers)?,
        )
    };

    // Plan before creating any file, so that an invalid request leaves nothing behind.
    let plan = fresh()?;
    let target = output_target(ctx, request, &source)?;
    let mut saver = CheckpointSaver::new(ctx, request, &source)?;
    let name = target.as_ref().map(|target| target.name().to_owned());
    let mut output = match target {
        Some(target) => Some(OutputTable::create(&mut saver.files, target)?),
        None => None,
    };
    let (plan, position) = saver.resume(plan, fresh, output.as_mut())?;
    let mut run = Run {
        ctx,
        request,
        source: &source,
        columns: header.len(),
        plan,
        saver,
        ragged: RaggedRecords::default(),
    };

    let mut progress = ProgressReporter::new(
        ctx,
        run.plan.table.last_pass + 1,
        source.len(),
        request.estimated_rows,
    );

    run.run_passes(&mut progress, output, position)?;
    progress.finish(run.plan.errors());
    run.saver.complete();
    warn_about_records(run.ragged, &mut warnings);
    run.plan.warn(&mut warnings);

    Ok(DataProcessingOutput {
        rows_processed: progress.rows_processed(),
        output_file: name,
        duration_seconds: started.elapsed().as_secs_f64(),
        operations: run
            .plan
            .operations
            .into_iter()
            .map(PlannedOperation::into_result)
            .collect(),
        warnings: warnings.into_sentences(),
    })
}

/// Reads the header: the first record that is not blank.
fn read_header(
    source: &Source,
    reader: &mut CsvReader<Decoded<'_>>,
    header: &mut Row,
) -> Result<(), DataError> {
    while reader.read(header)? {
        if !is_blank(header) {
            return Ok(());
        }
    }
    Err(DataError::Empty {
        file: source.name().to_owned(),
    })
}

/// Whether the record is a line of white space.
fn is_blank(row: &Row) -> bool {
    row.len() == 1 && !row.quoted && trim(row.cell(0)).is_empty()
}

/// Drops the last cell when it is missing and the row has more than `least` cells.
fn drop_empty_last_cell(row: &mut Row, least: usize) {
    if row.len() > least && trim(row.cell(row.len() - 1)).is_empty() {
        row.cells.pop();
    }
}

/// A header of one column that holds another delimiter.
fn warn_about_header(header: &Row, warnings: &mut Warnings) {
    if header.len() != 1 || header.quoted {
        return;
    }
    let name = header.cell(0);
    let found = [(b';', ";"), (b'\t', "\\t"), (b'|', "|"), (b',', ",")];

    if let Some((_, delimiter)) = found.iter().find(|(byte, _)| name.contains(byte)) {
        warnings.add(format!(
            "the header has one column, {:?}: if its names are separated by \"{delimiter}\", set input.delimiter to it",
            shown(name)
        ));
    }
}

fn warn_about_records(ragged: RaggedRecords, warnings: &mut Warnings) {
    for (count, done) in [
        (ragged.dropped, "were dropped"),
        (ragged.padded, "had too few cells, and got missing ones"),
        (ragged.cut, "had too many cells, which were cut off"),
    ] {
        if count > 0 {
            warnings.add(format!(
                "{count} records with another number of cells than the header {done}"
            ));
        }
    }
}

/// The file of the output table. None when no operation makes a table.
fn output_target(
    ctx: &Context,
    request: &DataProcessingRequest,
    source: &Source,
) -> Result<Option<Output>, DataError> {
    if !request
        .operations
        .iter()
        .any(|operation| operation.0.writes())
    {
        return Ok(None);
    }

    let (name, named_by) = match &request.output_file {
        Some(name) => (name.clone(), NamedBy::Request),
        None => (default_output(&request.source_file), NamedBy::Engine),
    };
    let place = ctx.data_dir().place_output(&name)?;

    if source.is_at(ctx.data_dir(), &place) {
        return Err(DataError::Request(format!(
            "output_file {name:?} is the source file: give another name"
        )));
    }

    Ok(Some(ctx.output(&place, named_by, request.overwrite)?))
}

/// The default output file: `a/b.csv` becomes `a/b.processed.csv`, and `a/b.csv.gz` becomes
/// `a/b.processed.csv.gz`.
fn default_output(source_file: &str) -> String {
    let (source_file, ending) = match source_file.strip_suffix(".gz") {
        Some(source_file) => (source_file, ".gz"),
        None => (source_file, ""),
    };
    let path = Path::new(source_file);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}.processed.csv{ending}"))
        .to_string_lossy()
        .into_owned()
}

/// Rows that an operation held back, between two checks for cancellation.
const ROWS_PER_CHECK: u32 = 250;

/// Bytes of the source file read so far in this pass.
fn file_bytes(reader: &CsvReader<Decoded<'_>>) -> u64 {
    let decoded = reader.input().file_bytes();
    decoded.unwrap_or_else(|| reader.bytes_read())
}

struct Run<'a> {
    ctx: &'a Context,
    request: &'a DataProcessingRequest,
    source: &'a Source,
    columns: usize,
    plan: Plan,
    saver: CheckpointSaver<'a>,
    /// Of this pass.
    ragged: RaggedRecords,
}

impl Run<'_> {
    /// Runs all passes, or those from `position` on.
    fn run_passes(
        &mut self,
        progress: &mut ProgressReporter<'_>,
        mut output: Option<OutputTable>,
        mut position: Option<Position>,
    ) -> Result<(), DataError> {
        let last = self.plan.table.last_pass;
        for pass in position.map_or(0, |position| position.pass)..last {
            self.run_pass(pass, progress, None, position.take())?;
        }

        if let (Some(output), None) = (&mut output, position) {
            output.write_header(&self.plan.table.names())?;
        }

        self.run_pass(last, progress, output.as_mut(), position)?;

        match output {
            Some(output) => output.publish(),
            None => Ok(self.ctx.check_cancelled()?),
        }
    }

    /// Reads the source once, or from `position` on, and sends every row through the operations.
    fn run_pass(
        &mut self,
        pass: usize,
        progress: &mut ProgressReporter<'_>,
        mut output: Option<&mut OutputTable>,
        position: Option<Position>,
    ) -> Result<(), DataError> {
        let needed = self.plan.operations_needed_in(pass);
        let mut row = Row::default();
        let mut reader = match position {
            Some(position) => {
                let reader = self.source.read_from(position.offset, position.line)?;
                let activity = self.activity_text(needed);
                progress.resume_pass(position, file_bytes(&reader), activity)?;
                self.ragged = position.ragged;
                reader
            }
            None => {
                progress.begin_pass(pass, self.activity_text(needed))?;
                self.plan.begin_pass(pass);
                self.ragged = RaggedRecords::default();
                let mut reader = self.source.read()?;
                read_header(self.source, &mut reader, &mut row)?;
                reader
            }
        };

        while reader.read(&mut row)? {
            if self.columns > 1 && is_blank(&row) {
                continue;
            }

            if (row.len() == self.columns || self.fit(&mut row)?)
                && self.plan.process_row(&mut row, needed)?
                && let Some(output) = &mut output
            {
                output.write_row(&row)?;
            }

            if progress.count_row(file_bytes(&reader)) {
                self.do_periodic_work(progress, &reader, output.as_deref_mut())?;
            }
        }

        self.give_on_held_rows(&mut row, needed, output)?;

        self.source.check_unchanged()?;

        // The other operations saw no row in this pass and must not take that for an empty table.
        self.plan.operations[..needed]
            .iter_mut()
            .for_each(|operation| operation.end_pass());
        progress.end_pass();

        Ok(())
    }

    /// Between two rows: reports progress, saves a checkpoint when one is due, and fails when the
    /// operation was cancelled.
    #[cold]
    fn do_periodic_work(
        &mut self,
        progress: &mut ProgressReporter<'_>,
        reader: &CsvReader<Decoded<'_>>,
        output: Option<&mut OutputTable>,
    ) -> Result<(), DataError> {
        progress.report(file_bytes(reader), || self.plan.errors());

        let mut position = progress.position(reader.bytes_read(), reader.line());
        position.ragged = self.ragged;
        self.saver.save(&self.plan, position, output)?;

        Ok(self.ctx.check_cancelled()?)
    }

    /// At the end of a pass: sends the rows that operations have held back on their way.
    fn give_on_held_rows(
        &mut self,
        row: &mut Row,
        needed: usize,
        mut output: Option<&mut OutputTable>,
    ) -> Result<(), DataError> {
        let mut given: u32 = 0;
        while self.plan.next_held(row, needed)? {
            if let Some(output) = &mut output {
                output.write_row(row)?;
            }
            given = given.wrapping_add(1);
            if given.is_multiple_of(ROWS_PER_CHECK) {
                self.ctx.check_cancelled()?;
            }
        }
        Ok(())
    }

    /// Makes a record with another number of cells than the header fit, as the request says. Returns
    /// false when it is dropped.
    #[cold]
    fn fit(&mut self, row: &mut Row) -> Result<bool, DataError> {
        let (options, found) = (&self.request.input, row.len());

        if options.trailing_delimiter && found == self.columns + 1 {
            drop_empty_last_cell(row, self.columns);
            if row.len() == self.columns {
                return Ok(true);
            }
        }

        // Only validation accepts a record with too few or too many cells.
        let writes = self.request.operations.iter().any(|one| one.0.writes());
        match options.ragged {
            None if !writes => Ok(true),
            None | Some(Ragged::Fail) => Err(self.wrong_cell_count(row)),
            Some(Ragged::Drop) => {
                self.ragged.dropped += 1;
                Ok(false)
            }
            Some(Ragged::Pad) => {
                self.ragged.padded += u64::from(found < self.columns);
                self.ragged.cut += u64::from(found > self.columns);
                row.cells.resize(self.columns, Span::EMPTY);
                Ok(true)
            }
        }
    }

    fn wrong_cell_count(&self, row: &Row) -> DataError {
        let file = self.source.name().to_owned();
        DataError::CellCount {
            file,
            line: row.line,
            expected: self.columns,
            found: row.len(),
        }
    }

    /// The activities of the first `needed` operations for the progress text, such as `Cleaning,
    /// transforming`.
    fn activity_text(&self, needed: usize) -> String {
        let mut names: Vec<&str> = Vec::new();
        for operation in &self.request.operations[..needed] {
            if !names.contains(&operation.0.activity()) {
                names.push(operation.0.activity());
            }
        }

        let (first, rest) = names
            .split_first()
            .map_or(("", &[][..]), |(first, rest)| (*first, rest));

        rest.iter().fold(first.to_owned(), |text, name| {
            text + ", " + &name.to_lowercase()
        })
    }
}

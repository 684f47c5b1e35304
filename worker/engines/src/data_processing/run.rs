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
use super::error::DataError;
use super::output::OutputTable;
use super::plan::{Plan, PlannedOperation};
use super::progress::{Position, ProgressReporter};
use super::row::Row;
use super::source::Source;
use super::table::Table;
use super::{DataProcessingOutput, DataProcessingRequest};
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

    let source = Source::open(ctx.data_dir(), &request.source_file)?;
    let header = read_header(&source)?;
    let fresh = || {
        Plan::new(
            &request.operations,
            source.name(),
            Table::new(source.name(), &header)?,
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
    })
}

fn read_header(source: &Source) -> Result<Row, DataError> {
    let mut header = Row::default();
    match source.read()?.read(&mut header)? {
        true => Ok(header),
        false => Err(DataError::Empty {
            file: source.name().to_owned(),
        }),
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

/// The default output file: `a/b.csv` becomes `a/b.processed.csv`.
fn default_output(source_file: &str) -> String {
    let path = Path::new(source_file);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}.processed.csv"))
        .to_string_lossy()
        .into_owned()
}

struct Run<'a> {
    ctx: &'a Context,
    request: &'a DataProcessingRequest,
    source: &'a Source,
    columns: usize,
    plan: Plan,
    saver: CheckpointSaver<'a>,
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
                progress.resume_pass(position, self.activity_text(needed))?;
                self.source.read_from(position.offset, position.line)?
            }
            None => {
                progress.begin_pass(pass, self.activity_text(needed))?;
                self.plan.begin_pass(pass);
                let mut reader = self.source.read()?;
                reader.read(&mut row)?;
                reader
            }
        };

        // Only validation accepts a record with too few or too many cells.
        let strict = self
            .request
            .operations
            .iter()
            .any(|operation| operation.0.writes());

        while reader.read(&mut row)? {
            if strict && row.len() != self.columns {
                return Err(self.wrong_cell_count(&row));
            }

            if self.plan.process_row(&mut row, needed)?
                && let Some(output) = &mut output
            {
                output.write_row(&row)?;
            }

            if progress.count_row(reader.bytes_read()) {
                self.do_periodic_work(
                    progress,
                    reader.bytes_read(),
                    reader.line(),
                    output.as_deref_mut(),
                )?;
            }
        }

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
        offset: u64,
        line: u64,
        output: Option<&mut OutputTable>,
    ) -> Result<(), DataError> {
        progress.report(offset, || self.plan.errors());
        self.saver
            .save(&self.plan, progress.position(offset, line), output)?;
        Ok(self.ctx.check_cancelled()?)
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

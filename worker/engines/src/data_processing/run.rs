//! One run: opens the files, plans, reads the source as often as the plan says, publishes the output.

use std::path::{Path, PathBuf};
use std::time::Instant;

use super::checkpoint::Saver;
use super::error::DataError;
use super::meter::{Meter, Position};
use super::output::OutputTable;
use super::plan::Plan;
use super::row::Row;
use super::source::Source;
use super::table::Table;
use super::unfinished::DIRECTORY;
use super::{DataProcessingOutput, DataProcessingRequest};
use ktrdr_worker::Context;

/// Does what `request` asks for, from where an earlier attempt was if there was one.
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
    let source = Source::open(
        &ctx.data_dir().resolve(&request.source_file)?,
        &request.source_file,
    )?;
    let header = read_header(&source)?;
    let fresh = || {
        Plan::new(
            &request.operations,
            source.name(),
            Table::new(source.name(), &header)?,
        )
    };
    // A request that makes no sense leaves no trace.
    let plan = fresh()?;
    let target = target(ctx, request, &source)?;
    let mut saver = Saver::new(ctx, request, &source)?;
    let mut output = match &target {
        Some((path, name)) => Some(OutputTable::create(&mut saver.files, path.clone(), name)?),
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
    let mut meter = Meter::new(
        ctx,
        run.plan.table.last_pass + 1,
        source.len(),
        request.estimated_rows,
    );
    run.all_passes(&mut meter, output, position)?;
    meter.finish(run.plan.errors());
    run.saver.complete();
    Ok(DataProcessingOutput {
        rows_processed: meter.rows_processed(),
        output_file: target.map(|(_, name)| name),
        duration_seconds: started.elapsed().as_secs_f64(),
        operations: run
            .plan
            .operations
            .into_iter()
            .map(|operation| operation.into_result())
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

/// Where the table goes and what it is called, if the operations make one.
fn target(
    ctx: &Context,
    request: &DataProcessingRequest,
    source: &Source,
) -> Result<Option<(PathBuf, String)>, DataError> {
    if !request
        .operations
        .iter()
        .any(|operation| operation.0.writes())
    {
        return Ok(None);
    }
    let name = request
        .output_file
        .clone()
        .unwrap_or_else(|| default_output(&request.source_file));
    let path = ctx.data_dir().resolve(&name)?;
    if source.is_at(&path) {
        return Err(DataError::Request(format!(
            "output_file {name:?} is the source file: give another name"
        )));
    }
    if path.is_dir() || path.file_name().is_none() {
        return Err(DataError::Request(format!(
            "output_file {name:?} is a directory: give the name of a file"
        )));
    }
    if path.starts_with(ctx.data_dir().root().join(DIRECTORY)) {
        return Err(DataError::Request(format!(
            "output_file {name:?} is among unfinished work: give another name"
        )));
    }
    Ok(Some((path, name)))
}

/// `a/b.csv` becomes `a/b.processed.csv`.
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
    saver: Saver<'a>,
}

impl Run<'_> {
    /// Does all passes, or those that are left from `position` on.
    fn all_passes(
        &mut self,
        meter: &mut Meter<'_>,
        mut output: Option<OutputTable>,
        mut position: Option<Position>,
    ) -> Result<(), DataError> {
        let last = self.plan.table.last_pass;
        for pass in position.map_or(0, |position| position.pass)..last {
            self.pass(pass, meter, None, position.take())?;
        }
        if let (Some(output), None) = (&mut output, position) {
            output.header(&self.plan.table.names())?;
        }
        self.pass(last, meter, output.as_mut(), position)?;
        match output {
            Some(output) => output.publish(self.ctx),
            None => Ok(self.ctx.check_cancelled()?),
        }
    }

    /// Reads the source once, or on from `position`, and sends every row through the operations.
    fn pass(
        &mut self,
        pass: usize,
        meter: &mut Meter<'_>,
        mut output: Option<&mut OutputTable>,
        position: Option<Position>,
    ) -> Result<(), DataError> {
        let needed = self.plan.needed_in(pass);
        let mut row = Row::default();
        let mut reader = match position {
            Some(position) => {
                meter.resume_pass(position, self.activity(needed))?;
                self.source.read_on(position.offset, position.line)?
            }
            None => {
                meter.begin_pass(pass, self.activity(needed))?;
                self.plan.begin_pass(pass);
                let mut reader = self.source.read()?;
                reader.read(&mut row)?;
                reader
            }
        };
        // Only validating goes on after a record with too few or too many cells.
        let strict = self
            .request
            .operations
            .iter()
            .any(|operation| operation.0.writes());
        while reader.read(&mut row)? {
            if strict && row.len() != self.columns {
                return Err(self.wrong_cell_count(&row));
            }
            if self.plan.keeps(&mut row, needed)?
                && let Some(output) = &mut output
            {
                output.row(&row)?;
            }
            if meter.row(reader.bytes_read()) {
                self.look(
                    meter,
                    reader.bytes_read(),
                    reader.line(),
                    output.as_deref_mut(),
                )?;
            }
        }
        self.source.check_unchanged()?;
        // The others saw no row, and must not take that for all there are.
        self.plan.operations[..needed]
            .iter_mut()
            .for_each(|operation| operation.end_pass());
        meter.end_pass();
        Ok(())
    }

    /// Between two rows: tells how far the run is, saves that when it is time to, and stops when it shall.
    #[cold]
    fn look(
        &mut self,
        meter: &mut Meter<'_>,
        offset: u64,
        line: u64,
        output: Option<&mut OutputTable>,
    ) -> Result<(), DataError> {
        meter.look(offset, || self.plan.errors());
        self.saver
            .save(&self.plan, meter.position(offset, line), output)?;
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

    /// `Cleaning, transforming`: what the first `needed` operations do.
    fn activity(&self, needed: usize) -> String {
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

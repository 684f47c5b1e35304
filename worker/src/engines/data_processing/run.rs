//! One run: opens the files, plans, reads the source as often as the plan says, publishes the output.

use std::path::Path;
use std::time::Instant;

use super::error::DataError;
use super::meter::Meter;
use super::operation::Plan;
use super::output::OutputTable;
use super::row::Row;
use super::source::Source;
use super::table::Table;
use super::{DataProcessingOutput, DataProcessingRequest};
use crate::Context;

/// Does what `request` asks for.
pub(super) fn process(ctx: &Context, request: &DataProcessingRequest) -> Result<DataProcessingOutput, DataError> {
    let started = Instant::now();
    if request.operations.is_empty() {
        return Err(DataError::Request("operations is empty: name at least one of clean, transform, validate".into()));
    }
    let source = Source::open(&ctx.data_dir().resolve(&request.source_file)?, &request.source_file)?;
    let header = read_header(&source)?;
    let plan = Plan::new(&request.operations, source.name(), Table::new(source.name(), &header)?)?;
    let output = create_output(ctx, request, &source)?;
    let output_file = output.as_ref().map(|(_, name)| name.clone());
    let mut run = Run { ctx, request, source: &source, columns: header.len(), plan };
    let mut meter = Meter::new(ctx, run.plan.table.last_pass + 1, source.len(), request.estimated_rows);
    run.all_passes(&mut meter, output.map(|(table, _)| table))?;
    meter.finish(run.plan.errors());
    Ok(DataProcessingOutput {
        rows_processed: meter.rows_processed(),
        output_file,
        duration_seconds: started.elapsed().as_secs_f64(),
        operations: run.plan.operations.into_iter().map(|operation| operation.result()).collect(),
    })
}

fn read_header(source: &Source) -> Result<Row, DataError> {
    let mut header = Row::default();
    match source.read()?.read(&mut header)? {
        true => Ok(header),
        false => Err(DataError::Empty { file: source.name().to_owned() }),
    }
}

/// The output and its name, if the operations make a table.
fn create_output(
    ctx: &Context,
    request: &DataProcessingRequest,
    source: &Source,
) -> Result<Option<(OutputTable, String)>, DataError> {
    if !request.operations.iter().any(|operation| operation.0.writes()) {
        return Ok(None);
    }
    let name = request.output_file.clone().unwrap_or_else(|| default_output(&request.source_file));
    let path = ctx.data_dir().resolve(&name)?;
    if source.is_at(&path) {
        return Err(DataError::Request(format!("output_file {name:?} is the source file: give another name")));
    }
    if path.is_dir() || path.file_name().is_none() {
        return Err(DataError::Request(format!("output_file {name:?} is a directory: give the name of a file")));
    }
    Ok(Some((OutputTable::create(ctx, path, &name)?, name)))
}

/// `a/b.csv` becomes `a/b.processed.csv`.
fn default_output(source_file: &str) -> String {
    let path = Path::new(source_file);
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}.processed.csv")).to_string_lossy().into_owned()
}

struct Run<'a> {
    ctx: &'a Context,
    request: &'a DataProcessingRequest,
    source: &'a Source,
    columns: usize,
    plan: Plan,
}

impl Run<'_> {
    fn all_passes(&mut self, meter: &mut Meter<'_>, mut output: Option<OutputTable>) -> Result<(), DataError> {
        let last = self.plan.table.last_pass;
        for pass in 0..last {
            self.pass(pass, meter, None)?;
        }
        if let Some(output) = &mut output {
            output.header(&self.plan.table.names())?;
        }
        self.pass(last, meter, output.as_mut())?;
        match output {
            Some(output) => output.publish(self.ctx),
            None => Ok(self.ctx.check_cancelled()?),
        }
    }

    /// Reads the source once, and sends every row through the operations.
    fn pass(
        &mut self,
        pass: usize,
        meter: &mut Meter<'_>,
        mut output: Option<&mut OutputTable>,
    ) -> Result<(), DataError> {
        let needed = self.plan.needed_in(pass);
        meter.begin_pass(pass, self.activity(needed))?;
        self.plan.begin_pass(pass);
        // Only validating goes on after a record with too few or too many cells.
        let strict = self.request.operations.iter().any(|operation| operation.0.writes());
        let (mut reader, mut row) = (self.source.read()?, Row::default());
        reader.read(&mut row)?;
        while reader.read(&mut row)? {
            meter.row(reader.bytes_read(), || self.plan.errors())?;
            if strict && row.len() != self.columns {
                return Err(self.wrong_cell_count(&row));
            }
            if self.plan.keeps(&mut row, needed)?
                && let Some(output) = &mut output
            {
                output.row(&row)?;
            }
        }
        self.source.check_unchanged()?;
        self.plan.operations.iter_mut().for_each(|operation| operation.end_pass());
        meter.end_pass();
        Ok(())
    }

    fn wrong_cell_count(&self, row: &Row) -> DataError {
        let file = self.source.name().to_owned();
        DataError::CellCount { file, line: row.line, expected: self.columns, found: row.len() }
    }

    /// `Cleaning, transforming`: what the first `needed` operations do.
    fn activity(&self, needed: usize) -> String {
        let mut names: Vec<&str> = Vec::new();
        for operation in &self.request.operations[..needed] {
            if !names.contains(&operation.0.activity()) {
                names.push(operation.0.activity());
            }
        }
        let (first, rest) = names.split_first().map_or(("", &[][..]), |(first, rest)| (*first, rest));
        rest.iter().fold(first.to_owned(), |text, name| text + ", " + &name.to_lowercase())
    }
}

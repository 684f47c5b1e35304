//! The operation `transform`. Its rules are in `docs/engines/data_processing.md`, "transform".

mod compute;
mod params;
mod sort;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::compute::{ComputedColumn, Formula, Range};
pub use self::params::{
    Comparison, Computation, FilterValue, Keep, TransformParams, TransformStep,
};
use self::sort::{SortColumn, Sorter};
use super::duplicates::{FoundDuplicates, Key, LastRows};
use super::error::DataError;
use super::numbers::NumberFormat;
use super::operation::{Operation, check_decimals};
use super::row::Row;
use super::state;
use super::statistics::Moments;
use super::table::{Column, Table};
use super::text::Places;

/// The result of `transform`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TransformResult {
    /// Rows before the operation.
    pub rows_in: u64,
    /// Rows after the operation.
    pub rows_out: u64,
    /// The columns after the operation.
    pub columns: Vec<String>,
    /// The statistics used for computed columns, by the name of the column.
    pub stats: BTreeMap<String, ColumnStats>,
}

/// The statistics used for a computed column. Null where undefined.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum ColumnStats {
    /// For `zscore`.
    Moments {
        /// The mean.
        mean: Option<f64>,
        /// The population standard deviation.
        std: Option<f64>,
    },
    /// For `minmax`.
    Range {
        /// The least number.
        min: Option<f64>,
        /// The greatest number.
        max: Option<f64>,
    },
}

/// The planned operation.
pub(super) struct Transform {
    steps: Vec<PlannedStep>,
    /// One for each step `sort`. Not a part of the state: a run that sorts saves no checkpoints.
    sorters: Vec<Sorter>,
    places: Places,
    pass: usize,
    scratch: Vec<u8>,
    columns: Vec<String>,
    state: TransformState,
}

/// The state: values learnt from the table, and counters.
#[derive(Default, Serialize, Deserialize)]
struct TransformState {
    rows_in: u64,
    rows_out: u64,
    /// One for each computed column.
    formulas: Vec<Formula>,
    /// One for each step `dedupe`.
    dedupes: Vec<Dedupe>,
}

/// What a step `dedupe` has learnt.
#[derive(Serialize, Deserialize)]
enum Dedupe {
    First(FoundDuplicates),
    Last(LastRows),
}

/// A step with its columns looked up. Renaming has no step: it only changes the header.
enum PlannedStep {
    Select(Vec<usize>),
    Filter {
        index: usize,
        numbers: NumberFormat,
        cmp: Comparison,
        value: FilterValue,
        ready_in: usize,
    },
    Compute(ComputedColumn),
    /// Holds rows back in a sorter.
    Sort {
        sorter: usize,
        ready_in: usize,
    },
    Dedupe {
        key: Key,
        /// The index in the state.
        dedupe: usize,
        ready_in: usize,
    },
}

/// What [`plan_step`] makes besides the steps.
#[derive(Default)]
struct Parts {
    formulas: Vec<Formula>,
    sorters: Vec<Sorter>,
    dedupes: Vec<Dedupe>,
}

impl Transform {
    /// Plans the operation and changes `table` to the table after it.
    pub(super) fn plan(params: &TransformParams, table: &mut Table) -> Result<Self, DataError> {
        let places = check_decimals(params.decimals, table)?;
        let (mut steps, mut parts) = (Vec::with_capacity(params.steps.len()), Parts::default());

        for step in &params.steps {
            steps.extend(plan_step(step, table, &mut parts)?);
        }

        let state = TransformState {
            formulas: parts.formulas,
            dedupes: parts.dedupes,
            ..TransformState::default()
        };

        Ok(Self {
            steps,
            sorters: parts.sorters,
            places,
            pass: 0,
            scratch: Vec::new(),
            columns: table.names(),
            state,
        })
    }

    /// The counts and statistics after the last pass.
    pub(super) fn into_result(self) -> TransformResult {
        let TransformState {
            rows_in,
            rows_out,
            formulas,
            dedupes: _,
        } = self.state;
        let mut stats = BTreeMap::new();

        for step in &self.steps {
            if let PlannedStep::Compute(column) = step
                && let Some(figures) = formulas[column.formula].stats()
            {
                stats.insert(column.name.clone(), figures);
            }
        }

        TransformResult {
            rows_in,
            rows_out,
            columns: self.columns,
            stats,
        }
    }
}

/// Plans a step and changes `table` to the table after it. What the step needs besides is appended
/// to `parts`.
fn plan_step(
    step: &TransformStep,
    table: &mut Table,
    parts: &mut Parts,
) -> Result<Option<PlannedStep>, DataError> {
    let formulas = &mut parts.formulas;
    let mut compute = |params: &Computation, op, formula: Formula, table: &mut Table| {
        let column = plan_compute(params, op, formula.learns(), formulas.len(), table)?;
        formulas.push(formula);
        Ok::<_, DataError>(column)
    };
    let planned = match step {
        TransformStep::Select { columns } => plan_select(columns, table)?,
        TransformStep::Rename { columns } => {
            rename(columns, table)?;
            return Ok(None);
        }
        TransformStep::Filter { column, cmp, value } => {
            let index = table.index(column)?;
            let ready_in = table.learnable_in(index);
            table.rows_known_in = ready_in;
            PlannedStep::Filter {
                index,
                numbers: table.columns[index].numbers,
                cmp: *cmp,
                value: value.clone(),
                ready_in,
            }
        }
        TransformStep::Sort {
            columns,
            descending,
        } => plan_sort(columns, *descending, table, &mut parts.sorters)?,
        TransformStep::Dedupe { columns, keep } => {
            plan_dedupe(columns.as_deref(), *keep, table, &mut parts.dedupes)?
        }
        TransformStep::Zscore(params) => {
            compute(params, "zscore", Formula::Zscore(Moments::default()), table)?
        }
        TransformStep::Minmax(params) => {
            compute(params, "minmax", Formula::Minmax(Range::NONE), table)?
        }
        TransformStep::LogReturn(params) => {
            compute(params, "log_return", Formula::LogReturn(None), table)?
        }
    };

    Ok(Some(planned))
}

fn plan_select(names: &[String], table: &mut Table) -> Result<PlannedStep, DataError> {
    if names.is_empty() {
        return Err(table.request_error("select names no column"));
    }

    let order: Vec<usize> = names
        .iter()
        .map(|name| table.index(name))
        .collect::<Result<_, _>>()?;

    table.columns = order
        .iter()
        .map(|&index| table.columns[index].clone())
        .collect();
    table.check_unique_names()?;

    Ok(PlannedStep::Select(order))
}

/// Plans a step `sort`. The rows behind it are final in the pass in which the cells to sort by are.
fn plan_sort(
    names: &[String],
    descending: bool,
    table: &mut Table,
    sorters: &mut Vec<Sorter>,
) -> Result<PlannedStep, DataError> {
    if names.is_empty() {
        return Err(table.request_error("sort names no column"));
    }

    let indexes = table.indexes(names)?;
    let ready_in = table.learnable_in_all(&indexes);
    let columns = indexes
        .into_iter()
        .map(|index| SortColumn {
            index,
            numbers: table.columns[index].numbers,
        })
        .collect();

    table.rows_known_in = ready_in;
    table.require_pass(ready_in);
    sorters.push(Sorter::new(columns, descending));

    Ok(PlannedStep::Sort {
        sorter: sorters.len() - 1,
        ready_in,
    })
}

/// Plans a step `dedupe`. Which row is the last of equal ones is known one pass later.
fn plan_dedupe(
    names: Option<&[String]>,
    keep: Keep,
    table: &mut Table,
    dedupes: &mut Vec<Dedupe>,
) -> Result<PlannedStep, DataError> {
    let (key, ready_in) = match names {
        None => (Key::All, table.all_known_in()),
        Some([]) => return Err(table.request_error("dedupe names no column")),
        Some(names) => {
            let indexes = table.indexes(names)?;
            let ready_in = table.learnable_in_all(&indexes);
            (Key::Columns(indexes), ready_in)
        }
    };

    let (dedupe, known_in) = match keep {
        Keep::First => (Dedupe::First(FoundDuplicates::default()), ready_in),
        Keep::Last => (Dedupe::Last(LastRows::default()), ready_in + 1),
    };

    table.rows_known_in = known_in;
    table.require_pass(known_in);
    dedupes.push(dedupe);

    Ok(PlannedStep::Dedupe {
        key,
        dedupe: dedupes.len() - 1,
        ready_in,
    })
}

impl Dedupe {
    fn begin_pass(&mut self) {
        match self {
            Self::First(found) => found.begin_pass(),
            Self::Last(rows) => rows.begin_pass(),
        }
    }

    /// Whether the row stays. Rows are final from pass `ready_in` on.
    fn keeps(&mut self, key: &Key, row: &Row, pass: usize, ready_in: usize) -> bool {
        match self {
            _ if pass < ready_in => false,
            Self::First(found) => !found.is_duplicate(key, row, &[], true),
            Self::Last(rows) if pass == ready_in => {
                rows.learn(key, row);
                false
            }
            Self::Last(rows) => rows.keeps_next(),
        }
    }

    /// Ends a pass in which the step saw all rows.
    fn end_pass(&mut self, pass: usize, ready_in: usize) {
        match self {
            Self::First(found) if pass >= ready_in => found.finish(),
            Self::Last(rows) if pass == ready_in => rows.finish(),
            _ => {}
        }
    }
}

/// Renames columns, all at once, so that two columns can swap their names.
fn rename(names: &BTreeMap<String, String>, table: &mut Table) -> Result<(), DataError> {
    let renamed: Vec<(usize, &String)> = names
        .iter()
        .map(|(old, new)| Ok((table.index(old)?, new)))
        .collect::<Result<_, DataError>>()?;
    for (index, name) in renamed {
        table.columns[index].name.clone_from(name);
    }
    table.check_unique_names()
}

fn plan_compute(
    params: &Computation,
    op: &str,
    learns: bool,
    formula: usize,
    table: &mut Table,
) -> Result<PlannedStep, DataError> {
    let input = table.index(&params.column)?;
    let numbers = table.columns[input].numbers;
    let ready_in = table.learnable_in(input);
    let known_in = ready_in + usize::from(learns);

    table.require_pass(known_in);

    let name = params
        .name
        .clone()
        .unwrap_or_else(|| format!("{}_{op}", params.column));
    let output = match table.columns.iter().position(|column| column.name == name) {
        Some(index) => index,
        None => {
            table.columns.push(Column {
                name: name.clone(),
                known_in,
                numbers: NumberFormat::default(),
            });
            table.columns.len() - 1
        }
    };

    table.columns[output].known_in = known_in;
    table.columns[output].numbers = NumberFormat::default();

    Ok(PlannedStep::Compute(ComputedColumn {
        name,
        input,
        numbers,
        output,
        ready_in,
        learns,
        formula,
    }))
}

fn passes_filter(cell: &[u8], numbers: NumberFormat, cmp: Comparison, value: &FilterValue) -> bool {
    match value {
        FilterValue::Text(text) => cmp.holds(cell.cmp(text.as_bytes())),
        FilterValue::Number(limit) => numbers
            .number(cell)
            .and_then(|x| x.partial_cmp(limit))
            .is_some_and(|ordering| cmp.holds(ordering)),
    }
}

impl Transform {
    /// Sends a row through the steps from `first` on. Returns false when one of them drops it or
    /// holds it back.
    fn run_steps(&mut self, row: &mut Row, first: usize) -> Result<bool, DataError> {
        for step in &self.steps[first..] {
            match step {
                PlannedStep::Select(order) => row.select(order),
                PlannedStep::Filter {
                    index,
                    numbers,
                    cmp,
                    value,
                    ready_in,
                } => {
                    if self.pass < *ready_in
                        || !passes_filter(row.cell(*index), *numbers, *cmp, value)
                    {
                        return Ok(false);
                    }
                }
                PlannedStep::Compute(column) => {
                    let formula = &mut self.state.formulas[column.formula];
                    column.apply(row, self.pass, formula, self.places, &mut self.scratch);
                }
                PlannedStep::Sort { sorter, ready_in } => {
                    if self.pass >= *ready_in {
                        self.sorters[*sorter].hold(row)?;
                    }
                    return Ok(false);
                }
                PlannedStep::Dedupe {
                    key,
                    dedupe,
                    ready_in,
                } => {
                    let dedupe = &mut self.state.dedupes[*dedupe];
                    if !dedupe.keeps(key, row, self.pass, *ready_in) {
                        return Ok(false);
                    }
                }
            }
        }

        self.state.rows_out += 1;

        Ok(true)
    }

    /// The step behind each sorter, in order.
    fn behind_sorters(&self) -> Vec<usize> {
        let is_sort = |step: &PlannedStep| matches!(step, PlannedStep::Sort { .. });
        let sorts = self.steps.iter().enumerate();
        sorts
            .filter(|(_, step)| is_sort(step))
            .map(|(at, _)| at + 1)
            .collect()
    }
}

impl Operation for Transform {
    fn begin_pass(&mut self, pass: usize, _last: bool) {
        self.pass = pass;
        (self.state.rows_in, self.state.rows_out) = (0, 0);
        self.state.formulas.iter_mut().for_each(Formula::begin_pass);
        self.state.dedupes.iter_mut().for_each(Dedupe::begin_pass);
        self.sorters.iter_mut().for_each(Sorter::begin_pass);
    }

    fn process_row(&mut self, row: &mut Row) -> Result<bool, DataError> {
        self.state.rows_in += 1;
        self.run_steps(row, 0)
    }

    fn next_held(&mut self, row: &mut Row) -> Result<bool, DataError> {
        if self.sorters.is_empty() {
            return Ok(false);
        }

        // A later sorter has all its rows when the one before has given on all of its own.
        for (sorter, behind) in self.behind_sorters().into_iter().enumerate() {
            while self.sorters[sorter].next(row) {
                if self.run_steps(row, behind)? {
                    return Ok(true);
                }
            }
        }

        Ok(false)
    }

    fn holds_rows(&self) -> bool {
        !self.sorters.is_empty()
    }

    fn end_pass(&mut self) {
        for step in &self.steps {
            if let PlannedStep::Dedupe {
                dedupe, ready_in, ..
            } = step
            {
                self.state.dedupes[*dedupe].end_pass(self.pass, *ready_in);
            }
        }
    }

    fn learns_in(&self, pass: usize) -> bool {
        self.steps.iter().any(|step| match step {
            PlannedStep::Compute(column) => column.learns_in(pass),
            PlannedStep::Dedupe {
                dedupe, ready_in, ..
            } => pass == *ready_in && matches!(self.state.dedupes[*dedupe], Dedupe::Last(_)),
            _ => false,
        })
    }

    fn errors(&self) -> u64 {
        0
    }

    fn save(&self, output: &mut dyn Write) -> io::Result<()> {
        state::write(&self.state, output)
    }

    fn restore(&mut self, input: &mut dyn Read) -> io::Result<()> {
        let planned = (self.state.formulas.len(), self.state.dedupes.len());
        self.state = state::read(input)?;
        state::check_len(self.state.formulas.len(), planned.0)?;
        state::check_len(self.state.dedupes.len(), planned.1)?;
        state::check_counts(&[self.state.rows_in, self.state.rows_out])
    }
}

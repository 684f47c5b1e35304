//! The operation `transform`. Its rules are in `docs/engines/data_processing.md`, "transform".

mod compute;
mod params;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::compute::{ComputedColumn, Formula, Range};
pub use self::params::{Comparison, Computation, FilterValue, TransformParams, TransformStep};
use super::error::DataError;
use super::operation::{Operation, check_decimals};
use super::row::Row;
use super::state;
use super::statistics::Moments;
use super::table::{Column, Table};
use super::text::number;

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
    decimals: usize,
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
}

/// A step with its columns looked up. Renaming has no step: it only changes the header.
enum PlannedStep {
    Select(Vec<usize>),
    Filter {
        index: usize,
        cmp: Comparison,
        value: FilterValue,
        ready_in: usize,
    },
    Compute(ComputedColumn),
}

impl Transform {
    /// Plans the operation and changes `table` to the table after it.
    pub(super) fn plan(params: &TransformParams, table: &mut Table) -> Result<Self, DataError> {
        let decimals = check_decimals(params.decimals, table)?;
        let (mut steps, mut formulas) = (Vec::with_capacity(params.steps.len()), Vec::new());

        for step in &params.steps {
            steps.extend(plan_step(step, table, &mut formulas)?);
        }

        let state = TransformState {
            formulas,
            ..TransformState::default()
        };

        Ok(Self {
            steps,
            decimals,
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

/// Plans a step and changes `table` to the table after it. The formula of a computed column is
/// appended to `formulas`.
fn plan_step(
    step: &TransformStep,
    table: &mut Table,
    formulas: &mut Vec<Formula>,
) -> Result<Option<PlannedStep>, DataError> {
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
                cmp: *cmp,
                value: value.clone(),
                ready_in,
            }
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
            });
            table.columns.len() - 1
        }
    };

    table.columns[output].known_in = known_in;

    Ok(PlannedStep::Compute(ComputedColumn {
        name,
        input,
        output,
        ready_in,
        learns,
        formula,
    }))
}

fn passes_filter(cell: &[u8], cmp: Comparison, value: &FilterValue) -> bool {
    match value {
        FilterValue::Text(text) => cmp.holds(cell.cmp(text.as_bytes())),
        FilterValue::Number(limit) => number(cell)
            .and_then(|x| x.partial_cmp(limit))
            .is_some_and(|ordering| cmp.holds(ordering)),
    }
}

impl Operation for Transform {
    fn begin_pass(&mut self, pass: usize, _last: bool) {
        self.pass = pass;
        (self.state.rows_in, self.state.rows_out) = (0, 0);
        self.state.formulas.iter_mut().for_each(Formula::begin_pass);
    }

    fn process_row(&mut self, row: &mut Row) -> Result<bool, DataError> {
        self.state.rows_in += 1;

        for step in &self.steps {
            match step {
                PlannedStep::Select(order) => row.select(order),
                PlannedStep::Filter {
                    index,
                    cmp,
                    value,
                    ready_in,
                } => {
                    if self.pass < *ready_in || !passes_filter(row.cell(*index), *cmp, value) {
                        return Ok(false);
                    }
                }
                PlannedStep::Compute(column) => {
                    let formula = &mut self.state.formulas[column.formula];
                    column.apply(row, self.pass, formula, self.decimals, &mut self.scratch);
                }
            }
        }

        self.state.rows_out += 1;

        Ok(true)
    }

    fn end_pass(&mut self) {}

    fn learns_in(&self, pass: usize) -> bool {
        self.steps
            .iter()
            .any(|step| matches!(step, PlannedStep::Compute(column) if column.learns_in(pass)))
    }

    fn errors(&self) -> u64 {
        0
    }

    fn save(&self, output: &mut dyn Write) -> io::Result<()> {
        state::write(&self.state, output)
    }

    fn restore(&mut self, input: &mut dyn Read) -> io::Result<()> {
        let planned = self.state.formulas.len();
        self.state = state::read(input)?;
        state::check_len(self.state.formulas.len(), planned)?;
        state::check_counts(&self.state)
    }
}

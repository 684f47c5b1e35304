//! The operation `validate`. Its rules are in `docs/engines/data_processing.md`, "validate".

mod params;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::params::{Rule, ValidateParams};
use self::rules::{NO_COLUMN, PlannedRule, RuleState};
use super::error::{DataError, shown};
use super::operation::Operation;
use super::row::Row;
use super::state;
use super::table::Table;
use crate::warnings::Warnings;

/// The result of `validate`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ValidateResult {
    /// True when there is no error.
    pub valid: bool,
    /// Rows checked.
    pub rows_total: u64,
    /// Rows without an error.
    pub rows_valid: u64,
    /// Rows with at least one error.
    pub rows_invalid: u64,
    /// Number of errors.
    pub errors_total: u64,
    /// Number of errors by `column:rule` (`*` for rules about rows). Rules without an error are
    /// left out.
    pub errors_by_rule: BTreeMap<String, u64>,
    /// The first errors, ordered by row and then by rule.
    pub errors: Vec<RuleError>,
    /// Number of cells (of rows for `ohlc`) that a rule could not compare, by `column:rule`: those
    /// that are no numbers or times. Rules that compared all are left out, and so is an empty map.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub not_compared: BTreeMap<String, u64>,
}

/// One violation of a rule.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuleError {
    /// The row, 1 being the first below the header.
    pub row: u64,
    /// The column, or `*` for a rule about rows.
    pub column: String,
    /// The rule's name.
    pub rule: String,
    /// The cell that violates the rule, shortened when it is long. The number of cells for
    /// `field_count`; null for other rules about rows.
    pub value: Option<String>,
}

/// The planned operation.
pub(super) struct Validate {
    rules: Vec<PlannedRule>,
    null_values: Vec<Vec<u8>>,
    max_errors: usize,
    columns: usize,
    last_pass: bool,
    state: ValidateState,
}

/// The state: counts and errors found so far.
#[derive(Default, Serialize, Deserialize)]
struct ValidateState {
    /// One for each rule.
    rules: Vec<RuleState>,
    field_count_errors: u64,
    rows_total: u64,
    rows_invalid: u64,
    errors_total: u64,
    errors: Vec<RuleError>,
}

impl ValidateState {
    /// Fails when the counts cannot be those of a run: a state file may have been written by others.
    fn check(&self) -> io::Result<()> {
        let of_rules: Vec<[u64; 2]> = self
            .rules
            .iter()
            .map(|rule| [rule.count, rule.not_compared])
            .collect();
        state::check_counts(&of_rules)?;
        state::check_counts(&[self.rows_total, self.errors_total, self.field_count_errors])?;
        if self.rows_invalid > self.rows_total {
            return Err(io::Error::other(
                "the state has more invalid rows than rows",
            ));
        }
        Ok(())
    }
}

impl Validate {
    /// Plans the operation. The columns of `table` stay unchanged.
    pub(super) fn plan(params: &ValidateParams, table: &mut Table) -> Result<Self, DataError> {
        table.require_pass(table.all_known_in());

        let rules: Vec<_> = params
            .rules
            .iter()
            .map(|rule| PlannedRule::new(rule, table))
            .collect::<Result<_, _>>()?;
        let states = rules.iter().map(|_| RuleState::default()).collect();

        Ok(Self {
            rules,
            null_values: params
                .null_values
                .iter()
                .map(|value| value.clone().into_bytes())
                .collect(),
            max_errors: params.max_errors as usize,
            columns: table.columns.len(),
            last_pass: false,
            state: ValidateState {
                rules: states,
                ..ValidateState::default()
            },
        })
    }

    /// The counts and errors after the last pass.
    pub(super) fn into_result(self) -> ValidateResult {
        let not_compared = self.not_compared();
        let state = self.state;
        let mut errors_by_rule = BTreeMap::new();
        let counts = self.rules.iter().zip(&state.rules);
        let by_rule =
            counts.map(|(rule, state)| (format!("{}:{}", rule.column, rule.name), state.count));
        let field_count = (format!("{NO_COLUMN}:field_count"), state.field_count_errors);

        for (key, count) in by_rule.chain([field_count]).filter(|(_, count)| *count > 0) {
            *errors_by_rule.entry(key).or_default() += count;
        }

        ValidateResult {
            valid: state.errors_total == 0,
            rows_total: state.rows_total,
            rows_valid: state.rows_total - state.rows_invalid,
            rows_invalid: state.rows_invalid,
            errors_total: state.errors_total,
            errors_by_rule,
            errors: state.errors,
            not_compared,
        }
    }

    /// Number of cells that each rule could not compare, by `column:rule`.
    fn not_compared(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for (rule, state) in self.rules.iter().zip(&self.state.rules) {
            if state.not_compared > 0 {
                *counts
                    .entry(format!("{}:{}", rule.column, rule.name))
                    .or_default() += state.not_compared;
            }
        }
        counts
    }

    /// Checks one row. Returns the number of errors.
    fn check(&mut self, row: &Row) -> u64 {
        let (state, room) = (&mut self.state, |errors: &Vec<RuleError>| {
            errors.len() < self.max_errors
        });
        let error = |column: &str, rule: &str, value| {
            let (column, rule) = (column.to_owned(), rule.to_owned());
            RuleError {
                row: state.rows_total,
                column,
                rule,
                value,
            }
        };

        if row.len() != self.columns {
            state.field_count_errors += 1;
            if room(&state.errors) {
                state
                    .errors
                    .push(error(NO_COLUMN, "field_count", Some(row.len().to_string())));
            }
            return 1;
        }

        let mut found = 0;
        for (rule, memory) in self.rules.iter().zip(&mut state.rules) {
            if !rule.holds(row, &self.null_values, memory) {
                memory.count += 1;
                found += 1;
                if room(&state.errors) {
                    state
                        .errors
                        .push(error(&rule.column, rule.name, rule.value(row).map(shown)));
                }
            }
        }

        found
    }
}

impl Operation for Validate {
    fn begin_pass(&mut self, _pass: usize, last: bool) {
        self.last_pass = last;
    }

    fn process_row(&mut self, row: &mut Row) -> Result<bool, DataError> {
        // Earlier passes only serve operations that learn.
        if self.last_pass {
            self.state.rows_total += 1;
            let found = self.check(row);
            self.state.errors_total += found;
            self.state.rows_invalid += u64::from(found > 0);
        }
        Ok(true)
    }

    fn end_pass(&mut self) {}

    fn learns_in(&self, _pass: usize) -> bool {
        false
    }

    fn errors(&self) -> u64 {
        self.state.errors_total
    }

    fn warn(&self, place: &str, warnings: &mut Warnings) {
        for (rule, count) in self.not_compared() {
            warnings.add(format!(
                "{place}: rule {rule} could not compare {count} of {} rows: the cells are no numbers or times",
                self.state.rows_total
            ));
        }
    }

    fn save(&self, output: &mut dyn Write) -> io::Result<()> {
        state::write(&self.state, output)
    }

    fn restore(&mut self, input: &mut dyn Read) -> io::Result<()> {
        self.state = state::read(input)?;
        state::check_len(self.state.rules.len(), self.rules.len())?;
        self.state.check()
    }
}

//! `validate`: the rules are in `docs/engines/data_processing.md`, "validate".

mod params;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

pub use self::params::{Rule, ValidateParams};
use self::rules::{NO_COLUMN, PlannedRule};
use super::error::{DataError, shown};
use super::operation::{Operation, OperationResult};
use super::row::Row;
use super::table::Table;

/// What validating found.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct ValidateResult {
    /// Whether there was no error at all.
    pub valid: bool,
    /// Rows looked at.
    pub rows_total: u64,
    /// Rows without an error.
    pub rows_valid: u64,
    /// Rows with at least one.
    pub rows_invalid: u64,
    /// All errors.
    pub errors_total: u64,
    /// How many of each kind, by `column:rule` (`*` for rules about rows); kinds that did not occur are left out.
    pub errors_by_rule: BTreeMap<String, u64>,
    /// The first errors, by row and then in the order of the rules.
    pub errors: Vec<RuleError>,
}

/// A rule broken by a row.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RuleError {
    /// The row, 1 being the first below the header.
    pub row: u64,
    /// The column, or `*` for a rule about rows.
    pub column: String,
    /// The rule's name.
    pub rule: String,
    /// The cell that broke it, shortened when it is long; of `field_count` the number of cells; null for other rules about rows.
    pub value: Option<String>,
}

/// The operation, ready to run.
pub(super) struct Validate {
    rules: Vec<PlannedRule>,
    null_values: Vec<Vec<u8>>,
    max_errors: usize,
    columns: usize,
    field_count_errors: u64,
    last_pass: bool,
    result: ValidateResult,
}

impl Validate {
    /// Plans the operation on `table`, which it leaves as it is.
    pub(super) fn plan(params: &ValidateParams, table: &mut Table) -> Result<Self, DataError> {
        table.require_pass(table.all_known_in());
        Ok(Self {
            rules: params.rules.iter().map(|rule| PlannedRule::new(rule, table)).collect::<Result<_, _>>()?,
            null_values: params.null_values.iter().map(|value| value.clone().into_bytes()).collect(),
            max_errors: params.max_errors as usize,
            columns: table.columns.len(),
            field_count_errors: 0,
            last_pass: false,
            result: ValidateResult::default(),
        })
    }

    /// The errors of one row.
    fn check(&mut self, row: &Row) -> u64 {
        if row.len() != self.columns {
            self.field_count_errors += 1;
            self.list(NO_COLUMN, "field_count", Some(row.len().to_string()));
            return 1;
        }
        let mut found = 0;
        // Taken out for the loop, which also writes to the result.
        let mut rules = std::mem::take(&mut self.rules);
        for rule in &mut rules {
            if !rule.holds(row, &self.null_values) {
                rule.count += 1;
                found += 1;
                if self.result.errors.len() < self.max_errors {
                    self.list(&rule.column, rule.name, rule.value(row).map(shown));
                }
            }
        }
        self.rules = rules;
        found
    }

    fn list(&mut self, column: &str, rule: &str, value: Option<String>) {
        if self.result.errors.len() < self.max_errors {
            let row = self.result.rows_total;
            self.result.errors.push(RuleError { row, column: column.to_owned(), rule: rule.to_owned(), value });
        }
    }
}

impl Operation for Validate {
    fn begin_pass(&mut self, _pass: usize, last: bool) {
        self.last_pass = last;
    }

    fn row(&mut self, row: &mut Row) -> Result<bool, DataError> {
        // Earlier passes are for operations that learn.
        if self.last_pass {
            self.result.rows_total += 1;
            let found = self.check(row);
            self.result.errors_total += found;
            self.result.rows_invalid += u64::from(found > 0);
        }
        Ok(true)
    }

    fn end_pass(&mut self) {}

    fn learns_in(&self, _pass: usize) -> bool {
        false
    }

    fn errors(&self) -> u64 {
        self.result.errors_total
    }

    fn result(self: Box<Self>) -> OperationResult {
        let mut result = self.result;
        result.valid = result.errors_total == 0;
        result.rows_valid = result.rows_total - result.rows_invalid;
        let by_rule = self.rules.iter().map(|rule| (format!("{}:{}", rule.column, rule.name), rule.count));
        let field_count = (format!("{NO_COLUMN}:field_count"), self.field_count_errors);
        for (key, count) in by_rule.chain([field_count]).filter(|(_, count)| *count > 0) {
            *result.errors_by_rule.entry(key).or_default() += count;
        }
        OperationResult::Validate(result)
    }
}

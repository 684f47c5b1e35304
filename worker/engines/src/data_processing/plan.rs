//! The operations of a request: their parameters, the plan made of them, and their results.
//!
//! This module knows all operations; the operations know only the trait in `operation`.

use std::io::{self, Read, Write};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::clean::{Clean, CleanParams, CleanResult};
use super::error::DataError;
use super::name_or_object::{NameOrObject, TaggedEnum};
use super::operation::Operation;
use super::row::Row;
use super::table::Table;
use super::transform::{Transform, TransformParams, TransformResult};
use super::validate::{Validate, ValidateParams, ValidateResult};
use crate::warnings::Warnings;

/// One operation and its parameters.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum OperationParams {
    /// Cleans cells, drops rows and fills missing cells.
    Clean(CleanParams),
    /// Selects, renames, filters, computes columns.
    Transform(TransformParams),
    /// Counts violations of rules and changes nothing.
    Validate(ValidateParams),
}

impl TaggedEnum for OperationParams {
    const WHAT: &'static str = "operation";
    const TAG: &'static str = "op";
    const NAMES: &'static [&'static str] = &["clean", "transform", "validate"];
}

/// The result of one operation.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum OperationResult {
    /// The result of `clean`.
    Clean(CleanResult),
    /// The result of `transform`.
    Transform(TransformResult),
    /// The result of `validate`.
    Validate(ValidateResult),
}

/// An operation that can return its result as an [`OperationResult`].
pub(super) trait PlannedOperation: Operation {
    /// The result after the last pass.
    fn into_result(self: Box<Self>) -> OperationResult;
}

impl PlannedOperation for Clean {
    fn into_result(self: Box<Self>) -> OperationResult {
        OperationResult::Clean((*self).into_result())
    }
}

impl PlannedOperation for Transform {
    fn into_result(self: Box<Self>) -> OperationResult {
        OperationResult::Transform((*self).into_result())
    }
}

impl PlannedOperation for Validate {
    fn into_result(self: Box<Self>) -> OperationResult {
        OperationResult::Validate((*self).into_result())
    }
}

impl OperationParams {
    /// The name in requests.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Clean(_) => "clean",
            Self::Transform(_) => "transform",
            Self::Validate(_) => "validate",
        }
    }

    /// The activity that the progress text names.
    pub(super) fn activity(&self) -> &'static str {
        match self {
            Self::Clean(_) => "Cleaning",
            Self::Transform(_) => "Transforming",
            Self::Validate(_) => "Validating",
        }
    }

    /// Whether the operation makes a table.
    pub(super) fn writes(&self) -> bool {
        !matches!(self, Self::Validate(_))
    }
}

/// The planned operations of a request.
pub(super) struct Plan {
    pub(super) operations: Vec<Box<dyn PlannedOperation>>,
    /// The name of each operation in messages.
    places: Vec<String>,
    /// The table after the last operation.
    pub(super) table: Table,
}

impl Plan {
    /// Plans `operations` on `table`, which comes from `file`.
    pub(super) fn new(
        operations: &[NameOrObject<OperationParams>],
        file: &str,
        mut table: Table,
    ) -> Result<Self, DataError> {
        let mut planned: Vec<Box<dyn PlannedOperation>> = Vec::with_capacity(operations.len());
        let mut places = Vec::with_capacity(operations.len());
        for (index, NameOrObject(params)) in operations.iter().enumerate() {
            table.set_place(index, params.name());
            places.push(table.place().to_owned());
            planned.push(match params {
                OperationParams::Clean(params) => Box::new(Clean::plan(params, file, &mut table)?),
                OperationParams::Transform(params) => {
                    Box::new(Transform::plan(params, &mut table)?)
                }
                OperationParams::Validate(params) => Box::new(Validate::plan(params, &mut table)?),
            });
        }

        Ok(Self {
            operations: planned,
            places,
            table,
        })
    }

    /// Number of operations, counted from the first, that must see the rows of `pass`.
    pub(super) fn operations_needed_in(&self, pass: usize) -> usize {
        if pass == self.table.last_pass {
            return self.operations.len();
        }
        self.operations
            .iter()
            .rposition(|operation| operation.learns_in(pass))
            .map_or(0, |last| last + 1)
    }

    /// Sends a row through the first `needed` operations. Returns false when one of them drops it.
    pub(super) fn process_row(&mut self, row: &mut Row, needed: usize) -> Result<bool, DataError> {
        self.process_from(0, row, needed)
    }

    /// At the end of a pass: puts the next row that one of the first `needed` operations has held
    /// back into `row`, as it leaves the last of them. Returns false when there is none.
    pub(super) fn next_held(&mut self, row: &mut Row, needed: usize) -> Result<bool, DataError> {
        // A later operation has all its rows when the one before has given on all of its own.
        for at in 0..needed {
            while self.operations[at].next_held(row)? {
                if self.process_from(at + 1, row, needed)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Whether an operation holds rows back until the end of a pass.
    pub(super) fn holds_rows(&self) -> bool {
        let mut operations = self.operations.iter();
        operations.any(|operation| operation.holds_rows())
    }

    /// Adds what a person should know about the data.
    pub(super) fn warn(&self, warnings: &mut Warnings) {
        for (operation, place) in self.operations.iter().zip(&self.places) {
            operation.warn(place, warnings);
        }
    }

    fn process_from(
        &mut self,
        first: usize,
        row: &mut Row,
        needed: usize,
    ) -> Result<bool, DataError> {
        for operation in &mut self.operations[first..needed] {
            if !operation.process_row(row)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes the state of all operations.
    pub(super) fn save(&self, output: &mut dyn Write) -> io::Result<()> {
        self.operations
            .iter()
            .try_for_each(|operation| operation.save(output))
    }

    /// Begins pass `pass` and restores the state that [`Self::save`] wrote in it.
    pub(super) fn restore(&mut self, pass: usize, input: &mut dyn Read) -> io::Result<()> {
        self.begin_pass(pass);
        self.operations
            .iter_mut()
            .try_for_each(|operation| operation.restore(input))
    }

    /// Begins pass `pass`.
    pub(super) fn begin_pass(&mut self, pass: usize) {
        let last = pass == self.table.last_pass;
        self.operations
            .iter_mut()
            .for_each(|operation| operation.begin_pass(pass, last));
    }

    /// Number of errors found in the data in this pass.
    pub(super) fn errors(&self) -> u64 {
        self.operations
            .iter()
            .map(|operation| operation.errors())
            .sum()
    }
}

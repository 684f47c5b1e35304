//! `data_processing`: cleans, transforms and validates CSV files of any size in bounded memory.
//!
//! The rules are stated in `docs/engines/data_processing.md`. How it works: the operations of a request form a chain that every
//! row of the source goes through (`run`); where one of them needs a figure of a whole column, the source is read again
//! (`table`). Nothing is written but the final table (`output`), and now and then what a later attempt needs to go on
//! (`checkpoint`, `attempt_files`).

mod attempt_files;
mod checkpoint;
mod clean;
mod error;
mod name_or_object;
mod operation;
mod output;
mod plan;
mod progress;
mod reader;
mod row;
mod run;
mod source;
mod state;
mod statistics;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod text_set;
mod transform;
mod validate;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::clean::{CellType, CleanParams, CleanResult, Duplicates, MissingPolicy, OnInvalid};
pub use self::name_or_object::{NameOrObject, TaggedEnum};
pub use self::plan::{OperationParams, OperationResult};
pub use self::transform::{
    ColumnStats, Comparison, Computation, FilterValue, TransformParams, TransformResult,
    TransformStep,
};
pub use self::validate::{Rule, RuleError, ValidateParams, ValidateResult};
use ktrdr_worker::{Context, Engine, OperationError};

/// The engine.
pub struct DataProcessing;

/// What to do with which file. Paths are relative to the data directory.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataProcessingRequest {
    /// The CSV file to read.
    #[schemars(length(min = 1))]
    pub source_file: String,
    /// What to do, in order, each on the table the one before left: a name (`clean`, `transform`, `validate`) or an object with
    /// `op` and parameters.
    #[schemars(length(min = 1))]
    pub operations: Vec<NameOrObject<OperationParams>>,
    /// The CSV file to write; by default `<stem>.processed.csv` beside the source.
    pub output_file: Option<String>,
    /// How many rows the source has, for progress until it is known.
    pub estimated_rows: Option<u64>,
}

/// What was done.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DataProcessingOutput {
    /// Data rows of the source.
    pub rows_processed: u64,
    /// The file written; null when all operations only validate.
    pub output_file: Option<String>,
    /// How long it took.
    pub duration_seconds: f64,
    /// What each operation did.
    pub operations: Vec<OperationResult>,
}

impl Engine for DataProcessing {
    const WORKER_TYPE: &'static str = "data_processing";
    const DOMAIN: &'static str = "data-processing";
    const SHORT: &'static str = "dp";
    const DESCRIPTION: &'static str = "Cleans, transforms and validates CSV files of any size.";
    type Request = DataProcessingRequest;
    type Output = DataProcessingOutput;

    async fn run(
        &self,
        ctx: Context,
        request: Self::Request,
    ) -> Result<Self::Output, OperationError> {
        ctx.blocking(move |ctx| Ok(run::process(ctx, &request)?))
            .await
    }
}

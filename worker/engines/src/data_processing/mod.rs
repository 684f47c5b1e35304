//! The `data_processing` engine: cleans, transforms and validates CSV files of any size in bounded
//! memory.
//!
//! `docs/engines/data_processing.md` states the rules. The parts, from the outside in:
//!
//! - `run` executes one request: it reads the source as often as needed and sends every row through
//!   all operations.
//! - `plan` turns the operations of a request (`clean`, `transform`, `validate`) into one chain.
//!   `operation` is the trait that they implement.
//! - `table` computes which pass over the source can do what; `row`, `text`, `statistics` and
//!   `text_set` are the values that operations work on.
//! - `source` and `reader` read CSV, `output` writes it.
//! - `checkpoint` saves and restores the state of a run (`state`) with the files of
//!   `attempt_files`; `progress` reports how far the run is.
//! - `name_or_object` reads parameters that are a name or an object; `error` has every message.

mod attempt_files;
mod checkpoint;
mod clean;
mod error;
#[cfg(test)]
mod fuzz;
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

/// The `data_processing` engine.
pub struct DataProcessing;

/// The source file and the operations to apply. Paths are relative to the data directory.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DataProcessingRequest {
    /// The CSV file to read.
    #[schemars(length(min = 1))]
    pub source_file: String,
    /// The operations, in order. Each works on the table of the one before. A name (`clean`,
    /// `transform`, `validate`) or an object with `op` and parameters.
    #[schemars(length(min = 1))]
    pub operations: Vec<NameOrObject<OperationParams>>,
    /// The CSV file to write. The default is `<stem>.processed.csv` beside the source.
    pub output_file: Option<String>,
    /// Replace the output file if it exists. False fails with `output_exists`, unless the operation
    /// itself, or the one that it retries or resumes, wrote the file. Without `output_file`, the
    /// output of an earlier operation of this type is also replaced.
    // Not written when it is false: checkpoints hold a hash of the request, and stay valid.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overwrite: bool,
    /// Estimated number of rows. Progress shows it until the real number is known.
    pub estimated_rows: Option<u64>,
}

/// The result of a run.
#[derive(Debug, Serialize, JsonSchema)]
pub struct DataProcessingOutput {
    /// Number of data rows in the source.
    pub rows_processed: u64,
    /// The file written. Null when all operations only validate.
    pub output_file: Option<String>,
    /// Duration of the attempt, in seconds.
    pub duration_seconds: f64,
    /// One result for each operation, in order.
    pub operations: Vec<OperationResult>,
}

impl Engine for DataProcessing {
    const NAME: &'static str = "data_processing";
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

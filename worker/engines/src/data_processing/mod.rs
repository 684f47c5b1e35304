//! The `data_processing` engine: cleans, transforms and validates CSV files of any size in bounded
//! memory.
//!
//! `docs/engines/data_processing.md` states the rules. The parts, from the outside in:
//!
//! - `run` executes one request: it reads the source as often as needed and sends every row through
//!   all operations.
//! - `plan` turns the operations of a request (`clean`, `transform`, `validate`) into one chain.
//!   `operation` is the trait that they implement.
//! - `table` computes which pass over the source can do what; `row`, `text`, `numbers`,
//!   `time_format`, `statistics`, `duplicates` and `text_set` are the values that operations work on.
//! - `input` says how the source is written; `source`, `decode` and `reader` read it, `output` writes
//!   CSV.
//! - `checkpoint` saves and restores the state of a run (`state`) with the files of
//!   `attempt_files`; `progress` reports how far the run is.
//! - `name_or_object` reads parameters that are a name or an object; `error` has every message.

mod attempt_files;
mod checkpoint;
mod clean;
mod decode;
mod duplicates;
mod error;
#[cfg(test)]
mod fuzz;
mod input;
mod name_or_object;
mod numbers;
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
mod time_format;
mod transform;
mod validate;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::clean::{CellType, CleanParams, CleanResult, Duplicates, MissingPolicy, OnInvalid};
pub use self::input::{Comment, Delimiter, EncodingName, InputOptions, Quote, QuoteMark, Ragged};
pub use self::name_or_object::{NameOrObject, TaggedEnum};
pub use self::numbers::{Decimal, Thousands};
pub use self::plan::{OperationParams, OperationResult};
pub use self::time_format::TimeFormats;
pub use self::transform::{
    ColumnStats, Comparison, Computation, FilterValue, Keep, TransformParams, TransformResult,
    TransformStep,
};
pub use self::validate::{Rule, RuleError, ValidateParams, ValidateResult};
pub use crate::datetime::Ambiguous;
use ktrdr_worker::{Context, Engine, OperationError};

/// The `data_processing` engine.
pub struct DataProcessing;

/// The source file and the operations to apply. Paths are relative to the data directory.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("x-ktrdr-summary" = ["source_file", "operations"]))]
#[schemars(extend("examples" = [{
    "source_file": "messy/titanic.csv",
    "operations": [{"op": "clean", "null_values": ["", "*"], "missing": {"age": "median"}}],
}]))]
pub struct DataProcessingRequest {
    /// The CSV file to read. It may be compressed with gzip.
    #[schemars(length(min = 1))]
    #[schemars(extend("examples" = ["messy/titanic.csv", "messy/birdstrikes_8000.csv", "GOOG_1d.csv"]))]
    pub source_file: String,
    /// How the source file is written, when it is not plain CSV in UTF-8.
    #[serde(default)]
    pub input: InputOptions,
    /// The operations, in order. Each works on the table of the one before. A name (`clean`,
    /// `transform`, `validate`) or an object with `op` and parameters.
    #[schemars(length(min = 1))]
    pub operations: Vec<NameOrObject<OperationParams>>,
    /// The CSV file to write. The default is `<stem>.processed.csv` beside the source. A name that
    /// ends in `.gz` is compressed with gzip.
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
#[schemars(extend("x-ktrdr-verdict" = ["rows_processed", "output_file", "duration_seconds"]))]
pub struct DataProcessingOutput {
    /// Number of data rows in the source.
    #[schemars(extend("x-ktrdr-unit" = "count"))]
    pub rows_processed: u64,
    /// The file written. Null when all operations only validate.
    pub output_file: Option<String>,
    /// Duration of the attempt, in seconds.
    #[schemars(extend("x-ktrdr-unit" = "seconds"))]
    pub duration_seconds: f64,
    /// One result for each operation, in order.
    pub operations: Vec<OperationResult>,
    /// What a person should know about the data. At most 20 sentences.
    pub warnings: Vec<String>,
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

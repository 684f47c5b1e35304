//! The parameters of `validate`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data_processing::time_format::TimeFormats;

/// Rules that the table is checked against.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ValidateParams {
    /// The rules. Without rules, only the number of cells is checked.
    pub rules: Vec<Rule>,
    /// Cells that equal one of these after trimming are missing, and so are empty cells. They
    /// violate only `not_null`.
    pub null_values: Vec<String>,
    /// Number of errors to list. All errors are counted.
    #[schemars(range(max = 100_000))]
    pub max_errors: u32,
}

impl Default for ValidateParams {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            null_values: vec![String::new()],
            max_errors: 10,
        }
    }
}

/// One rule.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "rule", rename_all = "snake_case", deny_unknown_fields)]
#[expect(missing_docs, reason = "`column` is the column in all of them")]
pub enum Rule {
    /// No white space at either end.
    Trimmed { column: String },
    /// Not a null value.
    NotNull { column: String },
    /// A number.
    Number { column: String },
    /// An integer.
    Integer { column: String },
    /// A date or time in ISO 8601, or in one of the given strftime formats.
    Datetime {
        column: String,
        format: Option<TimeFormats>,
    },
    /// At least a value.
    Min { column: String, value: f64 },
    /// At most a value.
    Max { column: String, value: f64 },
    /// One of the listed texts.
    Allowed { column: String, values: Vec<String> },
    /// Different from the cells of all earlier rows.
    Unique { column: String },
    /// Greater than the previous number or time of the column.
    Increasing { column: String },
    /// `high` is the greatest and `low` the least of open, high, low and close.
    Ohlc {},
    /// Different from all earlier rows.
    DuplicateRow {},
}

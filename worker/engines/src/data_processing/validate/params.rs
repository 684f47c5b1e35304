//! The parameters of `validate`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Rules that the table is held against.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ValidateParams {
    /// The rules; without any, only the number of cells is checked.
    pub rules: Vec<Rule>,
    /// Cells equal to one of these, once trimmed, fail only `not_null`.
    pub null_values: Vec<String>,
    /// How many errors are listed; all are counted.
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
#[allow(missing_docs, reason = "`column` is the column in all of them")]
pub enum Rule {
    /// No white space at either end.
    Trimmed { column: String },
    /// Not a null value.
    NotNull { column: String },
    /// A number.
    Number { column: String },
    /// An integer.
    Integer { column: String },
    /// A time, in ISO 8601 or in a strftime-like format.
    Datetime {
        column: String,
        format: Option<String>,
    },
    /// Not below a value.
    Min { column: String, value: f64 },
    /// Not above a value.
    Max { column: String, value: f64 },
    /// One of some texts.
    Allowed { column: String, values: Vec<String> },
    /// No earlier row has it.
    Unique { column: String },
    /// Greater than in the rows before.
    Increasing { column: String },
    /// high and low enclose open and close.
    Ohlc {},
    /// The row equals no earlier one.
    DuplicateRow {},
}

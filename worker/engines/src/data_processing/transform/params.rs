//! The parameters of `transform`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Steps, each on the table after the previous step. Without steps the table stays unchanged.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TransformParams {
    /// The steps, in order.
    pub steps: Vec<TransformStep>,
    /// Decimal places of computed numbers. By default six, and more for small numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 30))]
    pub decimals: Option<u8>,
}

/// One step of `transform`.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum TransformStep {
    /// Keeps these columns, in this order.
    Select {
        /// Their names.
        #[schemars(length(min = 1))]
        columns: Vec<String>,
    },
    /// Renames columns, all at once.
    Rename {
        /// New names by old names.
        columns: BTreeMap<String, String>,
    },
    /// Keeps the rows that satisfy a comparison.
    Filter {
        /// The column to compare.
        column: String,
        /// The comparison.
        cmp: Comparison,
        /// The value to compare with. A number compares numbers; a text compares texts byte by
        /// byte.
        value: FilterValue,
    },
    /// Sorts the rows. Numbers come before times, times before texts, missing cells last. Rows that
    /// are equal keep their order.
    Sort {
        /// The columns to sort by, the most important first.
        #[schemars(length(min = 1))]
        columns: Vec<String>,
        /// Sort from the greatest to the least.
        #[serde(default)]
        descending: bool,
    },
    /// Drops rows that equal another row.
    Dedupe {
        /// The columns that make two rows equal. The default is all. A row without any of these
        /// cells stays.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(length(min = 1))]
        columns: Option<Vec<String>>,
        /// Which of equal rows stays.
        #[serde(default)]
        keep: Keep,
    },
    /// (x − mean) / population standard deviation.
    Zscore(Computation),
    /// (x − min) / (max − min).
    Minmax(Computation),
    /// ln(x / x of the previous row).
    LogReturn(Computation),
}

/// Which of equal rows stays.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// The first.
    #[default]
    First,
    /// The last.
    Last,
}

/// A column computed from another column.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Computation {
    /// The input column.
    pub column: String,
    /// The name of the result. The default is `{column}_{op}`. An existing column of that name is
    /// replaced.
    #[serde(rename = "as")]
    pub name: Option<String>,
}

/// A comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Comparison {
    /// Equal.
    #[serde(rename = "==")]
    Equal,
    /// Not equal.
    #[serde(rename = "!=")]
    NotEqual,
    /// Less.
    #[serde(rename = "<")]
    Less,
    /// Less or equal.
    #[serde(rename = "<=")]
    LessOrEqual,
    /// Greater.
    #[serde(rename = ">")]
    Greater,
    /// Greater or equal.
    #[serde(rename = ">=")]
    GreaterOrEqual,
}

impl Comparison {
    /// Whether the comparison holds for this ordering.
    pub(super) fn holds(self, ordering: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

/// The value that cells are compared with.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "value must be a number or a text")]
pub enum FilterValue {
    /// Compare as numbers. A cell that is not a number drops its row.
    Number(f64),
    /// Compare as texts, in byte order.
    Text(String),
}

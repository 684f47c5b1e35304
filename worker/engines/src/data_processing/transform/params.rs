//! The parameters of `transform`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Steps, each on the table the step before left. Without steps the table stays as it is.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TransformParams {
    /// What to do, in order.
    pub steps: Vec<TransformStep>,
    /// Places of computed numbers.
    #[schemars(range(max = 30))]
    pub decimals: u8,
}

impl Default for TransformParams {
    fn default() -> Self {
        Self {
            steps: Vec::new(),
            decimals: 6,
        }
    }
}

/// One step.
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
        /// New names by old.
        columns: BTreeMap<String, String>,
    },
    /// Keeps the rows for which a comparison holds.
    Filter {
        /// The column compared.
        column: String,
        /// How.
        cmp: Comparison,
        /// With what: a number compares numbers, a text compares texts byte by byte.
        value: FilterValue,
    },
    /// (x − mean) / standard deviation of the population.
    Zscore(Computation),
    /// (x − least) / (greatest − least).
    Minmax(Computation),
    /// ln(x / x of the row before).
    LogReturn(Computation),
}

/// A column made of another.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Computation {
    /// The column computed from.
    pub column: String,
    /// The name of the result, by default `{column}_{op}`. A column of that name is replaced.
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
    /// Whether it holds between values that compare like this.
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

/// What cells are compared with.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "value must be a number or a text")]
pub enum FilterValue {
    /// Cells that are no number drop their row.
    Number(f64),
    /// Byte order.
    Text(String),
}

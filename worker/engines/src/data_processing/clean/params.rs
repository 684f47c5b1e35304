//! The parameters of `clean`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data_processing::name_or_object::{NameOrObject, TaggedEnum};

/// Trims cells, makes null values missing, checks types, drops duplicate rows and fills missing
/// cells, in this order.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CleanParams {
    /// Remove white space at both ends of every cell and column name.
    pub trim: bool,
    /// Cells equal to one of these become missing.
    pub null_values: Vec<String>,
    /// The type of the cells, by column.
    pub types: BTreeMap<String, NameOrObject<CellType>>,
    /// How to treat a cell that does not have the type of its column.
    pub on_invalid: OnInvalid,
    /// Drop rows that equal an earlier one, in all cells (true) or in the named columns.
    pub drop_duplicates: Duplicates,
    /// How to treat missing cells, by column.
    pub missing: BTreeMap<String, MissingPolicy>,
    /// Decimal places of computed numbers.
    #[schemars(range(max = 30))]
    pub decimals: u8,
}

impl Default for CleanParams {
    fn default() -> Self {
        Self {
            trim: true,
            null_values: vec![String::new()],
            types: BTreeMap::new(),
            on_invalid: OnInvalid::default(),
            drop_duplicates: Duplicates::Whole(true),
            missing: BTreeMap::new(),
            decimals: 6,
        }
    }
}

/// The type of a cell.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum CellType {
    /// A number, such as `29.0` or `-1e5`.
    Number {},
    /// An integer, such as `29` or `-1`.
    Integer {},
    /// A date or time in ISO 8601 or in the given format.
    Datetime {
        /// A strftime format, such as `%d.%m.%Y`. The cell is rewritten as ISO 8601.
        format: Option<String>,
    },
}

impl TaggedEnum for CellType {
    const WHAT: &'static str = "type";
    const TAG: &'static str = "type";
    const NAMES: &'static [&'static str] = &["number", "integer", "datetime"];
}

/// How to treat a cell that does not have the type of its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnInvalid {
    /// The cell becomes missing.
    #[default]
    Null,
    /// The row is dropped.
    DropRow,
    /// The operation fails.
    Fail,
}

/// Which rows are duplicates.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "drop_duplicates must be true, false or a list of column names"
)]
pub enum Duplicates {
    /// Rows that are equal in all cells (true), or no rows (false).
    Whole(bool),
    /// Rows that are equal in these columns.
    Columns(#[schemars(length(min = 1))] Vec<String>),
}

/// How to treat the missing cells of a column.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MissingPolicy {
    /// Drop their rows.
    DropRow,
    /// Fill them with this text.
    Value(String),
    /// Fill them with the mean of the numbers of the column.
    Mean,
    /// Fill them with the median of the numbers of the column.
    Median,
    /// Fill them with the most frequent text of the column.
    Mode,
    /// Fill them with the cell of the previous written row.
    Ffill,
}

//! The parameters of `clean`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data_processing::name_or_object::{NameOrObject, TaggedEnum};

/// Trims cells, makes null values missing, checks types, drops duplicate rows, fills missing cells: in this order.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CleanParams {
    /// Remove white space at both ends of every cell and column name.
    pub trim: bool,
    /// Cells equal to one of these become missing.
    pub null_values: Vec<String>,
    /// What the cells of a column must be.
    pub types: BTreeMap<String, NameOrObject<CellType>>,
    /// What becomes of a cell that is not of its column's type.
    pub on_invalid: OnInvalid,
    /// Drop rows that equal an earlier one: in all cells (true) or in these columns.
    pub drop_duplicates: Duplicates,
    /// What becomes of missing cells, by column.
    pub missing: BTreeMap<String, MissingPolicy>,
    /// Places of computed numbers.
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

/// What a cell must be.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum CellType {
    /// `29.0`, `-1e5`.
    Number {},
    /// `29`, `-1`.
    Integer {},
    /// ISO 8601, or the given format.
    Datetime {
        /// strftime-like; the cell is rewritten as ISO 8601.
        format: Option<String>,
    },
}

impl TaggedEnum for CellType {
    const WHAT: &'static str = "type";
    const TAG: &'static str = "type";
    const NAMES: &'static [&'static str] = &["number", "integer", "datetime"];
}

/// What becomes of a cell that does not parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnInvalid {
    /// It becomes missing.
    #[default]
    Null,
    /// Its row is dropped.
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
    /// Equal in all cells (true), or none are (false).
    Whole(bool),
    /// Equal in these columns.
    Columns(#[schemars(length(min = 1))] Vec<String>),
}

/// What becomes of the missing cells of a column.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MissingPolicy {
    /// Their rows are dropped.
    DropRow,
    /// They get this text.
    Value(String),
    /// They get the mean of the column's numbers.
    Mean,
    /// They get the median of the column's numbers.
    Median,
    /// They get the column's most frequent text.
    Mode,
    /// They get the text of the row before.
    Ffill,
}

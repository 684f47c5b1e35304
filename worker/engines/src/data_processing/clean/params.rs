//! The parameters of `clean`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::data_processing::name_or_object::{NameOrObject, TaggedEnum};
use crate::data_processing::numbers::{Decimal, Thousands};
use crate::data_processing::time_format::TimeFormats;
use crate::datetime::Ambiguous;

/// Trims cells, makes null values missing, checks types, drops duplicate rows and fills missing
/// cells, in this order.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CleanParams {
    /// Remove white space at both ends of every cell and column name.
    pub trim: bool,
    /// Cells equal to one of these become missing. An empty cell is always missing.
    pub null_values: Vec<String>,
    /// The type of the cells, by column.
    pub types: BTreeMap<String, NameOrObject<CellType>>,
    /// How to treat a cell that does not have the type of its column.
    pub on_invalid: OnInvalid,
    /// Drop rows that equal an earlier one, in all cells (true) or in the named columns. A row
    /// without any of the named cells is no duplicate.
    pub drop_duplicates: Duplicates,
    /// How to treat missing cells, by column.
    pub missing: BTreeMap<String, MissingPolicy>,
    /// Decimal places of computed numbers. By default six, and more for small numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 30))]
    pub decimals: Option<u8>,
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
            decimals: None,
        }
    }
}

/// The type of a cell.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum CellType {
    /// A number, such as `29.0` or `-1e5`. With separators, the cell is rewritten without them.
    #[schemars(extend("allOf" = different_separators()))]
    Number {
        /// The mark before the decimals. The default is that of `input`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        decimal: Option<Decimal>,
        /// The separator between groups of three digits. The default is that of `input`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thousands: Option<Thousands>,
    },
    /// An integer, such as `29` or `-1`.
    Integer {
        /// The separator between groups of three digits. The default is that of `input`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        thousands: Option<Thousands>,
    },
    /// A date or time in ISO 8601 or in the given format. With a format or a zone, the cell is
    /// rewritten as ISO 8601 in UTC.
    Datetime {
        /// One strftime format, or several that are tried in order. A cell in ISO 8601 stays.
        format: Option<TimeFormats>,
        /// The zone of times without an offset, by its name in the IANA database. The default is
        /// UTC.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schemars(regex(pattern = r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$"), extend("examples" = ["Europe/Berlin", "America/New_York"]))]
        zone: Option<String>,
        /// Which of two times a local time means that the clock shows twice, when it is set back.
        #[serde(default)]
        ambiguous: Ambiguous,
    },
}

/// The condition that decimals and thousands have different separators, for a schema.
pub(in crate::data_processing) fn different_separators() -> serde_json::Value {
    let comma =
        serde_json::json!({"properties": {"decimal": {"const": ","}}, "required": ["decimal"]});
    // A list of what is allowed: a violation shows it.
    let thousands = |mark: &str| serde_json::json!({"properties": {"thousands": {"enum": [mark, " ", "'", "_", null]}}});
    serde_json::json!([{"if": comma, "then": thousands("."), "else": thousands(",")}])
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

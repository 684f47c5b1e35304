//! A JSON Schema that is stored and passed on, as its text.
//!
//! The problem: as a value, a schema of many small objects takes a hundred times its text. Who keeps the
//! schemas of all worker types would need that much memory for those of a hostile one.
//!
//! How it is solved: the text is kept, and read where something in it is looked at.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// The text of a JSON Schema, or of any other JSON that stands in its place. Cheap to clone.
///
/// ```
/// use ktrdr_protocol::schema_text::SchemaText;
///
/// let text: SchemaText = serde_json::from_str(r#"{"type": "object"}"#)?;
/// assert_eq!(text.as_str(), r#"{"type": "object"}"#);
/// assert_eq!(text.value()?["type"], "object");
/// assert_eq!(SchemaText::default().as_str(), "{}");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SchemaText(Arc<RawValue>);

impl SchemaText {
    /// The text of this value, without white space.
    pub fn of(schema: &Value) -> Self {
        // A value can always be written.
        let text = serde_json::value::to_raw_value(schema);
        text.map_or_else(|_| Self::default(), |text| Self(text.into()))
    }

    /// The text, which is JSON.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Reads the text.
    ///
    /// # Errors
    /// When it nests too deep, or has a number that is too large.
    pub fn value(&self) -> Result<Value, serde_json::Error> {
        serde_json::from_str(self.as_str())
    }
}

/// `{}`, which allows everything.
impl Default for SchemaText {
    fn default() -> Self {
        let allows_everything = RawValue::from_string("{}".to_owned());
        Self(allows_everything.map_or_else(|_| RawValue::NULL.to_owned().into(), Into::into))
    }
}

impl fmt::Debug for SchemaText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl PartialEq for SchemaText {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.as_str() == other.as_str()
    }
}

impl Eq for SchemaText {}

impl JsonSchema for SchemaText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Value::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Value::json_schema(generator)
    }
}

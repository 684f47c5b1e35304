//! The formats of times in a request: one text or several.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The directives that chrono knows, as a pattern. The backend refuses another one at the start.
const PATTERN: &str =
    "^([^%]|%[-_0]?[ABCDFGHIMPQRSTUVWXYZabcdefghjklmnpqrstuvwxyz%+]|%\\.?[369]?f|%:{1,3}z|%#z)+$";

/// The most formats of one column.
const MAX_FORMATS: usize = 16;

/// One strftime format, or several that are tried in order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged, expecting = "format must be a text or a list of texts")]
pub enum TimeFormats {
    /// One.
    One(String),
    /// Several. The first that fits a cell reads it.
    Several(Vec<String>),
}

impl TimeFormats {
    /// The formats, in order.
    pub(super) fn as_slice(&self) -> &[String] {
        match self {
            Self::One(format) => std::slice::from_ref(format),
            Self::Several(formats) => formats,
        }
    }
}

impl JsonSchema for TimeFormats {
    fn schema_name() -> Cow<'static, str> {
        "TimeFormats".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let format = json_schema!({ "type": "string", "pattern": PATTERN });
        json_schema!({
            "description": "strftime directives of the Rust crate chrono. %s alone counts seconds since 1970, %Q milliseconds, %s%6f microseconds.",
            "anyOf": [
                format,
                { "type": "array", "items": format, "minItems": 1, "maxItems": MAX_FORMATS },
            ],
            "examples": ["%d.%m.%Y %H:%M:%S", "%m/%d/%Y %I:%M %p", "%s"],
        })
    }
}

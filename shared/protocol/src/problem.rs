//! The one error shape of both REST APIs:
//! `{"success":false,"error":"<what and what to do>","code":"<snake_case>","status_code":<n>}` plus fields of its own.

use serde::Serialize;
use serde_json::{Map, Value};

/// The body of every answer that is not a success.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// Always false.
    pub success: bool,
    /// What went wrong and what to do about it.
    pub error: String,
    /// A stable word for programs; listed in `docs/errors.md`.
    pub code: &'static str,
    /// The HTTP status.
    pub status_code: u16,
    /// Fields of this error's own.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl Problem {
    /// A problem without fields of its own.
    pub fn new(status_code: u16, code: &'static str, error: impl Into<String>) -> Self {
        Self {
            success: false,
            error: error.into(),
            code,
            status_code,
            fields: Map::new(),
        }
    }

    /// With a field of its own.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(name.to_owned(), value.into());
        self
    }
}

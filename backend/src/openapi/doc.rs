//! What is said about one route: a [`Doc`] stands beside every route of the router, and the document is made of them.

use ktrdr_protocol::state::Status;
use ktrdr_protocol::worker::WorkerStatus;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Value, json};

use crate::error::Code;

/// The schema of an answer's body.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// The description of one method of one path.
pub struct Doc {
    /// `operationId`: unique, and what generated clients call it.
    pub id: &'static str,
    /// The group it is shown in.
    pub tag: &'static str,
    /// What it does, in a few words.
    pub summary: &'static str,
    /// What else there is to know.
    pub details: &'static str,
    /// Query parameters and headers; those of the path are found in the path.
    pub parameters: Vec<Value>,
    /// The request body, if it takes one.
    pub body: Option<Value>,
    /// What it answers when all is well.
    pub answers: Vec<Answer>,
    /// What it may refuse with.
    pub errors: Vec<Code>,
}

/// One good answer.
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// What it means.
    pub description: &'static str,
    /// Media type and schema; `None` when there is no body.
    pub content: Option<(&'static str, SchemaOf)>,
    /// Response headers.
    pub headers: Vec<(&'static str, &'static str)>,
}

impl Doc {
    /// A description without parameters and answers yet.
    pub fn new(tag: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self {
            id,
            tag,
            summary,
            details: "",
            parameters: Vec::new(),
            body: None,
            answers: Vec::new(),
            errors: vec![Code::Internal],
        }
    }

    /// With more to know.
    #[must_use]
    pub fn details(self, details: &'static str) -> Self {
        Self { details, ..self }
    }

    /// With an optional query parameter.
    #[must_use]
    pub fn query(self, name: &str, schema: Value, description: &str) -> Self {
        self.parameter("query", name, schema, description)
            .error(Code::InvalidQuery)
    }

    /// With an optional request header.
    #[must_use]
    pub fn header(self, name: &str, schema: Value, description: &str) -> Self {
        self.parameter("header", name, schema, description)
    }

    fn parameter(mut self, place: &str, name: &str, schema: Value, description: &str) -> Self {
        self.parameters
            .push(json!({"name": name, "in": place, "description": description, "schema": schema}));
        self
    }

    /// With a JSON body.
    #[must_use]
    pub fn body(mut self, required: bool, schema: Value, description: &str) -> Self {
        self.body = Some(json!({
            "description": description, "required": required, "content": {"application/json": {"schema": schema}},
        }));
        self
    }

    /// With a JSON answer of type `T`.
    #[must_use]
    pub fn json<T: JsonSchema>(self, status: u16, description: &'static str) -> Self {
        self.content(
            status,
            "application/json",
            SchemaGenerator::subschema_for::<T>,
            description,
        )
    }

    /// With an answer that is text for people or other programs.
    #[must_use]
    pub fn text(self, status: u16, kind: &'static str, description: &'static str) -> Self {
        self.content(
            status,
            kind,
            SchemaGenerator::subschema_for::<String>,
            description,
        )
    }

    /// With an answer that has no body.
    #[must_use]
    pub fn empty(mut self, status: u16, description: &'static str) -> Self {
        self.answers.push(Answer {
            status,
            description,
            content: None,
            headers: Vec::new(),
        });
        self
    }

    fn content(
        mut self,
        status: u16,
        kind: &'static str,
        schema: SchemaOf,
        description: &'static str,
    ) -> Self {
        self.answers.push(Answer {
            status,
            description,
            content: Some((kind, schema)),
            headers: Vec::new(),
        });
        self
    }

    /// With a header in the answer that was added last.
    #[must_use]
    pub fn answer_header(mut self, name: &'static str, description: &'static str) -> Self {
        if let Some(answer) = self.answers.last_mut() {
            answer.headers.push((name, description));
        }
        self
    }

    /// With a way to fail.
    #[must_use]
    pub fn error(mut self, code: Code) -> Self {
        if !self.errors.contains(&code) {
            self.errors.push(code);
        }
        self
    }

    /// With several ways to fail.
    #[must_use]
    pub fn errors(self, codes: &[Code]) -> Self {
        codes.iter().fold(self, |doc, code| doc.error(*code))
    }
}

/// A name: one token of a subject.
pub fn name() -> Value {
    json!({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$"})
}

/// A whole number with a default.
pub fn number(default: u64, least: u64, most: u64) -> Value {
    json!({"type": "integer", "minimum": least, "maximum": most, "default": default})
}

/// Seconds to hold the answer.
pub fn wait() -> Value {
    json!({"type": "number", "minimum": 0})
}

/// The statuses of operations.
pub fn status() -> Value {
    json!({"type": "string", "enum": Status::ALL.map(Status::as_str)})
}

/// The statuses of workers.
pub fn worker_status() -> Value {
    json!({"type": "string", "enum": [WorkerStatus::Available, WorkerStatus::Busy, WorkerStatus::TemporarilyUnavailable]})
}

//! Whether an engine is declared in a way that can work.
//!
//! The problem: an engine that is declared wrongly would register and wait for ever, because
//! backends refuse every start of it, or do not route any to it. The author sees a worker that runs.
//!
//! How it is solved: [`validate`] looks at everything that an engine declares before the worker does
//! anything else. Only whether the domain is free is not known then; the worker asks when it
//! registers ([`crate::announce::worker_type`]). Each fault ends the worker.

use std::time::Duration;

use ktrdr_http::schema::cost::pointer;
use ktrdr_http::schema::{Schema, UnusableSchema};
use ktrdr_http::start_body::RESERVED_FIELDS;
use ktrdr_protocol::execution::{MAX_ATTEMPTS, MAX_RETRY_DELAY, MAX_TIMEOUT, MIN_TIMEOUT};
use ktrdr_protocol::id::{InvalidName, WorkerType, is_name};
use ktrdr_protocol::schema_text::SchemaText;
use ktrdr_protocol::worker::{MAX_LABEL, RESERVED_DOMAINS, is_domain};
use serde_json::Value;

use crate::dynamic::EngineInfo;

/// Longest mark in the ids of direct starts, in characters.
const MAX_MARK: usize = 32;

/// Longest description of a worker type, in bytes.
const MAX_DESCRIPTION: usize = 4096;

/// What is wrong with the declaration of an engine, and what to do.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum BadDeclaration {
    /// The name cannot be a part of a subject.
    #[error("{0}. Set NAME to such a name")]
    Name(#[from] InvalidName),
    /// The domain cannot be a path segment.
    #[error(
        "its domain {0:?} cannot be a part of a path: use 1 to 128 of the characters A-Z a-z 0-9 _ -. Set DOMAIN to such a word"
    )]
    Domain(String),
    /// The domain is the path of something else.
    #[error(
        "its domain {0:?} is reserved, as {all} are. Set DOMAIN to another word",
        all = RESERVED_DOMAINS.join(", ")
    )]
    ReservedDomain(String),
    /// Another worker type has the domain.
    #[error(
        "its domain {domain:?} belongs to the worker type {owner}, so backends would never start an operation of this one. Set DOMAIN to another word. If nobody serves {owner} any more, forget it: DELETE /api/v1/worker-types/{owner}"
    )]
    TakenDomain {
        /// The domain.
        domain: String,
        /// Who has it.
        owner: String,
    },
    /// The mark in the ids of direct starts cannot be a part of an id.
    #[error(
        "its mark {0:?} cannot be a part of an operation id: use 1 to {MAX_MARK} of the characters A-Z a-z 0-9 _ -. Set SHORT to such a word"
    )]
    Mark(String),
    /// Nobody could check a request.
    #[error("its request schema cannot be used: {0}. Change the type Request")]
    Schema(#[from] UnusableSchema),
    /// A start body is an object, so nothing would fit the request.
    #[error(
        "its requests are never a JSON object, and every start body is one. Make Request a struct with named fields; one without fields takes no parameters"
    )]
    NoObject,
    /// A parameter has a name that means something else in a start body.
    #[error(
        "its requests have the field {0:?}, which has its own meaning in every start body, so the engine would never get it. Give the field another name"
    )]
    ReservedField(&'static str),
    /// A default for operations that no start body could set.
    #[error("its {constant} is {found}, and {allowed} is allowed. Change it")]
    Limit {
        /// The name of the constant.
        constant: &'static str,
        /// Its value.
        found: String,
        /// The values that are allowed.
        allowed: String,
    },
}

/// Checks everything that an engine declares.
///
/// # Errors
/// [`BadDeclaration`], the first fault.
pub(crate) async fn validate(info: &EngineInfo) -> Result<(), BadDeclaration> {
    WorkerType::new(info.worker_type.as_ref())?;
    check_domain(&info.domain)?;
    if !is_name(&info.short) || info.short.len() > MAX_MARK {
        return Err(BadDeclaration::Mark(info.short.to_string()));
    }
    for (constant, text, most) in [
        ("DESCRIPTION", &info.description, MAX_DESCRIPTION),
        ("VERSION", &info.version, MAX_LABEL),
    ] {
        if text.len() > most {
            return Err(BadDeclaration::Limit {
                constant,
                found: format!("{} bytes long", text.len()),
                allowed: format!("at most {most} bytes"),
            });
        }
    }
    check_limits(info)?;

    // Only tried: most workers never need the compiled schema, see `Core::compiled_schema`. It has
    // bounds from here on.
    Schema::compile_apart(SchemaText::of(&info.request_schema)).await?;
    let root = Place {
        root: &info.request_schema,
        schema: &info.request_schema,
    };
    if !root.allows_objects() {
        return Err(BadDeclaration::NoObject);
    }
    match RESERVED_FIELDS.iter().find(|field| root.names(field)) {
        Some(field) => Err(BadDeclaration::ReservedField(field)),
        None => Ok(()),
    }
}

fn check_domain(domain: &str) -> Result<(), BadDeclaration> {
    if is_domain(domain) {
        Ok(())
    } else if is_name(domain) {
        Err(BadDeclaration::ReservedDomain(domain.to_owned()))
    } else {
        Err(BadDeclaration::Domain(domain.to_owned()))
    }
}

fn check_limits(info: &EngineInfo) -> Result<(), BadDeclaration> {
    let defaults = &info.execution_defaults;
    let times = [
        (
            "TIMEOUT",
            defaults.timeout_seconds,
            MIN_TIMEOUT,
            MAX_TIMEOUT,
        ),
        (
            "STALL_TIMEOUT",
            defaults.stall_timeout_seconds,
            MIN_TIMEOUT,
            MAX_TIMEOUT,
        ),
        ("RETRY_DELAY", defaults.retry_delay, 0.0, MAX_RETRY_DELAY),
    ];
    for (constant, seconds, least, most) in times {
        let is_allowed = |seconds: &f64| (least..=most).contains(seconds);
        if let Some(seconds) = seconds.filter(|seconds| !is_allowed(seconds)) {
            let shown = |seconds: f64| format!("{:?}", Duration::from_secs_f64(seconds));
            return Err(BadDeclaration::Limit {
                constant,
                found: shown(seconds),
                allowed: format!("{} to {}", shown(least), shown(most)),
            });
        }
    }

    match defaults.max_attempts {
        Some(attempts) if !(1..=MAX_ATTEMPTS).contains(&attempts) => Err(BadDeclaration::Limit {
            constant: "MAX_ATTEMPTS",
            found: attempts.to_string(),
            allowed: format!("1 to {MAX_ATTEMPTS}"),
        }),
        _ => Ok(()),
    }
}

/// A schema for the whole value, somewhere inside a request schema. It was compiled before, so it does
/// not contain itself there, and is not deep.
#[derive(Clone, Copy)]
struct Place<'s> {
    root: &'s Value,
    schema: &'s Value,
}

impl<'s> Place<'s> {
    fn of(self, schema: &'s Value) -> Self {
        Self { schema, ..self }
    }

    /// What the schema refers to.
    fn target(self) -> Option<Self> {
        let pointer = pointer(self.schema.get("$ref")?.as_str()?)?;
        self.root.pointer(&pointer).map(|target| self.of(target))
    }

    fn of_list(self, keyword: &str) -> Option<impl Iterator<Item = Self> + use<'s>> {
        let list = self.schema.get(keyword)?.as_array()?;
        Some(list.iter().map(move |schema| self.of(schema)))
    }

    /// Whether an object may match: not when the type, or each choice, excludes it.
    fn allows_objects(self) -> bool {
        if self.schema == &Value::Bool(false) {
            return false;
        }
        let is_object_type = match self.schema.get("type") {
            Some(Value::String(one)) => one == "object",
            Some(Value::Array(several)) => several.iter().any(|one| one == "object"),
            _ => true,
        };
        let values = self.schema.get("enum").and_then(Value::as_array);
        let is_value = values.is_none_or(|values| values.iter().any(Value::is_object))
            && self.schema.get("const").is_none_or(Value::is_object);
        let choices = ["anyOf", "oneOf"].into_iter().all(|keyword| {
            let choices = self.of_list(keyword);
            choices.is_none_or(|mut choices| choices.any(Self::allows_objects))
        });
        let parts = self.of_list("allOf");

        is_object_type
            && is_value
            && choices
            && parts.is_none_or(|mut parts| parts.all(Self::allows_objects))
            && self.target().is_none_or(Self::allows_objects)
    }

    /// Whether the value may have, or must have, a member of this name.
    fn names(self, member: &str) -> bool {
        let properties = self.schema.get("properties");
        let required = self.schema.get("required").and_then(Value::as_array);
        let parts = ["allOf", "anyOf", "oneOf"];
        let mut parts = parts
            .into_iter()
            .filter_map(|keyword| self.of_list(keyword))
            .flatten();

        properties.is_some_and(|properties| properties.get(member).is_some())
            || required.is_some_and(|required| required.iter().any(|name| name == member))
            || parts.any(|part| part.names(member))
            || self.target().is_some_and(|target| target.names(member))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn place(schema: &Value) -> Place<'_> {
        Place {
            root: schema,
            schema,
        }
    }

    #[test]
    fn a_request_must_be_able_to_be_an_object() {
        for schema in [
            json!({}),
            json!(true),
            json!({"type": "object"}),
            json!({"type": ["object", "null"]}),
            json!({"oneOf": [{"type": "string"}, {"type": "object"}]}),
            json!({"$defs": {"a": {"type": "object"}}, "$ref": "#/$defs/a"}),
            json!({"anyOf": [{"type": "null"}, {"properties": {}}]}),
        ] {
            assert!(place(&schema).allows_objects(), "{schema}");
        }
        for schema in [
            json!(false),
            json!({"type": "string"}),
            json!({"type": ["array", "null"]}),
            json!({"enum": ["a", "b"]}),
            json!({"const": 7}),
            json!({"oneOf": [{"type": "string"}, {"const": "a"}]}),
            json!({"$defs": {"a": {"type": "array"}}, "$ref": "#/$defs/a"}),
            json!({"$defs": {"a b": {"type": "array"}}, "$ref": "#/$defs/a%20b"}),
            json!({"allOf": [{"type": "object"}, {"type": "null"}]}),
        ] {
            assert!(!place(&schema).allows_objects(), "{schema}");
        }
    }

    #[test]
    fn a_reserved_field_is_found_wherever_a_request_may_have_it() {
        let field = json!({"properties": {"task_id": {"type": "string"}}});
        for schema in [
            field.clone(),
            json!({"required": ["task_id"]}),
            json!({"oneOf": [{"type": "object"}, field]}),
            json!({"$defs": {"a": field}, "allOf": [{"$ref": "#/$defs/a"}]}),
        ] {
            assert!(place(&schema).names("task_id"), "{schema}");
        }
        let inside = json!({"properties": {"inner": field}});
        assert!(!place(&inside).names("task_id"));
    }
}

//! Checks the body of `POST …/start`, on backend and worker. [`crate::body`] reads it.
//!
//! The problem: a start body mixes our fields (`task_id`, `execution`) with the parameters of an
//! engine that the backend does not know. A client should see all its mistakes in one answer. The
//! parameters must reach the engine as the client wrote them: reading and writing a number again
//! can change it. And a large body must not keep other requests waiting.
//!
//! How it is solved: the body is parsed once as a JSON value, which is checked against two schemas,
//! ours and the worker type's, and once as raw members. The parameters are put together from the
//! raw text. Bodies above 32 KiB are checked on a thread of their own.
//!
//! Rejected: one struct with flattened parameters, because serde stops at the first mistake and
//! writes numbers anew.

use std::collections::HashSet;
use std::fmt;
use std::sync::LazyLock;

use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use ktrdr_protocol::execution::ExecutionOptions;
use ktrdr_protocol::id::OperationId;
use ktrdr_protocol::rest::Violation;

use crate::schema::{Schema, TooCostly, check_apart};

/// Bodies above this size, in bytes, are always checked on a thread of their own.
pub(crate) const LARGE: usize = 32 * 1024;

/// The members of a start body that are no parameters.
pub const RESERVED_FIELDS: [&str; 2] = ["task_id", "execution"];

fn is_reserved(name: &str) -> bool {
    RESERVED_FIELDS.contains(&name)
}

#[expect(
    clippy::expect_used,
    reason = "a constant schema; the unit tests compile it"
)]
static EXECUTION_SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let schema = schemars::schema_for!(ExecutionOptions).to_value();
    Schema::compile(&schema).expect("the schema of `execution` compiles")
});

/// The names of the execution options.
static OPTIONS: LazyLock<HashSet<String>> = LazyLock::new(|| {
    let schema = schemars::schema_for!(ExecutionOptions);
    let properties = schema.get("properties").and_then(Value::as_object);
    let names = properties.into_iter().flat_map(Map::keys);
    names.cloned().collect()
});

/// A start body that passed all checks.
#[derive(Debug)]
pub struct StartBody {
    /// The operation id, when the client chose one.
    pub task_id: Option<OperationId>,
    /// How to run the operation.
    pub execution: ExecutionOptions,
    /// The engine's parameters, as the client wrote them.
    pub parameters: Box<RawValue>,
}

/// Why a start body was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// 400 `bad_json`.
    #[error("The body is not valid JSON: {0}")]
    NotJson(String),
    /// 400 `invalid_body`.
    #[error("The body must be a JSON object")]
    NotAnObject,
    /// 422 `invalid_request`.
    #[error("The request is not valid: {}", list(.0))]
    Violations(Vec<Violation>),
    /// 503 `check_timeout`.
    #[error(
        "The request takes too long to check against the schema of this operation, or too many others are checked. Send less at once, or try again"
    )]
    TooCostly,
}

impl From<TooCostly> for BodyError {
    fn from(_: TooCostly) -> Self {
        Self::TooCostly
    }
}

fn list(found: &[Violation]) -> String {
    let told: Vec<String> = found
        .iter()
        .map(|violation| match violation.path.as_str() {
            "" => violation.message.clone(),
            path => format!("{path}: {}", violation.message),
        })
        .collect();
    told.join("; ")
}

/// The members of a JSON object in order, their values untouched.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members: Vec<(String, &'de RawValue)> = Vec::new();
                // A set, because there can be tens of thousands of members, and comparing each with
                // all before it would take seconds.
                let mut known = HashSet::new();
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    if !known.insert(name.clone()) {
                        return Err(serde::de::Error::custom(format!("{name:?} is there twice")));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

impl StartBody {
    /// [`Self::read`], where others are not kept waiting: a large body, or a costly schema, is checked
    /// on a thread of its own.
    ///
    /// # Errors
    /// [`BodyError`].
    pub async fn check(body: Bytes, schema: Option<Schema>) -> Result<Self, BodyError> {
        let is_cheap = schema
            .as_ref()
            .is_none_or(|schema| schema.is_cheap_for(body.len()));
        if is_cheap && body.len() <= LARGE {
            return Self::read(&body, schema.as_ref());
        }
        let checked = schema.clone();
        check_apart(schema, move || Self::read(&body, checked.as_ref())).await?
    }

    /// Takes a body apart and checks all of it. Without a schema the parameters are not checked
    /// here, only by the engine.
    ///
    /// # Errors
    /// [`BodyError`], with every violation at once.
    pub fn read(body: &[u8], schema: Option<&Schema>) -> Result<Self, BodyError> {
        let not_json = |error: serde_json::Error| BodyError::NotJson(error.to_string());
        // Parsed as a value first: the error then names the place, and the depth is limited.
        let mut whole: Value = serde_json::from_slice(body).map_err(not_json)?;
        if !whole.is_object() {
            return Err(BodyError::NotAnObject);
        }

        let Members(members) = serde_json::from_slice(body).map_err(not_json)?;

        let mut found = Vec::new();
        let task_id = read_task_id(&whole, &mut found);
        let execution = read_execution(&whole, &mut found)?;
        let parameters = parameters(&members).map_err(not_json)?;
        if let (Some(schema), Some(members)) = (schema, whole.as_object_mut()) {
            // The rest are the parameters. `Members` has refused duplicate names.
            members.retain(|name, _| !is_reserved(name));
            found.extend(schema.violations("", &whole)?);
        }

        if found.is_empty() {
            Ok(Self {
                task_id,
                execution,
                parameters,
            })
        } else {
            Err(BodyError::Violations(found))
        }
    }
}

/// `null` counts as absent: the guide's clients send optional fields that way.
fn read_task_id(body: &Value, found: &mut Vec<Violation>) -> Option<OperationId> {
    let message = match body.get("task_id") {
        None | Some(Value::Null) => return None,
        Some(Value::String(text)) => match OperationId::new(text) {
            Ok(id) => return Some(id),
            Err(error) => error.to_string(),
        },
        Some(_) => "task_id must be a string".to_owned(),
    };
    found.push(Violation {
        path: "/task_id".to_owned(),
        message,
    });
    None
}

fn read_execution(body: &Value, found: &mut Vec<Violation>) -> Result<ExecutionOptions, TooCostly> {
    let Some(value) = body.get("execution").filter(|value| !value.is_null()) else {
        return Ok(ExecutionOptions::default());
    };
    let mut value = value.clone();
    leave_out_nulls(&mut value);
    let wrong = EXECUTION_SCHEMA.violations("/execution", &value)?;
    if wrong.is_empty() {
        integral_numbers(&mut value);
        match ExecutionOptions::deserialize(value) {
            Ok(execution) => return Ok(execution),
            Err(error) => found.push(Violation {
                path: "/execution".to_owned(),
                message: error.to_string(),
            }),
        }
    }
    found.extend(wrong);
    Ok(ExecutionOptions::default())
}

/// Options that are `null` count as absent, too, and so do the members of those that are objects. A name
/// that is no option stays, and is refused; so does a label, whose name the client chooses.
fn leave_out_nulls(execution: &mut Value) {
    let Some(options) = execution.as_object_mut() else {
        return;
    };
    options.retain(|name, value| !value.is_null() || !OPTIONS.contains(name.as_str()));
    for name in ["requirements", "unique", "concurrency"] {
        if let Some(members) = options.get_mut(name).and_then(Value::as_object_mut) {
            members.retain(|_, value| !value.is_null());
        }
    }
}

/// Turns `3.0` into `3`: JSON Schema accepts `3.0` as an integer, serde does not.
pub fn integral_numbers(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            // Above 2^53 a float is not exact.
            let whole = number
                .as_f64()
                .filter(|float| float.fract() == 0.0 && float.abs() <= 9_007_199_254_740_992.0);
            if let Some(float) = whole {
                *number = (float as i64).into();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(integral_numbers),
        Value::Object(members) => members.values_mut().for_each(integral_numbers),
        _ => {}
    }
}

/// The body without our fields, put together from the client's own text, so that numbers do not
/// change.
fn parameters(members: &[(String, &RawValue)]) -> Result<Box<RawValue>, serde_json::Error> {
    let mut text = String::from("{");
    for (name, value) in members.iter().filter(|(name, _)| !is_reserved(name)) {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&serde_json::to_string(name)?);
        text.push(':');
        text.push_str(value.get());
    }
    text.push('}');
    RawValue::from_string(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(body: &str) -> Result<StartBody, Value> {
        let schema =
            json!({"type": "object", "properties": {"steps": {"type": "integer", "minimum": 0}}});
        let schema = Schema::compile(&schema).unwrap();
        StartBody::read(body.as_bytes(), Some(&schema)).map_err(|error| {
            serde_json::to_value(crate::error::ApiError::from(error).problem()).unwrap()
        })
    }

    #[test]
    fn what_is_ours_is_taken_out_and_the_rest_is_untouched() {
        let body = r#"{"task_id":"t-1","big":12345678901234567890123,"f": 29.0,"execution":{"requirements":{"gpu":true}}}"#;
        let read = read(body).unwrap();
        assert_eq!(read.task_id.unwrap().as_str(), "t-1");
        assert_eq!(read.execution.requirements.queue().as_str(), "gpu");
        assert_eq!(
            read.parameters.get(),
            r#"{"big":12345678901234567890123,"f":29.0}"#
        );
        let whole = self::read(r#"{"execution":{"max_attempts":4.0,"retry_delay":1.5}}"#).unwrap();
        assert_eq!(
            (whole.execution.max_attempts, whole.execution.retry_delay),
            (Some(4), Some(1.5))
        );
        let nulls = self::read(r#"{"task_id":null,"execution":null}"#).unwrap();
        assert!(nulls.task_id.is_none() && nulls.execution.is_default());
        assert_eq!(nulls.parameters.get(), "{}");
    }

    #[test]
    fn every_violation_is_told_with_its_place() {
        let error = read(
            r#"{"task_id":"a.b","steps":-1,"execution":{"requirements":{"cores":0},"nope":1}}"#,
        )
        .unwrap_err();
        assert_eq!(error["status_code"], 422);
        let paths: Vec<&str> = error["violations"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| v["path"].as_str().unwrap())
            .collect();
        for path in [
            "/task_id",
            "/steps",
            "/execution",
            "/execution/requirements/cores",
        ] {
            assert!(paths.contains(&path), "{path} in {paths:?}");
        }
    }

    #[test]
    fn an_option_that_is_null_counts_as_absent() {
        for name in OPTIONS.iter() {
            let body = format!(r#"{{"execution":{{"{name}":null}}}}"#);
            assert!(read(&body).unwrap().execution.is_default(), "{name}");
        }
        let members = r#"{"execution":{"requirements":{"gpu":null},"unique":{"key":"a","on_conflict":null}}}"#;
        assert!(read(members).is_ok());

        for bad in [
            r#"{"nope":null}"#,
            r#"{"labels":{"a":null}}"#,
            r#"{"unique":{"key":null}}"#,
        ] {
            assert!(read(&format!(r#"{{"execution":{bad}}}"#)).is_err(), "{bad}");
        }
    }

    #[test]
    fn execution_has_bounds() {
        for bad in [
            r#"{"timeout_seconds":0}"#,
            r#"{"timeout_seconds":"1"}"#,
            r#"{"max_attempts":0}"#,
            r#"{"max_attempts":1001}"#,
            r#"{"retry_delay":-1}"#,
            r#"{"requirements":{"gpu":"yes"}}"#,
            r#"{"requirements":{"memory_gb":99999999999}}"#,
            r#"{"labels":{"a":1}}"#,
            r#"{"labels":{"a b":"x"}}"#,
            r#"{"labels":["a"]}"#,
            "7",
        ] {
            assert!(read(&format!(r#"{{"execution":{bad}}}"#)).is_err(), "{bad}");
        }
        assert!(
            read(r#"{"execution":{"timeout_seconds":1.5,"max_attempts":2,"retry_delay":0}}"#)
                .is_ok()
        );
    }

    #[test]
    fn what_is_no_object_is_400() {
        for body in ["", "{", "{\"a\":1,}", "nul", "\u{0}", "{\"a\":1,\"a\":2}"] {
            assert_eq!(read(body).unwrap_err()["code"], "bad_json", "{body}");
        }
        for body in ["null", "[]", "7", "\"x\""] {
            assert_eq!(read(body).unwrap_err()["code"], "invalid_body", "{body}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(
            read(&format!("{{\"a\":{deep}}}")).unwrap_err()["code"],
            "bad_json"
        );
    }
}

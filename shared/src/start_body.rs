//! The body of `POST …/start`, on a backend and on a worker: reserved keys apart, the rest checked against the schema.

use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::id::OperationId;
use crate::operation::Execution;
use crate::problem::Problem;

/// How many violations of a schema are listed.
const MAX_VIOLATIONS: usize = 20;

/// A start body taken apart.
#[derive(Debug)]
pub struct StartBody {
    /// The id the caller wants the operation to have.
    pub task_id: Option<OperationId>,
    /// How to run it.
    pub execution: Execution,
    /// Everything else, with its own characters: the domain's parameters.
    pub parameters: Box<RawValue>,
}

impl StartBody {
    /// Takes a body apart. An empty one is an empty object.
    ///
    /// # Errors
    /// The problem to answer with: 400 for what is no JSON object, 422 for reserved keys with bad values.
    pub fn parse(body: &[u8]) -> Result<Self, Box<Problem>> {
        let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
        let Keys(keys) = serde_json::from_slice(body).map_err(|error| {
            Box::new(Problem::new(400, "invalid_json", format!("the body must be one JSON object: {error}")))
        })?;
        let mut parsed = Self { task_id: None, execution: Execution::default(), parameters: RawValue::NULL.to_owned() };
        let mut rest = String::from("{");
        for (key, value) in keys {
            match key.as_str() {
                "task_id" => {
                    parsed.task_id = serde_json::from_str::<Option<OperationId>>(value.get())
                        .map_err(|error| invalid("task_id", &error.to_string()))?;
                }
                // Serde reads a struct from an array too; nobody means that.
                "execution" if value.get().starts_with('[') => return Err(invalid("execution", "must be an object")),
                "execution" => {
                    let execution: Option<Execution> =
                        serde_json::from_str(value.get()).map_err(|error| invalid("execution", &error.to_string()))?;
                    parsed.execution = execution.unwrap_or_default();
                }
                _ => {
                    if rest.len() > 1 {
                        rest.push(',');
                    }
                    rest.push_str(&Value::String(key).to_string());
                    rest.push(':');
                    rest.push_str(value.get());
                }
            }
        }
        rest.push('}');
        parsed.execution.check().map_err(|(path, message)| invalid(&format!("execution/{path}"), &message))?;
        parsed.parameters = RawValue::from_string(rest).map_err(|error| invalid("", &error.to_string()))?;
        Ok(parsed)
    }

    /// Checks the parameters.
    ///
    /// # Errors
    /// 422 with the path of each violation.
    pub fn check(&self, schema: &Schema) -> Result<(), Box<Problem>> {
        let value: Value = serde_json::from_str(self.parameters.get())
            .map_err(|error| Box::new(Problem::new(400, "invalid_json", format!("the body is no JSON: {error}"))))?;
        let violations = schema.violations(&value);
        if violations.is_empty() { Ok(()) } else { Err(unprocessable(violations)) }
    }
}

impl Execution {
    /// Checks what the types alone do not say.
    ///
    /// # Errors
    /// The key, and what is wrong with its value.
    pub fn check(&self) -> Result<(), (&'static str, String)> {
        let outside = |low: f64, high: f64, value: f64| !(low..=high).contains(&value);
        match self {
            Self { timeout_seconds: Some(s), .. } if outside(0.001, 31_536_000.0, *s) => {
                Err(("timeout_seconds", format!("{s} is not between 0.001 and 31536000")))
            }
            Self { max_attempts: Some(n), .. } if !(1..=1000).contains(n) => {
                Err(("max_attempts", format!("{n} is not between 1 and 1000")))
            }
            Self { retry_delay: Some(s), .. } if outside(0.0, 3600.0, *s) => {
                Err(("retry_delay", format!("{s} is not between 0 and 3600 seconds")))
            }
            Self { requirements, .. } if requirements.cores == Some(0) || requirements.memory_gb == Some(0) => {
                Err(("requirements", "cores and memory_gb are at least 1".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

fn invalid(path: &str, message: &str) -> Box<Problem> {
    unprocessable(vec![Violation { path: format!("/{path}"), message: message.to_owned() }])
}

fn unprocessable(violations: Vec<Violation>) -> Box<Problem> {
    let first = violations.first().map_or_else(String::new, |v| {
        format!("{}: {}", if v.path.is_empty() { "the body" } else { &v.path }, v.message)
    });
    let list: Vec<Value> =
        violations.into_iter().map(|v| serde_json::json!({"path": v.path, "message": v.message})).collect();
    Box::new(
        Problem::new(422, "invalid_parameters", format!("the parameters do not fit; {first}")).with("violations", list),
    )
}

/// One way in which parameters do not fit their schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// JSON pointer to the value.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

/// A JSON Schema ready to check with.
#[derive(Debug, Clone)]
pub struct Schema(std::sync::Arc<jsonschema::Validator>);

impl Schema {
    /// Prepares a schema (draft 2020-12).
    ///
    /// # Errors
    /// What is wrong with the schema itself.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        jsonschema::draft202012::new(schema)
            .map(|validator| Self(std::sync::Arc::new(validator)))
            .map_err(|error| error.to_string())
    }

    /// How `value` does not fit; empty when it does.
    pub fn violations(&self, value: &Value) -> Vec<Violation> {
        self.0
            .iter_errors(value)
            .take(MAX_VIOLATIONS)
            .map(|error| Violation { path: error.instance_path().to_string(), message: error.to_string() })
            .collect()
    }
}

/// The keys of an object in their order, the values as text.
struct Keys(Vec<(String, Box<RawValue>)>);

impl<'de> serde::Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Keys;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys: Vec<(String, Box<RawValue>)> = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    if keys.iter().any(|(known, _)| *known == key) {
                        return Err(serde::de::Error::custom(format!("key {key:?} is there twice")));
                    }
                    keys.push((key, value));
                }
                Ok(Keys(keys))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reserved_keys_are_taken_out_and_the_rest_keeps_its_characters() {
        let body = StartBody::parse(
            br#"{"source_file":"a.csv", "x": 29.0, "task_id":"t-1","execution":{"max_attempts":2,"requirements":{"gpu":true}}}"#,
        )
        .unwrap();
        assert_eq!(body.task_id.unwrap().as_str(), "t-1");
        assert_eq!(body.execution.requirements.queue().as_str(), "gpu");
        assert_eq!(body.parameters.get(), r#"{"source_file":"a.csv","x":29.0}"#);
        assert_eq!(StartBody::parse(b" ").unwrap().parameters.get(), "{}");
        assert!(StartBody::parse(br#"{"task_id":null,"execution":null}"#).unwrap().task_id.is_none());
    }

    #[test]
    fn what_is_no_object_is_400_and_bad_reserved_values_are_422() {
        let status = |body: &str| StartBody::parse(body.as_bytes()).unwrap_err().status_code;
        for body in ["[]", "null", "1", "{", "{\"a\":1}x", "{\"a\":1,\"a\":2}", "\u{0}"] {
            assert_eq!(status(body), 400, "{body}");
        }
        for body in [
            r#"{"task_id":"a.b"}"#,
            r#"{"task_id":7}"#,
            r#"{"execution":[]}"#,
            r#"{"execution":{"gpu":true}}"#,
            r#"{"execution":{"max_attempts":0}}"#,
            r#"{"execution":{"timeout_seconds":-1}}"#,
            r#"{"execution":{"timeout_seconds":1e999}}"#,
            r#"{"execution":{"requirements":{"cores":0}}}"#,
        ] {
            assert_eq!(status(body), 422, "{body}");
        }
    }

    #[test]
    fn violations_name_their_path() {
        let schema = Schema::compile(&json!({
            "type": "object", "properties": {"steps": {"type": "integer", "minimum": 0}}, "additionalProperties": false,
        }))
        .unwrap();
        let body = StartBody::parse(br#"{"steps":-1,"stepz":1}"#).unwrap();
        let problem = body.check(&schema).unwrap_err();
        assert_eq!(problem.status_code, 422);
        let violations = problem.fields["violations"].as_array().unwrap();
        assert_eq!(violations.len(), 2);
        assert!(violations.iter().any(|v| v["path"] == "/steps"));
        assert!(StartBody::parse(br#"{"steps":1}"#).unwrap().check(&schema).is_ok());
        assert!(Schema::compile(&json!({"type": "nonsense"})).is_err());
    }
}

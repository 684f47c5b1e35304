//! A start body, taken apart and checked: what is ours (`task_id`, `execution`) and what is the domain's.

use std::fmt;
use std::sync::LazyLock;

use jsonschema::Validator;
use ktrdr_shared::id::OperationId;
use ktrdr_shared::operation::Execution;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::catalogue::{Kind, Violation, violations};
use crate::error::{ApiError, Code};

/// Namespace of the ids made from idempotency keys.
const IDEMPOTENCY: uuid::Uuid = uuid::uuid!("6f4e0c5a-5f0b-4a0e-9b8e-3d1c1b0f7a52");

/// Longest idempotency key.
const MAX_KEY: usize = 255;

#[expect(clippy::expect_used, reason = "a constant schema; the unit tests compile it")]
static EXECUTION_SCHEMA: LazyLock<Validator> = LazyLock::new(|| {
    let schema = schemars::schema_for!(Execution).to_value();
    jsonschema::validator_for(&schema).expect("the schema of `execution` compiles")
});

/// A start body that is fine.
#[derive(Debug)]
pub struct Submission {
    /// The id the client chose.
    pub task_id: Option<OperationId>,
    /// How to run it.
    pub execution: Execution,
    /// The domain's own parameters, as the client wrote them.
    pub parameters: Box<RawValue>,
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
                while let Some((name, value)) = map.next_entry::<String, &'de RawValue>()? {
                    // The last of several equal names counts, as everywhere else.
                    members.retain(|(known, _)| *known != name);
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Visit)
    }
}

impl Submission {
    /// Takes a body apart and checks all of it against what `kind` asks for.
    ///
    /// # Errors
    /// 400 for what is no JSON object, 422 with every violation for what does not fit.
    pub fn read(body: &[u8], kind: &Kind) -> Result<Self, ApiError> {
        // Parsed as a whole first: it says where the JSON breaks, and bounds the depth.
        let whole: Value = serde_json::from_slice(body)
            .map_err(|error| ApiError::new(Code::BadJson, format!("The body is not valid JSON: {error}")))?;
        if !whole.is_object() {
            return Err(ApiError::new(Code::InvalidBody, "The body must be a JSON object"));
        }
        let Members(members) = serde_json::from_slice(body)
            .map_err(|error| ApiError::new(Code::BadJson, format!("The body is not valid JSON: {error}")))?;
        let mut found = Vec::new();
        let task_id = read_task_id(&whole, &mut found);
        let execution = read_execution(&whole, &mut found);
        let parameters = parameters(&members)?;
        let value: Value = serde_json::from_str(parameters.get()).map_err(ApiError::internal)?;
        found.extend(kind.violations(&value));
        if found.is_empty() { Ok(Self { task_id, execution, parameters }) } else { Err(refused(&found)) }
    }
}

fn refused(found: &[Violation]) -> ApiError {
    let list: Vec<String> = found
        .iter()
        .map(|violation| match violation.path.as_str() {
            "" => violation.message.clone(),
            path => format!("{path}: {}", violation.message),
        })
        .collect();
    let text = format!("The request does not match what this operation asks for: {}", list.join("; "));
    let list = serde_json::to_value(found).unwrap_or_default();
    ApiError::new(Code::InvalidRequest, text).with("violations", list)
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
    found.push(Violation { path: "/task_id".to_owned(), message });
    None
}

fn read_execution(body: &Value, found: &mut Vec<Violation>) -> Execution {
    let Some(value) = body.get("execution").filter(|value| !value.is_null()) else {
        return Execution::default();
    };
    let wrong = violations(&EXECUTION_SCHEMA, "/execution", value);
    if wrong.is_empty() {
        match Execution::deserialize(value) {
            Ok(execution) => return execution,
            Err(error) => found.push(Violation { path: "/execution".to_owned(), message: error.to_string() }),
        }
    }
    found.extend(wrong);
    Execution::default()
}

/// The body without what is ours, spliced from the client's own text: numbers keep their form.
fn parameters(members: &[(String, &RawValue)]) -> Result<Box<RawValue>, ApiError> {
    let mut text = String::from("{");
    for (name, value) in members.iter().filter(|(name, _)| name != "task_id" && name != "execution") {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&serde_json::to_string(name).map_err(ApiError::internal)?);
        text.push(':');
        text.push_str(value.get());
    }
    text.push('}');
    RawValue::from_string(text).map_err(ApiError::internal)
}

/// The operation id behind an `Idempotency-Key`: the same for the same key and domain, at every backend.
///
/// # Errors
/// 400 when the key cannot be one.
pub fn id_from_key(domain: &str, key: &[u8]) -> Result<OperationId, ApiError> {
    if key.is_empty() || key.len() > MAX_KEY || !key.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ') {
        let text = format!("The header Idempotency-Key must be 1 to {MAX_KEY} printable ASCII characters");
        return Err(ApiError::new(Code::InvalidHeader, text));
    }
    let name = [domain.as_bytes(), b"\0", key].concat();
    OperationId::new(uuid::Uuid::new_v5(&IDEMPOTENCY, &name).simple().to_string()).map_err(ApiError::internal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kind() -> Kind {
        Kind::new(
            serde_json::from_value(json!({
                "worker_type": "dummy", "domain": "dummy", "description": "", "version": "1", "result_schema": {},
                "request_schema": {"type": "object", "properties": {"steps": {"type": "integer", "minimum": 0}}}
            }))
            .unwrap(),
        )
    }

    fn read(body: &str) -> Result<Submission, Value> {
        Submission::read(body.as_bytes(), &kind()).map_err(|error| error.body())
    }

    #[test]
    fn what_is_ours_is_taken_out_and_the_rest_is_untouched() {
        let body =
            r#"{"task_id":"t-1","big":12345678901234567890123,"f": 29.0,"execution":{"requirements":{"gpu":true}}}"#;
        let read = read(body).unwrap();
        assert_eq!(read.task_id.unwrap().as_str(), "t-1");
        assert_eq!(read.execution.requirements.queue().as_str(), "gpu");
        assert_eq!(read.parameters.get(), r#"{"big":12345678901234567890123,"f":29.0}"#);
        let nulls = self::read(r#"{"task_id":null,"execution":null}"#).unwrap();
        assert!(nulls.task_id.is_none() && nulls.execution.is_default());
        assert_eq!(nulls.parameters.get(), "{}");
    }

    #[test]
    fn every_violation_is_told_with_its_place() {
        let error =
            read(r#"{"task_id":"a.b","steps":-1,"execution":{"requirements":{"cores":0},"nope":1}}"#).unwrap_err();
        assert_eq!(error["status_code"], 422);
        let paths: Vec<&str> =
            error["violations"].as_array().unwrap().iter().map(|v| v["path"].as_str().unwrap()).collect();
        for path in ["/task_id", "/steps", "/execution", "/execution/requirements/cores"] {
            assert!(paths.contains(&path), "{path} in {paths:?}");
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
            "7",
        ] {
            assert!(read(&format!(r#"{{"execution":{bad}}}"#)).is_err(), "{bad}");
        }
        assert!(read(r#"{"execution":{"timeout_seconds":1.5,"max_attempts":2,"retry_delay":0}}"#).is_ok());
    }

    #[test]
    fn what_is_no_object_is_400() {
        for body in ["", "{", "{\"a\":1,}", "nul", "\u{0}"] {
            assert_eq!(read(body).unwrap_err()["code"], "bad_json", "{body}");
        }
        for body in ["null", "[]", "7", "\"x\""] {
            assert_eq!(read(body).unwrap_err()["code"], "invalid_body", "{body}");
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert_eq!(read(&format!("{{\"a\":{deep}}}")).unwrap_err()["code"], "bad_json");
    }

    #[test]
    fn a_key_is_always_the_same_id() {
        let id = |domain, key: &str| id_from_key(domain, key.as_bytes()).map(|id| id.to_string());
        assert_eq!(id("dummy", "k").unwrap(), id("dummy", "k").unwrap());
        assert_ne!(id("dummy", "k").unwrap(), id("training", "k").unwrap());
        for bad in ["", "ü", "\n", &"x".repeat(256)] {
            assert!(id("dummy", bad).is_err(), "{bad:?}");
        }
    }
}

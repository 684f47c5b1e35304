//! Checks a value against a JSON Schema. The violations tell a person where to correct the value.
//!
//! The problem: for a choice (`oneOf`, `anyOf`), a validator lists the errors of all alternatives
//! or says only that none matches. A person who mistyped one member learns nothing from either.
//!
//! How it is solved: the violations are those of the alternative that comes closest, or the list of
//! allowed values when the tag itself is wrong.
//!
//! Rejected: reading the body into the engine's own type, because the backend does not have it, and
//! because serde stops at the first mistake.

use std::mem::discriminant;
use std::sync::Arc;

use jsonschema::error::ValidationErrorKind as ErrorKind;
use jsonschema::{ValidationError, Validator};
use ktrdr_bus::telemetry::beginning;
use ktrdr_protocol::rest::Violation;
use serde_json::Value;

/// Most violations in one answer.
const MAX_VIOLATIONS: usize = 50;

/// Longest message of one violation, in characters. A message may quote the value.
const MAX_MESSAGE: usize = 500;

/// A compiled JSON Schema. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Schema(Arc<Validator>);

impl Schema {
    /// Compiles a schema.
    ///
    /// # Errors
    /// Says what is wrong with the schema itself.
    pub fn compile(schema: &Value) -> Result<Self, String> {
        jsonschema::validator_for(schema)
            .map(|validator| Self(Arc::new(validator)))
            .map_err(|error| error.to_string())
    }

    /// Every place where `value`, found at `prefix` of the body, does not match.
    pub fn violations(&self, prefix: &str, value: &Value) -> Vec<Violation> {
        // Nearly every value matches, and that check is much cheaper than collecting errors.
        if self.0.is_valid(value) {
            return Vec::new();
        }
        let mut found = Vec::new();
        for error in self.0.iter_errors(value).take(MAX_VIOLATIONS) {
            add_error(prefix, &error, &mut found);
        }
        found.truncate(MAX_VIOLATIONS);
        found
    }
}

/// Adds an error to `found`. For a choice without a matching alternative it adds the allowed
/// values, or the errors of the alternative that comes closest.
fn add_error(prefix: &str, error: &ValidationError<'_>, found: &mut Vec<Violation>) {
    if found.len() >= MAX_VIOLATIONS {
        return;
    }
    let alternatives = alternatives(error);
    if let Some((path, message)) = choices(error.instance_path().as_str(), &alternatives) {
        return found.push(Violation {
            path: format!("{prefix}{path}"),
            message: beginning(message, MAX_MESSAGE),
        });
    }
    let distance =
        |errors: &Vec<&ValidationError<'_>>| distance(error.instance_path().as_str(), errors);
    match alternatives.iter().min_by_key(|errors| distance(errors)) {
        Some(closest) => closest
            .iter()
            .for_each(|error| add_error(prefix, error, found)),
        None => found.push(Violation {
            path: format!("{prefix}{}", error.instance_path()),
            message: beginning(error.to_string(), MAX_MESSAGE),
        }),
    }
}

/// The errors of each alternative of a choice, choices among its alternatives included. Empty when
/// the error is not about a choice.
fn alternatives<'e, 'v>(error: &'e ValidationError<'v>) -> Vec<Vec<&'e ValidationError<'v>>> {
    let (ErrorKind::AnyOf { context } | ErrorKind::OneOfNotValid { context }) = error.kind() else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for errors in context.iter().filter(|errors| !errors.is_empty()) {
        let nested = match errors.as_slice() {
            [only] if only.instance_path() == error.instance_path() => alternatives(only),
            _ => Vec::new(),
        };
        if nested.is_empty() {
            all.push(errors.iter().collect());
        } else {
            all.extend(nested);
        }
    }
    all
}

/// For a choice among fixed values, or a tagged choice whose tag matches no alternative: the path
/// of the value or tag, and a message with the allowed values. Alternatives of another JSON type
/// are ignored.
fn choices(path: &str, alternatives: &[Vec<&ValidationError<'_>>]) -> Option<(String, String)> {
    let of_another_type = |error: &ValidationError<'_>| match error.kind() {
        ErrorKind::Type { .. } => true,
        ErrorKind::Constant { .. } | ErrorKind::Enum { .. } => {
            let same_type = |value: &Value| discriminant(value) == discriminant(error.instance());
            !accepted(error).is_some_and(|values| values.iter().any(same_type))
        }
        _ => false,
    };
    let meant = |errors: &&Vec<&ValidationError<'_>>| {
        !errors
            .iter()
            .any(|error| error.instance_path().as_str() == path && of_another_type(error))
    };
    let (mut known, mut place) = (Vec::new(), None::<&ValidationError<'_>>);
    for errors in alternatives.iter().filter(meant) {
        let (error, values) = errors
            .iter()
            .find_map(|error| Some((*error, accepted(error)?)))?;
        if place.is_some_and(|place| place.instance_path() != error.instance_path()) {
            return None;
        }
        place = Some(error);
        known.extend(values.iter().map(Value::to_string));
    }
    let place = place?;
    let last = known.pop()?;
    let known = if known.is_empty() {
        last
    } else {
        format!("{} or {last}", known.join(", "))
    };
    Some((
        place.instance_path().to_string(),
        format!("{} is not one of {known}", place.instance()),
    ))
}

/// The values that would have been accepted, where only some are.
fn accepted<'e>(error: &'e ValidationError<'_>) -> Option<&'e [Value]> {
    match error.kind() {
        ErrorKind::Constant { expected_value } => Some(std::slice::from_ref(&**expected_value)),
        ErrorKind::Enum { options } => options.as_array().map(Vec::as_slice),
        _ => None,
    }
}

/// How far the value at `path` is from an alternative: one of another type is not meant at all, one
/// with another tag (`"op"`, `"type"`) hardly; between the rest the number of errors decides.
fn distance(path: &str, errors: &[&ValidationError<'_>]) -> usize {
    let weight = |error: &&ValidationError<'_>| match error.kind() {
        ErrorKind::Type { .. } if error.instance_path().as_str() == path => 10_000,
        ErrorKind::Constant { .. } => 100,
        ErrorKind::Enum { .. } => 10,
        _ => 1,
    };
    errors.iter().map(weight).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_choice_that_nothing_fits_the_closest_alternative_is_told() {
        let schema = Schema::compile(&json!({"items": {"anyOf": [
            {"enum": ["clean", "transform"]},
            {"type": "object", "properties": {"op": {"const": "clean"}, "trim": {"type": "boolean"}},
             "required": ["op"], "additionalProperties": false},
            {"type": "object", "properties": {"op": {"const": "transform"}}, "required": ["op"], "additionalProperties": false},
        ]}}))
        .unwrap();
        let told = |value: Value| {
            let found = schema.violations("", &json!([value]));
            found
                .into_iter()
                .map(|v| format!("{} {}", v.path, v.message))
                .collect::<Vec<_>>()
                .join("; ")
        };
        assert!(told(json!({"op": "clean", "trimm": true})).contains("'trimm'"));
        assert!(told(json!({"op": "clean", "trim": 7})).starts_with("/0/trim 7 is not of type"));
        assert_eq!(
            told(json!("wash")),
            r#"/0 "wash" is not one of "clean" or "transform""#
        );
        assert_eq!(
            told(json!({"op": "wash"})),
            r#"/0/op "wash" is not one of "clean" or "transform""#
        );
        assert_eq!(told(json!("clean")), "");
    }

    /// As schemas are made of enums whose variants have descriptions of their own.
    #[test]
    fn all_that_could_be_chosen_is_told() {
        let unit = |name: &str| json!({"type": "string", "const": name});
        let kind = |name: &str| json!({"type": "object", "properties": {"type": {"const": name}}, "required": ["type"]});
        let schema = Schema::compile(&json!({"properties": {
            "timeframe": {"oneOf": [unit("1m"), unit("1h"), unit("1d")]},
            "strategy": {"oneOf": [kind("sma"), kind("rsi")]},
            "steps": {"items": {"anyOf": [{"oneOf": [unit("a"), unit("b")]}, kind("a")]}},
        }}))
        .unwrap();
        let told = |value: Value| {
            let found = schema.violations("", &value);
            found
                .into_iter()
                .map(|v| format!("{} {}", v.path, v.message))
                .collect::<Vec<_>>()
                .join("; ")
        };
        assert_eq!(
            told(json!({"timeframe": "2d"})),
            r#"/timeframe "2d" is not one of "1m", "1h" or "1d""#
        );
        assert_eq!(
            told(json!({"strategy": {"type": "x"}})),
            r#"/strategy/type "x" is not one of "sma" or "rsi""#
        );
        assert_eq!(
            told(json!({"steps": ["a", "x"]})),
            r#"/steps/1 "x" is not one of "a" or "b""#
        );
        assert_eq!(
            told(json!({"steps": [{"type": "x"}]})),
            r#"/steps/0/type "x" is not one of "a""#
        );
        assert!(told(json!({"strategy": {}})).contains("required"));
    }
}

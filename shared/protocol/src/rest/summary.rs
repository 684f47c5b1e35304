//! What an operation is about, in one line, for lists.
//!
//! A worker type says it in its request schema: `"x-ktrdr-summary": ["symbol", "strategy.type"]` names
//! parameters, and their values are joined. For other types, the first few parameters speak, in the
//! order of the schema.

use std::borrow::Cow;

use serde_json::Value;
use serde_json::value::RawValue;

use super::shortened::parameters;

/// The keyword of a request schema that names the parameters of the summary.
pub const KEYWORD: &str = "x-ktrdr-summary";

/// Longest summary, in characters.
pub const MAX_SUMMARY: usize = 160;

/// Longest value in a summary, in characters.
const MAX_VALUE: usize = 64;

/// Parameters that a schema may name. More are left out.
const MAX_NAMED: usize = 8;

/// Properties of a schema that are looked at.
const MAX_PROPERTIES: usize = 64;

/// Parameters that speak when the schema names none.
const FIRST: usize = 3;

/// Values of a list that are shown.
const MAX_ITEMS: usize = 5;

/// How deep a path leads.
const MAX_DEPTH: usize = 4;

/// Between two values.
const SEPARATOR: &str = " · ";

/// How the operations of one worker type are summarised.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The parameters that the schema names, as paths.
    named: Vec<Vec<String>>,
    /// The parameters of the schema, in its order.
    properties: Vec<String>,
}

impl Summary {
    /// As this request schema says. What it says wrongly is left out.
    pub fn of_schema(schema: &Value) -> Self {
        let named = schema.get(KEYWORD).and_then(Value::as_array);
        let path = |path: &Value| {
            let path: Vec<String> = path.as_str()?.split('.').map(str::to_owned).collect();
            (path.len() <= MAX_DEPTH).then_some(path)
        };
        let properties = schema.get("properties").and_then(Value::as_object);
        let names = properties
            .into_iter()
            .flat_map(|properties| properties.keys());
        Self {
            named: named
                .into_iter()
                .flatten()
                .filter_map(path)
                .take(MAX_NAMED)
                .collect(),
            properties: names.take(MAX_PROPERTIES).cloned().collect(),
        }
    }

    /// The summary of an operation with these parameters; `None` when they say nothing.
    pub fn of(&self, given: &RawValue) -> Option<String> {
        let given = parameters(given);
        let mut parts: Vec<String> = self
            .named
            .iter()
            .filter_map(|path| shown(follow(&given, path)?.get()))
            .collect();
        if parts.is_empty() {
            parts = self.first(&given);
        }
        if parts.is_empty() {
            return None;
        }
        Some(cut(&parts.join(SEPARATOR), MAX_SUMMARY))
    }

    /// The first parameters that have one value each, as `name=value`.
    fn first(&self, given: &[(Cow<'_, str>, &RawValue)]) -> Vec<String> {
        let known = self.properties.iter();
        let of_schema = known.filter_map(|name| given.iter().find(|(own, _)| own == name));
        let others = given
            .iter()
            .filter(|(name, _)| !self.properties.iter().any(|known| name == known));
        let scalars = of_schema.chain(others).filter_map(|(name, value)| {
            let value = value.get();
            let shown = shown(value).filter(|_| !value.starts_with('['))?;
            Some(format!("{}={shown}", cut(name, MAX_VALUE)))
        });
        scalars.take(FIRST).collect()
    }
}

/// The value at a path.
fn follow<'a>(given: &[(Cow<'a, str>, &'a RawValue)], path: &[String]) -> Option<&'a RawValue> {
    let (first, rest) = path.split_first()?;
    let (_, value) = given.iter().find(|(name, _)| name == first)?;
    match rest {
        [] => Some(value),
        rest if value.get().starts_with('{') => follow(&parameters(value), rest),
        _ => None,
    }
}

/// A value as people read it: texts, numbers, booleans, and short lists of these. Of an object in a
/// list, its `type`, `op` or `name` speaks, or its only key.
fn shown(json: &str) -> Option<String> {
    match json.as_bytes().first()? {
        b'"' => {
            let text: Cow<'_, str> = serde_json::from_str::<String>(json).ok()?.into();
            let text = text.trim();
            (!text.is_empty()).then(|| cut(text, MAX_VALUE))
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(json).ok()?;
            let texts = items.iter().filter_map(|one| item(one.get()));
            let mut texts: Vec<String> = texts.take(MAX_ITEMS).collect();
            if items.len() > texts.len() && !texts.is_empty() {
                texts.push("…".to_owned());
            }
            (!texts.is_empty()).then(|| cut(&texts.join(", "), MAX_VALUE))
        }
        b'{' | b'n' => None,
        _ => Some(cut(json, MAX_VALUE)),
    }
}

fn item(json: &str) -> Option<String> {
    match json.as_bytes().first()? {
        b'[' => None,
        b'{' => match serde_json::from_str(json).ok()? {
            Value::Object(map) => match ["type", "op", "name"].map(|key| map.get(key)) {
                [Some(Value::String(name)), ..]
                | [_, Some(Value::String(name)), _]
                | [.., Some(Value::String(name))] => Some(name.clone()),
                _ => map.keys().next().filter(|_| map.len() == 1).cloned(),
            },
            _ => None,
        },
        _ => shown(json),
    }
}

/// A text in one line, with at most so many characters.
fn cut(text: &str, most: usize) -> String {
    let in_line = |c: char| if c.is_control() { ' ' } else { c };
    match text.char_indices().nth(most) {
        None => text.chars().map(in_line).collect(),
        Some(_) => {
            let kept = text.chars().take(most - 1).map(in_line);
            kept.chain(['…']).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn summary(schema: &Value, parameters: &str) -> Option<String> {
        let parameters = RawValue::from_string(parameters.to_owned()).unwrap();
        Summary::of_schema(schema).of(&parameters)
    }

    #[test]
    fn named_parameters_speak_in_the_order_of_the_schema() {
        let schema =
            json!({"x-ktrdr-summary": ["symbol", "strategy.type", "operations", "missing"]});
        let given = r#"{"operations": ["clean", {"op": "sort", "by": 1}, {"dedupe": {}}, [1]],
            "strategy": {"fast": 1, "type": "sma_cross"}, "symbol": "GOOG", "timeframe": "1d"}"#;

        assert_eq!(
            summary(&schema, given).unwrap(),
            "GOOG · sma_cross · clean, sort, dedupe, …"
        );
    }

    #[test]
    fn without_names_the_first_scalar_parameters_speak() {
        let schema = json!({"properties": {"a": {}, "b": {}, "c": {}, "d": {}}});

        assert_eq!(
            summary(&schema, r#"{"x":9,"d":true,"c":1.50,"b":[1],"a":null}"#).unwrap(),
            "c=1.50 · d=true · x=9"
        );
        assert_eq!(summary(&json!(true), r#"{"n":"a b"}"#).unwrap(), "n=a b");
        for nothing in ["{}", r#"{"a":{}}"#, r#"{"a":""}"#] {
            assert_eq!(summary(&schema, nothing), None, "{nothing}");
        }
    }

    #[test]
    fn summaries_are_one_short_line_whatever_is_in_them() {
        let long = "ü\n".repeat(100);
        let names: Vec<String> = (0..50).map(|n| format!("n{n}")).collect();
        let given: serde_json::Map<String, Value> = names
            .iter()
            .map(|name| (name.clone(), json!(long)))
            .collect();
        let schema = json!({"x-ktrdr-summary": names});

        let text = summary(&schema, &json!(given).to_string()).unwrap();

        assert_eq!(text.chars().count(), MAX_SUMMARY);
        assert!(text.ends_with('…') && !text.contains('\n'), "{text}");
    }

    #[test]
    fn a_schema_that_says_it_wrongly_is_read_as_far_as_it_makes_sense() {
        for wrong in [json!("a"), json!([1, null, "a.b.c.d.e"]), json!({})] {
            let schema = json!({"x-ktrdr-summary": wrong, "properties": []});
            assert_eq!(summary(&schema, r#"{"a":1}"#).unwrap(), "a=1");
        }
    }
}

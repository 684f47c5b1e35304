//! Parameters as a list shows them: without what is large.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// Parameters of at most this size, in bytes, are shown whole.
pub const MAX_PARAMETERS: usize = 1024;

/// Values of at most this size, in bytes, are shown of larger parameters.
const MAX_VALUE: usize = 256;

/// Bytes of parameters that are looked at. What follows is left out.
const MAX_LOOK: usize = 64 * 1024;

/// The parameters of an operation, in their order, up to the first that ends beyond 64 KiB.
pub fn parameters(parameters: &RawValue) -> Vec<(Cow<'_, str>, &RawValue)> {
    let text = parameters.get();
    let mut ends = (0..=MAX_LOOK.min(text.len())).rev();
    let end = ends.find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    let mut found = Vec::new();
    // It breaks off where the text was cut; what was found until then counts.
    let mut reader = serde_json::Deserializer::from_str(&text[..end]);
    let _ = reader.deserialize_map(Collect(&mut found));
    found
}

/// The parameters without what is large: `None` when that is nothing.
pub fn shortened(whole: &RawValue) -> Option<Box<RawValue>> {
    if whole.get().len() <= MAX_PARAMETERS {
        return None;
    }

    let mut text = String::from("{");
    for (name, value) in parameters(whole) {
        let Ok(name) = serde_json::to_string(&name) else {
            continue;
        };
        let value = value.get();
        // With a comma before it, a colon in it, and the brace at the end.
        let fits = text.len() + name.len() + value.len() + 3 <= MAX_PARAMETERS;
        if value.len() > MAX_VALUE || !fits {
            continue;
        }
        if text.len() > 1 {
            text.push(',');
        }
        text.extend([&*name, ":", value]);
    }
    text.push('}');
    RawValue::from_string(text).ok()
}

/// Collects the entries of an object.
struct Collect<'c, 'de>(&'c mut Vec<(Cow<'de, str>, &'de RawValue)>);

impl<'de> Visitor<'de> for Collect<'_, 'de> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key()? {
            let value = map.next_value()?;
            self.0.push((name, value));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn raw(value: &Value) -> Box<RawValue> {
        RawValue::from_string(value.to_string()).unwrap()
    }

    fn short(value: &Value) -> Option<Value> {
        let short = shortened(&raw(value))?;
        assert!(short.get().len() <= MAX_PARAMETERS);
        Some(serde_json::from_str(short.get()).unwrap())
    }

    #[test]
    fn small_parameters_are_shown_whole() {
        assert_eq!(short(&json!({})), None);
        assert_eq!(short(&json!({"a": "x".repeat(1000)})), None);
    }

    #[test]
    fn large_values_are_left_out_and_small_ones_stay() {
        let whole =
            json!({"a\"b": 1, "list": vec![7; 2000], "text": "y".repeat(300), "z": {"deep": []}});

        assert_eq!(short(&whole), Some(json!({"a\"b": 1, "z": {"deep": []}})));
    }

    #[test]
    fn many_small_values_fill_what_a_list_shows_of_one_operation() {
        let many: serde_json::Map<String, Value> =
            (0..500).map(|n| (format!("n{n:03}"), n.into())).collect();

        let shown = short(&many.into()).unwrap();

        let shown = shown.as_object().unwrap();
        assert!((50..200).contains(&shown.len()), "{}", shown.len());
        assert_eq!(shown["n000"], 0);
    }

    #[test]
    fn what_is_shown_never_exceeds_the_limit_by_a_byte() {
        for last in 1..=MAX_VALUE - 2 {
            let whole = json!({
                "a": "x".repeat(250), "b": "x".repeat(250), "c": "x".repeat(250),
                "d": "x".repeat(last), "large": "x".repeat(MAX_PARAMETERS),
            });

            assert!(short(&whole).is_some());
        }
    }

    #[test]
    fn only_the_beginning_of_huge_parameters_is_looked_at() {
        // Three bytes each, so that the cut is inside of a character.
        let text = format!(r#"{{"first":1,"huge":"{}","last":2}}"#, "€".repeat(100_000));
        let huge = RawValue::from_string(text).unwrap();

        let names: Vec<_> = parameters(&huge)
            .into_iter()
            .map(|(name, _)| name)
            .collect();

        assert_eq!(names, ["first"]);
        assert_eq!(shortened(&huge).unwrap().get(), r#"{"first":1}"#);
    }
}

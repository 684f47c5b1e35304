//! The labels of an operation: short texts by name, which its client chooses to find it again.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Labels of one operation, at most.
pub const MAX_LABELS: usize = 16;

/// Characters of a name, at most.
pub const MAX_NAME: usize = 63;

/// Characters of a value, at most.
pub const MAX_VALUE: usize = 256;

/// The pattern of a name in JSON Schema.
const NAME: &str = "^[A-Za-z0-9_.-]{1,63}$";

/// Labels by name, in the order of the names. They are given at the start and never change.
///
/// Read from a message, a label that breaks a rule is left out: a message must stay readable. REST
/// interfaces check the schema, and refuse it.
///
/// ```
/// use ktrdr_protocol::labels::Labels;
///
/// let labels: Labels = serde_json::from_str(r#"{"symbol":"GOOG","bad name":"x"}"#)?;
/// assert_eq!(labels.get("symbol"), Some("GOOG"));
/// assert_eq!(labels.iter().count(), 1);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Labels(BTreeMap<Box<str>, Box<str>>);

impl Labels {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a label.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(AsRef::as_ref)
    }

    /// Names and values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Adds a label; returns whether it is within the rules.
    pub fn add(&mut self, name: &str, value: &str) -> bool {
        let fits = self.0.len() < MAX_LABELS || self.0.contains_key(name);
        let is_valid = fits && is_name(name) && value.chars().nth(MAX_VALUE).is_none();
        if is_valid {
            self.0.insert(name.into(), value.into());
        }
        is_valid
    }
}

/// Whether a text can be the name of a label.
pub fn is_name(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    (1..=MAX_NAME).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// One label, as a list asks for it: `name:value`. A name has no colon; a value may have some, and may
/// be empty.
///
/// ```
/// use ktrdr_protocol::labels::Label;
///
/// let label: Label = "time:09:30".parse()?;
/// assert_eq!((&*label.name, &*label.value), ("time", "09:30"));
/// # Ok::<(), ktrdr_protocol::labels::InvalidLabel>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Its name.
    pub name: Box<str>,
    /// Its value.
    pub value: Box<str>,
}

/// A text that is no label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be written as name:value, with a name of 1 to {MAX_NAME} letters, digits, _ . or -, and a value of at most {MAX_VALUE} characters"
)]
pub struct InvalidLabel;

impl FromStr for Label {
    type Err = InvalidLabel;

    fn from_str(text: &str) -> Result<Self, InvalidLabel> {
        let (name, value) = text.split_once(':').ok_or(InvalidLabel)?;
        if !is_name(name) || value.chars().nth(MAX_VALUE).is_some() {
            return Err(InvalidLabel);
        }
        Ok(Self {
            name: name.into(),
            value: value.into(),
        })
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.value)
    }
}

impl Serialize for Label {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Label {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Label {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Label".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^[A-Za-z0-9_.-]{1,63}:",
            "maxLength": MAX_NAME + 1 + MAX_VALUE,
        })
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A value; `None` when it is no text.
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Read {
            Text(String),
            Other(IgnoredAny),
        }

        struct Visit;
        impl<'de> Visitor<'de> for Visit {
            type Value = Labels;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("texts by name")
            }

            fn visit_unit<E>(self) -> Result<Labels, E> {
                Ok(Labels::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Labels, A::Error> {
                let mut labels = Labels::default();
                while let Some((name, value)) = map.next_entry::<String, Read>()? {
                    if let Read::Text(value) = value {
                        labels.add(&name, &value);
                    }
                }
                Ok(labels)
            }
        }
        deserializer.deserialize_any(Visit)
    }
}

impl JsonSchema for Labels {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Labels".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "maxProperties": MAX_LABELS,
            "propertyNames": {"pattern": NAME},
            "additionalProperties": {"type": "string", "maxLength": MAX_VALUE},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn labels_outside_the_rules_are_left_out_and_the_rest_is_kept() {
        let long = "é".repeat(MAX_VALUE + 1);
        let text = format!(r#"{{"b":"é","a.1_-":"","x y":"1","n":7,"l":"{long}","":"e"}}"#);

        let labels: Labels = serde_json::from_str(&text).unwrap();

        let found: Vec<_> = labels.iter().collect();
        assert_eq!(found, [("a.1_-", ""), ("b", "é")]);
        assert!(serde_json::from_str::<Labels>("null").unwrap().is_empty());
        assert!(serde_json::from_str::<Labels>("[]").is_err());
    }

    #[test]
    fn a_label_is_written_as_it_is_read() {
        for text in ["a:b", "a.1_-:", "time:09:30", "x:é, ü"] {
            let label: Label = text.parse().unwrap();
            assert_eq!(label.to_string(), text);
            let json = serde_json::to_string(&label).unwrap();
            assert_eq!(serde_json::from_str::<Label>(&json).unwrap(), label);
        }
        let long = format!("a:{}", "é".repeat(MAX_VALUE + 1));
        for bad in ["", ":", "a", ":b", "a b:c", &long] {
            assert!(bad.parse::<Label>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn labels_are_read_as_they_were_written_and_stay_within_their_bounds(
            members in proptest::collection::btree_map("[a-zA-Z0-9_.-]{0,70}", ".{0,300}", 0..20),
        ) {
            let text = serde_json::to_string(&members).unwrap();

            let labels: Labels = serde_json::from_str(&text).unwrap();

            prop_assert!(labels.iter().count() <= MAX_LABELS);
            for (name, value) in labels.iter() {
                prop_assert_eq!(members.get(name).map(String::as_str), Some(value));
                prop_assert!(is_name(name) && value.chars().count() <= MAX_VALUE);
            }
            let written = serde_json::to_string(&labels).unwrap();
            prop_assert_eq!(serde_json::from_str::<Labels>(&written).unwrap(), labels);
        }
    }
}

//! Parameters that are a name or an object: `"clean"` or `{"op": "clean", …}`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Deserializer, Error};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An internally tagged enum whose variants all have defaults for their parameters.
pub trait TaggedEnum: DeserializeOwned + JsonSchema {
    /// The noun for messages.
    const WHAT: &'static str;
    /// The key of the tag.
    const TAG: &'static str;
    /// The names of the variants.
    const NAMES: &'static [&'static str];
}

/// A `T`, written as a name (all parameters have their defaults) or as an object.
///
/// An untagged enum was rejected: its only error is that no variant matched, while this one names
/// the mistyped parameter.
#[derive(Debug, Serialize)]
#[serde(transparent)]
pub struct NameOrObject<T>(pub T);

impl<'de, T: TaggedEnum> Deserialize<'de> for NameOrObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object = match Value::deserialize(deserializer)? {
            name @ Value::String(_) => Value::Object(Map::from_iter([(T::TAG.to_owned(), name)])),
            object @ Value::Object(_) => object,
            other => {
                let (what, tag) = (T::WHAT, T::TAG);
                return Err(D::Error::custom(format!(
                    "{other} is not a valid {what}: give a name or an object with {tag:?}"
                )));
            }
        };

        serde_json::from_value(object)
            .map(Self)
            .map_err(|error| D::Error::custom(format!("{}: {error}", T::WHAT)))
    }
}

impl<T: TaggedEnum> JsonSchema for NameOrObject<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Named{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let object = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [{ "type": "string", "enum": T::NAMES }, object] })
    }
}

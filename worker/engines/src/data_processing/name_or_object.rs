//! Parameters that are given by name alone or as an object: `"clean"` or `{"op": "clean", …}`.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{DeserializeOwned, Deserializer, Error};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An enum in serde's internally tagged form whose variants can all do without parameters.
pub trait TaggedEnum: DeserializeOwned + JsonSchema {
    /// What it is, for messages.
    const WHAT: &'static str;
    /// The key of the name.
    const TAG: &'static str;
    /// The names.
    const NAMES: &'static [&'static str];
}

/// A `T` given by name, with all defaults, or as an object.
///
/// Instead of an untagged enum, whose only message is that no variant matched: here a mistyped parameter is named.
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
                    "{other} is no {what}: give a name or an object with {tag:?}"
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

//! Fields of a message that are not needed to understand it.

use std::str::FromStr;

use serde::{Deserialize, Deserializer};

/// Reads an optional text for `deserialize_with`. Anything that is no valid value counts as absent: the
/// field must not make its message unreadable.
///
/// # Errors
/// When the value is no JSON at all.
pub fn read<'de, D: Deserializer<'de>, T: FromStr>(deserializer: D) -> Result<Option<T>, D::Error> {
    let value = Option::<serde_json::Value>::deserialize(deserializer)?;
    let text = value.as_ref().and_then(serde_json::Value::as_str);
    Ok(text.and_then(|text| text.parse().ok()))
}

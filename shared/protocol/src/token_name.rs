//! The name of a token of the REST interfaces, as messages and documents carry it.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest name, in bytes.
pub const MAX_LEN: usize = 64;

/// A text that cannot be the name of a token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the name of a token must have 1 to {MAX_LEN} printable ASCII characters, with no space at its ends"
)]
pub struct InvalidTokenName;

/// The name of a token: who asked for something. 1 to 64 printable ASCII characters, with no space
/// at the ends, so that it can stand in log lines and messages.
///
/// ```
/// use ktrdr_protocol::token_name::TokenName;
///
/// assert_eq!(TokenName::new("CI of team A")?.as_str(), "CI of team A");
/// assert!(TokenName::new("two\nlines").is_err());
/// # Ok::<(), ktrdr_protocol::token_name::InvalidTokenName>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenName(Arc<str>);

impl TokenName {
    /// Checks `text` and takes it as a name.
    ///
    /// # Errors
    /// [`InvalidTokenName`].
    pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidTokenName> {
        let text = text.as_ref();
        let is_name = (1..=MAX_LEN).contains(&text.len())
            && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
            && text.trim() == text;
        if is_name {
            Ok(Self(text.into()))
        } else {
            Err(InvalidTokenName)
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TokenName {
    type Err = InvalidTokenName;

    fn from_str(text: &str) -> Result<Self, InvalidTokenName> {
        Self::new(text)
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Borrow<str> for TokenName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl Serialize for TokenName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TokenName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::new(text).map_err(de::Error::custom)
    }
}

impl JsonSchema for TokenName {
    fn schema_name() -> Cow<'static, str> {
        "TokenName".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[!-~]([ -~]{0,62}[!-~])?$"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Message {
        #[serde(default, deserialize_with = "crate::if_valid::read")]
        requested_by: Option<TokenName>,
    }

    #[test]
    fn names_stand_in_one_line() {
        for good in ["a", "CI of team A", "<b>", &"x".repeat(64)] {
            assert!(TokenName::new(good).is_ok(), "{good}");
        }
        for bad in ["", " a", "a ", "a\nb", "ü", "\u{7f}", &"x".repeat(65)] {
            assert!(TokenName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_no_name_counts_as_absent_in_a_message() {
        let read = |json: &str| serde_json::from_str::<Message>(json).unwrap().requested_by;

        assert_eq!(read("{}"), None);
        assert_eq!(
            read(r#"{"requested_by":"ali\u0063e"}"#),
            TokenName::new("alice").ok()
        );
        for bad in ["null", "7", "[]", "{}", r#""two\nlines""#] {
            assert_eq!(read(&format!(r#"{{"requested_by":{bad}}}"#)), None, "{bad}");
        }
        let long = format!(r#"{{"requested_by":"{}"}}"#, "x".repeat(100_000));
        assert_eq!(read(&long), None);
    }
}

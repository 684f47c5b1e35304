//! Names that become one token of a NATS subject.
//!
//! Operation ids come from users, worker ids from settings, queue names from requirements. All of
//! them become part of subjects, consumer names and object names, so one rule holds for all:
//! `[A-Za-z0-9_-]{1,128}`. A value of these types has been checked.
//!
//! ```
//! use ktrdr_protocol::id::OperationId;
//!
//! let id = OperationId::new("import-2025_11")?;
//! assert_eq!(id.as_str(), "import-2025_11");
//! assert!(OperationId::new("import.*").is_err());
//! # Ok::<(), ktrdr_protocol::id::InvalidName>(())
//! ```

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The longest name accepted, in bytes.
pub const MAX_LEN: usize = 128;

/// A text that cannot be a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {what} {value:?}: use 1 to {MAX_LEN} of the characters A-Z a-z 0-9 _ -")]
pub struct InvalidName {
    /// The kind of name that was expected.
    pub what: &'static str,
    /// The refused text, shortened.
    pub value: String,
}

/// Whether `text` is a valid name.
pub fn is_name(text: &str) -> bool {
    (1..=MAX_LEN).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks `text` and takes it as a name.
            ///
            /// # Errors
            /// [`InvalidName`] when it is not one valid token.
            pub fn new(text: impl AsRef<str>) -> Result<Self, InvalidName> {
                let text = text.as_ref();
                if is_name(text) {
                    Ok(Self(text.into()))
                } else {
                    Err(InvalidName { what: $what, value: text.chars().take(MAX_LEN).collect() })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        // Written by hand, because every message holds several names: this reads a name without a
        // `String` in between.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visit;
                impl de::Visitor<'_> for Visit {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "{}, a string", $what)
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        $name::new(text).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visit)
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$"})
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name_type!(
    /// Identifies one operation for its whole life; also the `task_id` of a start request.
    OperationId,
    "operation id"
);
name_type!(
    /// Identifies one worker; it stays the same over a restart.
    WorkerId,
    "worker id"
);
name_type!(
    /// Names the kind of work that an engine does, for example `data_processing`.
    WorkerType,
    "worker type"
);
name_type!(
    /// Names a queue, for example `any` or `gpu-mem24`; see [`crate::requirements`].
    Queue,
    "queue"
);
name_type!(
    /// Names a copy of a start request that put its operation back into the queue.
    CopyId,
    "copy"
);
name_type!(
    /// Identifies a schedule, which starts operations by the clock.
    ScheduleId,
    "schedule id"
);

impl CopyId {
    /// A new name. The time of the put-back is part of it, which helps whoever reads a log.
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().simple().to_string().into())
    }
}

impl OperationId {
    /// A new id (UUID version 7). Later ids sort after earlier ones.
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().simple().to_string().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_single_subject_tokens() {
        for good in ["a", "A-b_9", &"x".repeat(128)] {
            assert!(OperationId::new(good).is_ok(), "{good}");
        }
        for bad in ["", "a.b", "a b", "*", ">", "ü", "a/b", &"x".repeat(129)] {
            assert!(OperationId::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bad_name_is_refused_when_read_from_json() {
        let error = serde_json::from_str::<OperationId>("\"a.b\"")
            .unwrap_err()
            .to_string();
        assert!(error.contains("invalid operation id \"a.b\""), "{error}");
    }
}

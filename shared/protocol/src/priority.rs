//! Priorities of operations.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// How soon an operation is started, compared with others that wait for the same workers: from 1, the
/// first, to 5, the last. 3 when nothing was asked for.
///
/// ```
/// use ktrdr_protocol::priority::Priority;
///
/// assert_eq!(Priority::default(), Priority::new(3).unwrap());
/// assert!(Priority::FIRST < Priority::LAST);
/// assert_eq!(Priority::new(6), None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Priority(u8);

impl Priority {
    /// The first to be started.
    pub const FIRST: Self = Self(1);

    /// The one of an operation that asks for none.
    pub const USUAL: Self = Self(3);

    /// The last to be started.
    pub const LAST: Self = Self(5);

    /// How many there are.
    pub const COUNT: usize = 5;

    /// The priority with this number; `None` when there is none.
    pub fn new(number: u8) -> Option<Self> {
        let priority = Self(number);
        (Self::FIRST..=Self::LAST)
            .contains(&priority)
            .then_some(priority)
    }

    /// Its number, from 1 to 5.
    pub fn number(self) -> u8 {
        self.0
    }

    /// All of them, the first one first.
    pub fn all() -> impl DoubleEndedIterator<Item = Self> {
        (Self::FIRST.0..=Self::LAST.0).map(Self)
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self::USUAL
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Priority {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u8::deserialize(deserializer)?;
        Self::new(number).ok_or_else(|| D::Error::custom("a priority is a number from 1 to 5"))
    }
}

impl JsonSchema for Priority {
    fn schema_name() -> Cow<'static, str> {
        "Priority".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": 1, "maximum": 5})
    }
}

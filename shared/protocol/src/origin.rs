//! How an operation came to a worker: from a queue, or directly.
//!
//! The origin is the last token of a start request's subject, `start.<worker_type>.<origin>`. A
//! queue has a consumer, which delivers its requests to workers and delivers them again when a
//! worker is lost. The token `direct` has no consumer: the request was sent to a worker's own REST
//! interface, that worker runs it, and nobody delivers it again.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::id::{InvalidName, Queue};

/// The token of a direct start in a subject, and the queue that a REST document shows for it.
const DIRECT: &str = "direct";

/// How an operation came to a worker.
///
/// ```
/// use ktrdr_protocol::origin::Origin;
/// use ktrdr_protocol::requirements::Requirements;
///
/// let queued = Origin::Queued(Requirements::default().queue());
/// assert_eq!(queued.as_str(), "any");
/// assert_eq!(Origin::from_token("any")?, queued);
/// assert_eq!(Origin::from_token("direct")?, Origin::Direct);
/// # Ok::<(), ktrdr_protocol::id::InvalidName>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A worker pulled it from this queue. If the worker is lost, the queue delivers it again.
    Queued(Queue),
    /// A client sent it to the worker's own REST interface. Nobody delivers it again.
    Direct,
}

impl Origin {
    /// The origin that the last token of a start request's subject names.
    ///
    /// # Errors
    /// [`InvalidName`] when the text is not one valid token.
    pub fn from_token(token: &str) -> Result<Self, InvalidName> {
        if token == DIRECT {
            Ok(Self::Direct)
        } else {
            Queue::new(token).map(Self::Queued)
        }
    }

    /// The token in the subject: the queue's name, or `direct`.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Queued(queue) => queue.as_str(),
            Self::Direct => DIRECT,
        }
    }

    /// Whether a client sent it to the worker itself.
    pub fn is_direct(&self) -> bool {
        matches!(self, Self::Direct)
    }
}

impl PartialOrd for Origin {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Origin {
    /// By token, like the queues that a client sees.
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Origin {
    /// As the token: REST documents show it in the field `queue`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let token = Cow::<str>::deserialize(deserializer)?;
        Self::from_token(&token).map_err(D::Error::custom)
    }
}

impl JsonSchema for Origin {
    fn schema_name() -> Cow<'static, str> {
        Queue::schema_name()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Queue::json_schema(generator)
    }
}

//! Names a version of a worker type's request schema.
//!
//! The problem: while workers of a type are replaced by those of a newer version, both take
//! requests from the same queue. A request with a parameter that only the newer version knows would
//! fail on an older worker.
//!
//! How it is solved: a worker makes the digest of its request schema, and publishes it in its
//! catalogue entry and in its heartbeats. A backend writes the digest of the schema that it checked
//! a request against into the request. A worker with another schema looks whether the parameters
//! fit its own, and hands the request back if they do not.
//!
//! Rejected: version numbers of engines. Somebody would have to raise them, and two builds with the
//! same number can have different schemas.

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

/// The digest of a request schema, as its workers made it. Written as 16 hex digits.
///
/// ```
/// use ktrdr_protocol::schema_digest::SchemaDigest;
///
/// let digest: SchemaDigest = "00000000000000ff".parse()?;
/// assert_eq!(digest, SchemaDigest::from_bytes([0, 0, 0, 0, 0, 0, 0, 255]));
/// assert_eq!(digest.to_string(), "00000000000000ff");
/// # Ok::<(), ktrdr_protocol::schema_digest::NoDigest>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaDigest(NonZeroU64);

/// A text is not 16 lower-case hex digits, or all of them are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a schema digest is 16 lower-case hex digits, not all of them zero")]
pub struct NoDigest;

impl SchemaDigest {
    /// From the first bytes of a cryptographic digest.
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(NonZeroU64::new(u64::from_be_bytes(bytes)).unwrap_or(NonZeroU64::MIN))
    }
}

impl fmt::Display for SchemaDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for SchemaDigest {
    type Err = NoDigest;

    fn from_str(text: &str) -> Result<Self, NoDigest> {
        let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 16 || !text.bytes().all(is_hex) {
            return Err(NoDigest);
        }
        let number = u64::from_str_radix(text, 16).map_err(|_| NoDigest)?;
        NonZeroU64::new(number).map(Self).ok_or(NoDigest)
    }
}

impl Serialize for SchemaDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for SchemaDigest {
    fn schema_name() -> Cow<'static, str> {
        "SchemaDigest".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9a-f]{16}$"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_spelling_is_a_digest() {
        for bad in [
            "",
            "ff",
            "0000000000000000",
            "00000000000000FF",
            "+0000000000000ff",
            "00000000000000fff",
        ] {
            assert_eq!(bad.parse::<SchemaDigest>(), Err(NoDigest), "{bad}");
        }
        let digest = SchemaDigest::from_bytes([0xab; 8]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
    }
}

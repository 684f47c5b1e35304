//! A set of texts in bounded memory: 16 bytes for each text, whatever its length.
//!
//! The problem: `drop_duplicates`, `unique` and `duplicate_row` must know every row seen so far,
//! and the rows of a large file do not fit into memory. Only a 128-bit hash of each text is kept. A
//! Bloom filter was rejected because it drops rows that are not duplicates at a rate that one can
//! observe; sorting the file on disk was rejected because it needs a second pass and loses the
//! order of rows.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use siphasher::sip128::{Hasher128, SipHasher13};

/// A set of texts, stored as 128-bit hashes.
///
/// A collision would drop a row that is not a duplicate. For a billion distinct rows the
/// probability of any collision is below n²/2¹²⁹ ≈ 1.5·10⁻²¹ (birthday bound), less than that of an
/// undetected disk error. The hash is SipHash-1-3 with 128 bits of output (Aumasson and Bernstein,
/// 2012) under a random key for each set, so nobody can prepare a file that collides. A checkpoint
/// saves the key with the hashes.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct TextSet {
    hasher: TextHasher,
    hashes: Hashes,
}

/// Hashes texts as a set does, under a random key of its own.
#[derive(Serialize, Deserialize)]
pub(super) struct TextHasher {
    key: [u8; 16],
    #[serde(skip)]
    scratch: Vec<u8>,
}

impl Default for TextHasher {
    fn default() -> Self {
        Self {
            key: rand::random(),
            scratch: Vec::new(),
        }
    }
}

impl TextHasher {
    /// The hash of a text made of `parts`. `["ab", "c"]` and `["a", "bc"]` are different texts.
    pub(super) fn hash<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>) -> u128 {
        self.scratch.clear();
        for part in parts {
            self.scratch.extend_from_slice(part);
            // The separator 0xff never occurs in UTF-8.
            self.scratch.push(0xff);
        }
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(&self.scratch);
        hasher.finish128().as_u128()
    }
}

impl TextSet {
    /// Adds a text made of `parts`. Returns false when the set already has it. `["ab", "c"]` and
    /// `["a", "bc"]` are different texts.
    pub(super) fn insert<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>) -> bool {
        let hash = self.hasher.hash(parts);
        self.hashes.0.insert(hash)
    }

    /// Whether the set has a text made of `parts`.
    pub(super) fn contains<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>) -> bool {
        let hash = self.hasher.hash(parts);
        self.hashes.0.contains(&hash)
    }
}

/// The hashes, serialized as a list of 16 bytes each.
#[derive(Default)]
struct Hashes(HashSet<u128, BuildHasherDefault<LowBits>>);

impl Serialize for Hashes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for hash in &self.0 {
            list.serialize_element(&Bytes(hash.to_le_bytes()))?;
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for Hashes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;

        impl<'de> Visitor<'de> for List {
            type Value = Hashes;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of hashes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Hashes, A::Error> {
                let mut hashes = Hashes::default();

                // Reserve all at once: the hashes come in the order of a larger table, and would
                // cluster in a smaller one.
                hashes
                    .0
                    .try_reserve(list.size_hint().unwrap_or(0))
                    .map_err(A::Error::custom)?;

                while let Some(Bytes(hash)) = list.next_element()? {
                    hashes.0.insert(u128::from_le_bytes(hash));
                }

                Ok(hashes)
            }
        }

        deserializer.deserialize_seq(List)
    }
}

/// Sixteen bytes, serialized as one byte string. An array would be serialized number by number.
struct Bytes([u8; 16]);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Sixteen;

        impl Visitor<'_> for Sixteen {
            type Value = Bytes;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("16 bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
                bytes
                    .try_into()
                    .map(Bytes)
                    .map_err(|_| E::invalid_length(bytes.len(), &self))
            }
        }

        deserializer.deserialize_bytes(Sixteen)
    }
}

/// Uses the low 64 bits of a hash as its own hash: it is already uniformly distributed.
#[derive(Default)]
struct LowBits(u64);

impl Hasher for LowBits {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data_processing::state;

    #[test]
    fn texts_with_other_parts_are_different() {
        let mut seen = TextSet::default();
        let mut insert = |parts: &[&str]| seen.insert(parts.iter().map(|part| part.as_bytes()));
        assert!(insert(&["ab", "c"]));
        assert!(insert(&["a", "bc"]));
        assert!(insert(&["abc"]));
        assert!(insert(&["abc", ""]));
        assert!(insert(&[]));
        assert!(!insert(&["ab", "c"]));
        assert!(!insert(&[]));
    }

    #[test]
    fn what_was_seen_is_known_after_saving() {
        let insert =
            |seen: &mut TextSet, n: u32| seen.insert(std::iter::once(&n.to_le_bytes()[..]));
        let mut seen = TextSet::default();

        assert!((0..10_000).all(|n| insert(&mut seen, n)));

        let mut bytes = Vec::new();

        state::write(&seen, &mut bytes).unwrap();

        assert!(bytes.len() < 10_000 * 18 + 100, "{}", bytes.len());

        let mut again: TextSet = state::read(&mut &bytes[..]).unwrap();
        assert!((0..10_000).all(|n| !insert(&mut again, n)));
        assert!(insert(&mut again, 10_000));
        assert!(TextSet::default().hasher.key != seen.hasher.key);
    }
}

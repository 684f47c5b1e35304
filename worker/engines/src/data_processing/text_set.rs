//! Remembers which texts occurred, in 16 bytes each.

use std::collections::HashSet;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};

use serde::de::{Error, SeqAccess, Visitor};
use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use siphasher::sip128::{Hasher128, SipHasher13};

/// A set of texts, kept as 128-bit hashes, so that its size does not depend on how long they are.
///
/// A collision would drop a row that is no duplicate. Among a billion distinct rows the odds of even one are below
/// n²/2¹²⁹ ≈ 1.5·10⁻²¹; a disk goes wrong more often. The hash is SipHash under a key drawn at random for each set, so nobody can
/// prepare a file that collides. The key is saved with the hashes: what goes on from them reads the same file, and no other.
#[derive(Serialize, Deserialize)]
pub(super) struct TextSet {
    key: [u8; 16],
    hashes: Hashes,
    #[serde(skip)]
    scratch: Vec<u8>,
}

impl Default for TextSet {
    fn default() -> Self {
        Self {
            key: rand::random(),
            hashes: Hashes::default(),
            scratch: Vec::new(),
        }
    }
}

impl TextSet {
    /// Adds the text made of `parts`; false when it was there before. `["ab", "c"]` and `["a", "bc"]` are two texts.
    pub(super) fn insert<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>) -> bool {
        self.scratch.clear();
        for part in parts {
            self.scratch.extend_from_slice(part);
            // 0xff is in no UTF-8 text.
            self.scratch.push(0xff);
        }
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(&self.scratch);
        self.hashes.0.insert(hasher.finish128().as_u128())
    }
}

/// Written as a list of 16 bytes each.
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

                // All at once: they come in the order of the table they were in, and would crowd together in a smaller one.
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

/// Sixteen bytes in one piece; an array would be written number by number.
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

/// Hashes a hash to itself.
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
    fn texts_are_told_apart_by_their_parts() {
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
        assert!(TextSet::default().key != seen.key);
    }
}

//! Remembers which texts occurred, in 16 bytes each.

use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};

/// A set of texts, kept as 128-bit hashes, so that its size does not depend on how long they are.
///
/// A collision would drop a row that is no duplicate. Among a billion distinct rows the odds of even one are below
/// n²/2¹²⁹ ≈ 1.5·10⁻²¹; a disk goes wrong more often. The two halves are SipHash under keys drawn at random for each set, so nobody
/// can prepare a file that collides.
#[derive(Default)]
pub(super) struct Seen {
    keys: [RandomState; 2],
    hashes: HashSet<u128, BuildHasherDefault<LowBits>>,
    scratch: Vec<u8>,
}

impl Seen {
    /// Adds the text made of `parts`; false when it was there before. `["ab", "c"]` and `["a", "bc"]` are two texts.
    pub(super) fn insert<'a>(&mut self, parts: impl Iterator<Item = &'a [u8]>) -> bool {
        self.scratch.clear();
        for part in parts {
            self.scratch.extend_from_slice(part);
            // 0xff is in no UTF-8 text.
            self.scratch.push(0xff);
        }
        let [high, low] = self.keys.each_ref().map(|key| {
            let mut hasher = key.build_hasher();
            hasher.write(&self.scratch);
            u128::from(hasher.finish())
        });
        self.hashes.insert(high << 64 | low)
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

    #[test]
    fn texts_are_told_apart_by_their_parts() {
        let mut seen = Seen::default();
        let mut insert = |parts: &[&str]| seen.insert(parts.iter().map(|part| part.as_bytes()));
        assert!(insert(&["ab", "c"]));
        assert!(insert(&["a", "bc"]));
        assert!(insert(&["abc"]));
        assert!(insert(&["abc", ""]));
        assert!(insert(&[]));
        assert!(!insert(&["ab", "c"]));
        assert!(!insert(&[]));
    }
}

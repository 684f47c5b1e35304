//! The operations with each label.
//!
//! The problem: some labels are on most operations, others (a run number, a file) on one each. A
//! bitmap for each of a million values would take hundreds of bytes for each operation.
//!
//! How it is solved: a label is kept as a 64-bit hash, and what has it in the smallest of three
//! forms: one number, a short list, a bitmap. A label that one operation has takes 25 bytes in the
//! table, which is up to half empty. Operations without labels take nothing.
//!
//! Two labels with one hash would share their operations. The hash has a secret of this process, so
//! nobody can make such labels, and among a million labels chance does once in 30 million processes.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher};

use roaring::RoaringBitmap;

/// Longest list. A bitmap takes about as much for so many numbers that are far apart.
const MAX_FEW: usize = 32;

/// Sets of operation numbers by label.
#[derive(Debug, Default)]
pub struct Labelled {
    secret: RandomState,
    sets: HashMap<u64, Numbers, BuildHasherDefault<Hashed>>,
}

/// The numbers of operations, in order.
#[derive(Debug)]
enum Numbers {
    One(u32),
    #[expect(
        clippy::box_collection,
        reason = "keeps the table small: most labels have one number"
    )]
    Few(Box<Vec<u32>>),
    Many(Box<RoaringBitmap>),
}

/// Takes a key that is a hash already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Numbers {
    fn insert(&mut self, number: u32) {
        match self {
            Self::One(only) if *only == number => {}
            Self::One(only) => {
                let (first, second) = (number.min(*only), number.max(*only));
                *self = Self::Few(Box::new(vec![first, second]));
            }
            Self::Few(numbers) => {
                let Err(place) = numbers.binary_search(&number) else {
                    return;
                };
                numbers.insert(place, number);
                if numbers.len() > MAX_FEW {
                    let numbers = numbers.iter().copied().collect();
                    *self = Self::Many(Box::new(numbers));
                }
            }
            Self::Many(numbers) => {
                numbers.insert(number);
            }
        }
    }

    /// Removes a number; returns whether nothing is left.
    fn remove(&mut self, number: u32) -> bool {
        match self {
            Self::One(only) => *only == number,
            Self::Few(numbers) => {
                numbers.retain(|other| *other != number);
                numbers.is_empty()
            }
            Self::Many(numbers) => {
                numbers.remove(number);
                numbers.is_empty()
            }
        }
    }
}

impl Labelled {
    /// Notes that an operation has this label.
    pub fn insert(&mut self, name: &str, value: &str, number: u32) {
        match self.sets.entry(self.secret.hash_one((name, value))) {
            Entry::Occupied(mut known) => known.get_mut().insert(number),
            Entry::Vacant(new) => {
                new.insert(Numbers::One(number));
            }
        }
    }

    /// Forgets that an operation has this label, and the label when nothing has it any more.
    pub fn remove(&mut self, name: &str, value: &str, number: u32) {
        if let Entry::Occupied(mut known) = self.sets.entry(self.secret.hash_one((name, value)))
            && known.get_mut().remove(number)
        {
            known.remove();
        }
    }

    /// The operations with this label.
    pub fn of(&self, name: &str, value: &str) -> Cow<'_, RoaringBitmap> {
        match self.sets.get(&self.secret.hash_one((name, value))) {
            None => Cow::default(),
            Some(Numbers::One(only)) => Cow::Owned([*only].into_iter().collect()),
            Some(Numbers::Few(numbers)) => Cow::Owned(numbers.iter().copied().collect()),
            Some(Numbers::Many(numbers)) => Cow::Borrowed(numbers),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_label_has_the_operations_of_a_plain_table(
            actions in proptest::collection::vec((any::<bool>(), 0u32..60, 0usize..3), 0..400),
        ) {
            let names = [("a", "bc"), ("ab", "c"), ("a", "")];
            let mut labelled = Labelled::default();
            let mut plain: BTreeMap<usize, BTreeSet<u32>> = BTreeMap::new();
            for (adds, number, which) in actions {
                // Far apart, so that a bitmap has several containers.
                let (number, (name, value)) = (number * 9_000, names[which]);
                if adds {
                    labelled.insert(name, value, number);
                    plain.entry(which).or_default().insert(number);
                } else {
                    labelled.remove(name, value, number);
                    plain.entry(which).or_default().remove(&number);
                }
            }
            for (which, (name, value)) in names.into_iter().enumerate() {
                let found: Vec<u32> = labelled.of(name, value).iter().collect();
                let expected: Vec<u32> = plain.remove(&which).unwrap_or_default().into_iter().collect();
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn a_label_without_operations_takes_nothing() {
        let mut labelled = Labelled::default();
        for number in 0..100 {
            labelled.insert("run", &number.to_string(), number);
            labelled.insert("all", "x", number);
        }
        for number in 0..100 {
            labelled.remove("run", &number.to_string(), number);
            labelled.remove("all", "x", number);
        }

        assert!(labelled.sets.is_empty());
        assert_eq!(size_of::<(u64, Numbers)>(), 24);
    }
}

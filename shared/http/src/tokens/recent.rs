//! The tokens that a thread has looked up last.
//!
//! The problem: clients send the same token with each request, and its SHA-256 takes most of what the
//! check of a token costs.
//!
//! How it is solved: each thread keeps the last few tokens, and compares what is sent with one of them
//! in constant time. An entry counts only while the table in which it was found is the current one,
//! so a token that is removed is refused at once, as by the table itself.
//!
//! Rejected: a faster hash in the file. It would have to be keyed, and people make entries with
//! `sha256sum`.

use std::cell::RefCell;
use std::hint::black_box;
use std::sync::{Arc, Weak};

use super::check::Table;
use super::file::Digest;
use super::principal::KnownToken;

/// Tokens that a thread keeps. Each has its slot by its last byte.
const SLOTS: usize = 8;

struct Recent {
    /// The table in which it was found. As long as this exists, no other table has its address.
    table: Weak<Table>,
    token: Box<[u8]>,
    known: Arc<KnownToken>,
}

thread_local! {
    static RECENT: RefCell<[Option<Recent>; SLOTS]> = const { RefCell::new([const { None }; SLOTS]) };
}

/// The entry of `token` in `table`.
pub(super) fn find(table: &Arc<Table>, token: &[u8]) -> Option<Arc<KnownToken>> {
    let slot = usize::from(*token.last()?) % SLOTS;
    RECENT.with_borrow_mut(|slots| {
        let slot = slots.get_mut(slot)?;
        if let Some(recent) = slot
            && std::ptr::eq(recent.table.as_ptr(), Arc::as_ptr(table))
            && is_same(&recent.token, token)
        {
            return Some(Arc::clone(&recent.known));
        }

        let known = table.get(&Digest::of(token))?;
        *slot = Some(Recent {
            table: Arc::downgrade(table),
            token: token.into(),
            known: Arc::clone(known),
        });
        Some(Arc::clone(known))
    })
}

/// Compares in a time that depends on the lengths alone: otherwise somebody could find a token byte by
/// byte.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
    one.len() == other.len() && black_box(differences) == 0
}

#[cfg(test)]
mod tests {
    use ktrdr_protocol::token_name::TokenName;

    use super::super::file::Entry;
    use super::super::scope::Scopes;
    use super::*;

    fn table(tokens: &[&str]) -> Arc<Table> {
        let known = |token: &&str| {
            let entry = Entry {
                name: TokenName::new(*token).unwrap(),
                digest: Digest::of(token.as_bytes()),
                scopes: Scopes::default(),
                types: None,
                expires: None,
            };
            (entry.digest, Arc::new(KnownToken::new(entry)))
        };
        Arc::new(tokens.iter().map(known).collect())
    }

    fn name(table: &Arc<Table>, token: &str) -> Option<String> {
        find(table, token.as_bytes()).map(|known| known.entry.name.to_string())
    }

    #[test]
    fn a_token_counts_only_in_the_table_that_has_it() {
        let first = table(&["one", "two"]);
        for _ in 0..3 {
            for token in ["one", "two"] {
                assert_eq!(name(&first, token).as_deref(), Some(token));
            }
            // The same slot, the same beginning, the same length.
            for wrong in ["1ne", "onee", "xone", "on", "e", ""] {
                assert_eq!(name(&first, wrong), None, "{wrong}");
            }
        }

        let without = table(&["two"]);

        assert_eq!(name(&without, "one"), None);
        assert_eq!(name(&without, "two").as_deref(), Some("two"));
        drop(without);
        for _ in 0..100 {
            // It may have the address of a table that is gone.
            assert_eq!(name(&table(&["three"]), "two"), None);
        }
    }

    #[test]
    fn one_byte_makes_a_difference_wherever_it_is() {
        assert!(is_same(b"", b"") && is_same(b"abc", b"abc"));
        for other in [&b"abd"[..], b"xbc", b"axc", b"ab", b"abcd", b""] {
            assert!(!is_same(b"abc", other));
        }
    }
}

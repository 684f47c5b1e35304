//! Keys: at most one open operation with a key (`unique`), or at most so many that run
//! (`concurrency`). Pure.
//!
//! The problem: whoever holds a key may die at any moment, and a lock that nobody releases blocks all
//! others. A lock that expires by itself is lost by a holder that was only slow.
//!
//! How it is solved: each key has a subject of its own, and its last message, the [`KeyEntry`], names
//! the holders, which are operations. A holder counts until its own log has ended, so nothing has to
//! be released. Whoever writes the next entry leaves out the holders that have ended. Each entry names
//! the sequence of the one that it replaces, so the stream decides every race.
//!
//! *Concurrency*: a worker adds the operation to the entry before it appends `started` ([`permit`]).
//! The permit belongs to the operation, so retries and takeovers keep it.
//!
//! *Unique*: a backend writes the entry first, and then the start request, which the stream takes only
//! while the entry is still the last one ([`claim_unique`]). So a backend that was suspended in
//! between comes too late as soon as another one has written an entry. An entry whose operation has not
//! appeared for [`VOID_AFTER`] is replaced by one that names both. Only behind that one it is certain
//! whether the first operation exists: it was stored before, or it never will be.

use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::id::OperationId;
use crate::subject::{Addressed, SubjectMismatch};

/// Characters of a key, at most.
pub const MAX_KEY: usize = 256;

/// The largest limit: every holder stands in the entry of its key.
pub const MAX_LIMIT: u32 = 1000;

/// Holders of an entry, at most: an operation that waits for many others to stop stands beside them.
pub const MAX_HOLDERS: usize = 2 * MAX_LIMIT as usize;

/// How long an operation may take to appear behind the entry that names it, by the clock of the
/// stream. After that, another operation may have the key.
pub const VOID_AFTER: Duration = Duration::from_secs(10);

/// The text of a key, as a client has chosen it. Its scope is one worker type.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(Box<str>);

impl Key {
    /// A key with this text. REST interfaces check that it has 1 to [`MAX_KEY`] characters; in a message
    /// any text is a key.
    pub fn new(text: impl Into<Box<str>>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl JsonSchema for Key {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Key".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1, "maxLength": MAX_KEY})
    }
}

/// At most one operation with this key and worker type is open: it waits or runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Unique {
    /// The key, of 1 to 256 characters.
    pub key: Key,
    /// What happens to a start while another operation with the key is open.
    #[serde(default, skip_serializing_if = "OnConflict::is_default")]
    pub on_conflict: OnConflict,
}

/// What happens to a start while another operation with its unique key is open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum OnConflict {
    /// It is refused: 409 `not_unique`, with the id of the other.
    #[default]
    Reject,
    /// It is answered with the other, and nothing is started.
    Return,
    /// The other is cancelled, and the new one starts. It does not wait until the other has stopped.
    Replace,
}

impl OnConflict {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// At most `limit` operations with this key and worker type run at a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Concurrency {
    /// The key, of 1 to 256 characters.
    pub key: Key,
    /// How many may run, this one included. Each operation compares with its own limit.
    #[schemars(range(min = 1, max = MAX_LIMIT))]
    pub limit: u32,
}

/// What a key is for. The two kinds have nothing to do with each other, even with the same text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KeyKind {
    /// Of [`Unique`].
    Unique,
    /// Of [`Concurrency`].
    Concurrency,
}

impl KeyKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Unique, Self::Concurrency];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unique => "unique",
            Self::Concurrency => "concurrency",
        }
    }
}

/// The last tokens of a key's subject: its kind, and the first 32 hex digits of the SHA-256 of its text.
///
/// ```
/// use ktrdr_protocol::keys::{Key, KeyKind, tokens};
///
/// // printf nightly | sha256sum
/// let tokens = tokens(KeyKind::Unique, &Key::new("nightly"));
/// assert_eq!(tokens, "unique.2a3b62b53ddb9f167b63d22202a36081");
/// ```
pub fn tokens(kind: KeyKind, key: &Key) -> String {
    tokens_of(kind, KeyDigest::of(key))
}

/// The same for a key of which only the digest is known.
pub fn tokens_of(kind: KeyKind, KeyDigest(digest): KeyDigest) -> String {
    format!("{}.{digest:032x}", kind.as_str())
}

/// Kind and digest in the last tokens of a key's subject; `None` when these are not such tokens.
///
/// ```
/// use ktrdr_protocol::keys::{Key, KeyDigest, KeyKind, parse_tokens, tokens};
///
/// let key = Key::new("nightly");
/// let found = parse_tokens(&tokens(KeyKind::Unique, &key));
/// assert_eq!(found, Some((KeyKind::Unique, KeyDigest::of(&key))));
/// assert_eq!(parse_tokens("unique.7"), None);
/// ```
pub fn parse_tokens(tokens: &str) -> Option<(KeyKind, KeyDigest)> {
    let (kind, digest) = tokens.split_once('.')?;
    let kind = KeyKind::ALL.into_iter().find(|one| one.as_str() == kind)?;
    let digest = KeyDigest(u128::from_str_radix(digest, 16).ok()?);
    // Another way to write the same number is another subject.
    (tokens_of(kind, digest) == tokens).then_some((kind, digest))
}

/// The first 128 bits of the SHA-256 of a key's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyDigest(u128);

impl KeyDigest {
    /// That of a key.
    pub fn of(key: &Key) -> Self {
        let digest = Sha256::digest(key.as_str().as_bytes());
        let first = digest.iter().take(size_of::<u128>());
        Self(first.fold(0, |number, byte| number << 8 | u128::from(*byte)))
    }
}

/// The last message of a key's subject: which operations hold the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct KeyEntry {
    /// The key, for people, and to tell apart what has the same subject.
    pub key: Key,
    /// The holders, oldest first. Those that have ended may still be among them.
    pub holders: Vec<OperationId>,
}

impl KeyEntry {
    /// The entry of a key that nobody holds.
    pub fn free(key: Key) -> Self {
        Self {
            key,
            holders: Vec::new(),
        }
    }

    /// Whether the operation is among the holders.
    pub fn names(&self, id: &OperationId) -> bool {
        self.holders.contains(id)
    }

    /// The holders for which `keep` is true, and then `id`.
    fn with(&self, id: &OperationId, keep: impl Fn(&OperationId) -> bool) -> Self {
        let others = self.holders.iter().filter(|holder| *holder != id);
        let holders = others.filter(|holder| keep(holder)).cloned();
        Self {
            key: self.key.clone(),
            holders: holders.chain([id.clone()]).collect(),
        }
    }
}

impl Addressed for KeyEntry {
    const TOPIC: &'static str = "key";

    fn agrees(&self, _: &str, last: &str) -> Result<(), SubjectMismatch> {
        let is_its_own = KeyKind::ALL
            .into_iter()
            .any(|kind| tokens(kind, &self.key) == last);
        is_its_own
            .then_some(())
            .ok_or(SubjectMismatch::Field("key"))
    }
}

/// The limit that counts. A message may hold any number: with 0 nothing would ever run, and with thousands
/// the entry would have more holders than are read.
///
/// ```
/// use ktrdr_protocol::keys::{MAX_LIMIT, limit_in_force};
///
/// assert_eq!([0, 7, 5000].map(limit_in_force), [1, 7, MAX_LIMIT]);
/// ```
pub fn limit_in_force(limit: u32) -> u32 {
    limit.clamp(1, MAX_LIMIT)
}

/// Whether an operation may run under its concurrency key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permit {
    /// It holds a permit, maybe from an earlier attempt.
    Held,
    /// It holds one once this entry has replaced the one that was looked at.
    Take(KeyEntry),
    /// As many others as the limit allows hold one.
    Full,
}

/// Decides whether an operation may run, given the last entry of its key.
///
/// `has_ended` may say no about an operation that has ended a moment ago. It must never say yes about
/// one that has not.
///
/// ```
/// use ktrdr_protocol::id::OperationId;
/// use ktrdr_protocol::keys::{Key, KeyEntry, Permit, permit};
///
/// let [a, b] = [OperationId::new("a")?, OperationId::new("b")?];
/// let entry = KeyEntry { key: Key::new("licence"), holders: vec![a.clone()] };
/// assert_eq!(permit(&entry, &b, 1, |_| false), Permit::Full);
/// let next = KeyEntry { holders: vec![b.clone()], ..entry.clone() };
/// assert_eq!(permit(&entry, &b, 1, |id| *id == a), Permit::Take(next));
/// # Ok::<(), ktrdr_protocol::id::InvalidName>(())
/// ```
pub fn permit(
    entry: &KeyEntry,
    id: &OperationId,
    limit: u32,
    has_ended: impl Fn(&OperationId) -> bool,
) -> Permit {
    if entry.names(id) {
        return Permit::Held;
    }
    let next = entry.with(id, |holder| !has_ended(holder));
    if next.holders.len() > limit_in_force(limit) as usize {
        return Permit::Full;
    }
    Permit::Take(next)
}

/// What is known of the holder of a unique key. Whoever says so has read the stream up to the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// It was started, and has not ended.
    Open,
    /// It was started, and has been asked to stop for the operation that wants the key now.
    Replaced,
    /// It has ended.
    Ended,
    /// There is no start request.
    Missing,
}

/// What to do about a start with a unique key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UniqueClaim {
    /// Publish the start request, to be stored only while this entry is the last one.
    Start,
    /// Replace the entry by this one, read the stream up to it, and decide again.
    Take(KeyEntry),
    /// These operations are open.
    Taken(Vec<OperationId>),
    /// The holder may appear at any moment: decide again soon.
    Wait,
}

/// Decides about a start with a unique key, given the last entry of the key and how old it is by the
/// clock of the stream.
///
/// An operation starts behind an entry that names it only while that is fresh. An old one may be of an
/// operation with the same id that is over, and about to be removed.
///
/// ```
/// use std::time::Duration;
/// use ktrdr_protocol::id::OperationId;
/// use ktrdr_protocol::keys::{Holder, Key, KeyEntry, UniqueClaim, claim_unique};
///
/// let [a, b] = [OperationId::new("a")?, OperationId::new("b")?];
/// let entry = KeyEntry { key: Key::new("nightly"), holders: vec![a.clone()] };
/// let decided = |holder| claim_unique(&entry, &b, Duration::ZERO, |_| holder);
/// assert_eq!(decided(Holder::Open), UniqueClaim::Taken(vec![a.clone()]));
/// assert_eq!(decided(Holder::Missing), UniqueClaim::Wait);
/// assert!(matches!(decided(Holder::Ended), UniqueClaim::Take(_)));
/// assert_eq!(claim_unique(&entry, &a, Duration::ZERO, |_| Holder::Open), UniqueClaim::Start);
/// # Ok::<(), ktrdr_protocol::id::InvalidName>(())
/// ```
pub fn claim_unique(
    entry: &KeyEntry,
    id: &OperationId,
    age: Duration,
    holder: impl Fn(&OperationId) -> Holder,
) -> UniqueClaim {
    let others = entry.holders.iter().filter(|other| *other != id);
    let open: Vec<_> = others
        .filter(|other| holder(other) == Holder::Open)
        .cloned()
        .collect();
    if !open.is_empty() {
        return UniqueClaim::Taken(open);
    }

    // Only the operation that an entry names last may still appear: the entry of any other is not the
    // last one any more.
    let last = entry.holders.last();
    if last == Some(id) && age < VOID_AFTER {
        return UniqueClaim::Start;
    }
    let is_missing = |other: &OperationId| holder(other) == Holder::Missing;
    let expected = last.filter(|last| is_missing(last));
    if expected.is_some() && age < VOID_AFTER {
        return UniqueClaim::Wait;
    }
    UniqueClaim::Take(entry.with(id, |other| {
        Some(other) == expected || holder(other) == Holder::Replaced
    }))
}

#[cfg(test)]
mod tests;

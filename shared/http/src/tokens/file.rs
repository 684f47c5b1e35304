//! The file of tokens.
//!
//! ```toml
//! [[token]]
//! name = "ci"
//! sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
//! scopes = ["read", "start"]
//! types = ["training"]              # optional: only these worker types
//! expires = 2027-01-01T00:00:00Z    # optional
//! ```

use std::collections::{BTreeSet, HashMap};
use std::fmt::{self, Write as _};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ktrdr_bus::secret_file;
use ktrdr_protocol::id::{InvalidName, WorkerType};
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::token_name::{InvalidTokenName, TokenName};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as ValueError;
use sha2::{Digest as _, Sha256};

use super::scope::{Scope, Scopes, UnknownScope};

/// Largest file, in bytes: about 5,000 tokens.
const MAX_FILE: u64 = 1024 * 1024;

/// The SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of a token as it is sent.
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }

    /// From 64 hexadecimal digits.
    fn parse(text: &str) -> Option<Self> {
        let mut digest = [0; 32];
        let is_hex = text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
        for (at, byte) in digest.iter_mut().enumerate().filter(|_| is_hex) {
            *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        is_hex.then_some(Self(digest))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One token of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who uses the token; unique in the file.
    pub name: TokenName,
    /// The SHA-256 of the token; unique in the file.
    pub digest: Digest,
    /// What the token allows.
    pub scopes: Scopes,
    /// The only worker types that it sees; `None` for all.
    pub types: Option<Vec<WorkerType>>,
    /// From when on the token is refused.
    pub expires: Option<Timestamp>,
}

/// Why a file of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokensError {
    /// The file cannot be read.
    #[error("cannot read the file of tokens {}: {cause}; `ktrdr-backend token new` makes one", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// The file is larger than any list of tokens.
    #[error("the file of tokens {} is larger than {MAX_FILE} bytes", .0.display())]
    TooLarge(PathBuf),
    /// The file is not TOML.
    #[error("the file of tokens {} is not TOML: {what} (line {line})", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
        /// Where, from 1.
        line: usize,
    },
    /// The file holds something else than tokens.
    #[error("the file of tokens {} may only hold [[token]] entries, but holds {key:?}", path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// One entry cannot be used.
    #[error("{entry} in the file of tokens {} cannot be used: {what}", path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The number of the entry, and its name if it has one.
        entry: String,
        /// What is wrong with it.
        what: EntryError,
    },
}

/// What is wrong with one entry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// A field is missing, unknown, or of another kind.
    #[error("{0}")]
    Fields(String),
    /// The name cannot be shown in one line.
    #[error(transparent)]
    Name(#[from] InvalidTokenName),
    /// An entry above has this name.
    #[error("another entry has the same name")]
    DuplicateName,
    /// The digest is not one.
    #[error("sha256 must be the 64 hexadecimal digits of the token's SHA-256")]
    Digest,
    /// An entry above has this digest.
    #[error("another entry has the same sha256")]
    DuplicateDigest,
    /// A scope is not known.
    #[error(transparent)]
    Scope(#[from] UnknownScope),
    /// It allows nothing.
    #[error("scopes is empty; name at least one of read, start, cancel, metrics, admin")]
    NoScopes,
    /// A worker type is not one.
    #[error(transparent)]
    Type(#[from] InvalidName),
    /// It sees nothing.
    #[error("types is empty; leave it out to allow all worker types")]
    NoTypes,
    /// Metrics show all worker types.
    #[error(
        "types cannot narrow the scope {0}: it is about all worker types; leave one of the two out"
    )]
    Narrowed(Scope),
    /// Not a moment.
    #[error("expires must be a moment with its offset from UTC, for example 2027-01-01T00:00:00Z")]
    Expires,
}

/// The fields of an entry as they are written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    sha256: String,
    scopes: Vec<String>,
    types: Option<Vec<String>>,
    expires: Option<toml::Value>,
}

/// The text of the file, and whether others than its owner may read it.
///
/// # Errors
/// [`TokensError::Read`], [`TokensError::TooLarge`].
pub fn read(path: &Path) -> Result<(String, bool), TokensError> {
    let failed = |cause| TokensError::Read {
        path: path.to_owned(),
        cause,
    };
    let file = secret_file::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode();

    let mut text = String::new();
    file.take(MAX_FILE + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > MAX_FILE {
        return Err(TokensError::TooLarge(path.to_owned()));
    }
    Ok((text, mode & 0o077 != 0))
}

/// The entries in the text of a file. `path` is for error texts.
///
/// # Errors
/// [`TokensError`], which names the line or the entry.
pub fn parse(text: &str, path: &Path) -> Result<Vec<Entry>, TokensError> {
    let path = || path.to_owned();
    let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
        let before = error.span().and_then(|span| text.get(..span.start));
        TokensError::Syntax {
            path: path(),
            what: error.message().to_owned(),
            line: before.unwrap_or_default().matches('\n').count() + 1,
        }
    })?;
    let unknown = |key: &str| TokensError::UnknownKey {
        path: path(),
        key: key.to_owned(),
    };
    if let Some(key) = table.keys().find(|key| *key != "token") {
        return Err(unknown(key));
    }
    let written = match table.get("token") {
        None => &[][..],
        Some(toml::Value::Array(entries)) => entries.as_slice(),
        Some(_) => return Err(unknown("token")),
    };

    let mut entries: Vec<Entry> = Vec::with_capacity(written.len());
    let (mut names, mut digests) = (BTreeSet::new(), BTreeSet::new());
    for (at, value) in written.iter().enumerate() {
        let checked = entry(value).and_then(|entry| {
            if !names.insert(entry.name.clone()) {
                return Err(EntryError::DuplicateName);
            }
            if !digests.insert(entry.digest) {
                return Err(EntryError::DuplicateDigest);
            }
            Ok(entry)
        });
        entries.push(checked.map_err(|what| TokensError::Entry {
            path: path(),
            entry: shown(at, value),
            what,
        })?);
    }
    Ok(entries)
}

/// How an error text names an entry.
fn shown(at: usize, value: &toml::Value) -> String {
    let name = value.get("name").and_then(toml::Value::as_str);
    let mut text = format!("token {}", at + 1);
    if let Some(name) = name.and_then(|name| TokenName::new(name).ok()) {
        // Writing to a String never fails.
        let _ = write!(text, " ({name})");
    }
    text
}

fn entry(value: &toml::Value) -> Result<Entry, EntryError> {
    let written = Written::deserialize(value.clone())
        .map_err(|error: toml::de::Error| EntryError::Fields(error.message().to_owned()))?;
    let scopes = written.scopes.iter().map(|word| word.parse());
    let scopes: Vec<Scope> = scopes.collect::<Result<_, _>>()?;
    let types = written.types.map(worker_types).transpose()?;
    check_rights(&scopes, types.as_deref())?;
    Ok(Entry {
        name: TokenName::new(&written.name)?,
        digest: Digest::parse(&written.sha256).ok_or(EntryError::Digest)?,
        scopes: scopes.into_iter().collect(),
        types,
        expires: written.expires.as_ref().map(moment).transpose()?,
    })
}

/// Whether these scopes and worker types make sense together.
///
/// # Errors
/// [`EntryError::NoScopes`], [`EntryError::NoTypes`], [`EntryError::Narrowed`].
pub fn check_rights(scopes: &[Scope], types: Option<&[WorkerType]>) -> Result<(), EntryError> {
    if scopes.is_empty() {
        return Err(EntryError::NoScopes);
    }
    let Some(types) = types else {
        return Ok(());
    };
    if types.is_empty() {
        return Err(EntryError::NoTypes);
    }
    let of_all_types = |scope: &&Scope| matches!(scope, Scope::Metrics | Scope::Admin);
    match scopes.iter().find(of_all_types) {
        Some(scope) => Err(EntryError::Narrowed(*scope)),
        None => Ok(()),
    }
}

fn worker_types(names: Vec<String>) -> Result<Vec<WorkerType>, EntryError> {
    let types = names.into_iter().map(WorkerType::new);
    types.collect::<Result<_, _>>().map_err(EntryError::from)
}

/// A date and time of TOML, or a string that holds one.
fn moment(value: &toml::Value) -> Result<Timestamp, EntryError> {
    let text = match value {
        toml::Value::Datetime(moment) => moment.to_string(),
        toml::Value::String(text) => text.clone(),
        _ => return Err(EntryError::Expires),
    };
    parse_moment(&text)
}

/// Reads a moment as in RFC 3339, for example `2027-01-01T00:00:00Z`.
///
/// # Errors
/// [`EntryError::Expires`].
pub fn parse_moment(text: &str) -> Result<Timestamp, EntryError> {
    // TOML allows a space between date and time.
    let text = text.trim().replacen(' ', "T", 1);
    let text: serde::de::value::StrDeserializer<'_, ValueError> = text.as_str().into_deserializer();
    Timestamp::deserialize(text).map_err(|_| EntryError::Expires)
}

/// The entries by their digests.
pub(super) fn by_digest(entries: Vec<Entry>) -> HashMap<Digest, Entry> {
    entries
        .into_iter()
        .map(|entry| (entry.digest, entry))
        .collect()
}

/// The text of a new entry, to be appended to a file.
pub fn written(
    name: &TokenName,
    digest: Digest,
    scopes: &[Scope],
    types: Option<&[WorkerType]>,
    expires: Option<Timestamp>,
) -> String {
    let list = |words: &[&str]| {
        let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        quoted.join(", ")
    };
    let scopes: Vec<&str> = scopes.iter().map(|scope| scope.as_str()).collect();
    // A name holds printable ASCII only, so Rust and TOML quote it the same way.
    let mut text = format!(
        "[[token]]\nname = {name:?}\nsha256 = \"{digest}\"\nscopes = [{}]\n",
        list(&scopes)
    );

    if let Some(types) = types {
        let types: Vec<&str> = types.iter().map(WorkerType::as_str).collect();
        text += &format!("types = [{}]\n", list(&types));
    }
    if let Some(expires) = expires {
        text += &format!("expires = {expires}\n");
    }
    text
}

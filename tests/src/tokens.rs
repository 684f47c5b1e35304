//! A file of tokens that a test changes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::scratch::Scratch;

/// A file of tokens. It begins with the token `test`, which allows everything.
#[derive(Debug)]
pub struct TokensFile {
    path: PathBuf,
    /// What follows name and digest, by the name of the token.
    entries: Mutex<BTreeMap<String, String>>,
    _scratch: Scratch,
}

impl TokensFile {
    /// A new file.
    #[expect(clippy::new_without_default, reason = "it writes a file")]
    pub fn new() -> Self {
        let scratch = Scratch::new("tokens");
        let this = Self {
            path: scratch.join("tokens.toml"),
            entries: Mutex::default(),
            _scratch: scratch,
        };
        this.set("test", "scopes = [\"admin\"]");
        this
    }

    /// A file with so many further tokens, which may read.
    pub fn with_many(count: usize) -> Self {
        let this = Self::new();
        let more = (0..count).map(|n| (format!("token-{n}"), "scopes = [\"read\"]".to_owned()));
        this.entries.lock().extend(more);
        this.write();
        this
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The token with this name, as it is sent.
    pub fn token(&self, name: &str) -> String {
        format!("secret-of-{name}")
    }

    /// Adds or changes a token. `rest` are the lines that follow its name and digest, for example
    /// `scopes = ["read"]`. Returns the token.
    pub fn set(&self, name: &str, rest: &str) -> String {
        self.entries.lock().insert(name.to_owned(), rest.to_owned());
        self.write();
        self.token(name)
    }

    /// Removes a token.
    pub fn remove(&self, name: &str) {
        self.entries.lock().remove(name);
        self.write();
    }

    /// Replaces the text of the file by anything; the next change writes the entries again.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn replace(&self, text: &str) {
        // As editors do: the file is never half written.
        let new = self.path.with_extension("new");
        std::fs::write(&new, text).expect("a file of tokens");
        std::fs::rename(&new, &self.path).expect("a file of tokens");
    }

    fn write(&self) {
        let entries = self.entries.lock();
        let entry = |(name, rest): (&String, &String)| {
            let digest = Sha256::digest(self.token(name));
            format!("[[token]]\nname = {name:?}\nsha256 = \"{digest:x}\"\n{rest}\n")
        };
        let text: String = entries.iter().map(entry).collect();
        self.replace(&text);
    }
}

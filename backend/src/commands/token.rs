//! `ktrdr-backend token new`: makes a token and adds its entry to the file of tokens.

use std::fs::{File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use ktrdr_http::tokens::file::{self, Digest, EntryError};
use ktrdr_http::tokens::{Scope, TokensError};
use ktrdr_protocol::id::WorkerType;
use ktrdr_protocol::time::Timestamp;
use ktrdr_protocol::token_name::TokenName;
use tempfile::NamedTempFile;

/// The beginning of every token, by which people and scanners of leaked secrets recognise one.
const PREFIX: &str = "ktrdr_";

/// Random bytes of a token.
const RANDOM: usize = 32;

/// Only the owner may read a new file.
const MODE: u32 = 0o600;

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token, add its entry to the file of tokens, and print the token. It is shown only
    /// this once: the file holds its SHA-256. Running backends and workers read the file again.
    New(NewToken),
}

/// A token to be made.
#[derive(Debug, Args)]
pub struct NewToken {
    /// Who will use the token. Logs, and the operations that it starts, show this name.
    name: TokenName,
    /// What the token allows, separated by commas: read, start (also retry and resume), cancel,
    /// metrics, admin (everything).
    #[arg(long, value_delimiter = ',', required = true)]
    scopes: Vec<Scope>,
    /// The only worker types that the token sees, separated by commas. Default: all.
    #[arg(long, value_delimiter = ',')]
    types: Vec<WorkerType>,
    /// From when on the token is refused, for example `2027-01-01T00:00:00Z`. Default: never.
    #[arg(long, value_parser = file::parse_moment)]
    expires: Option<Timestamp>,
    /// The file of tokens. It is made when it does not exist.
    #[arg(long, env = "KTRDR_TOKENS_FILE")]
    file: PathBuf,
}

/// Why a token was not made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The rights do not make sense together.
    #[error(transparent)]
    Rights(#[from] EntryError),
    /// The token would be refused from the beginning.
    #[error("--expires {0} has passed already")]
    Expired(Timestamp),
    /// The file as it would be then cannot be used; nothing was changed.
    #[error(transparent)]
    File(#[from] TokensError),
    /// The system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(getrandom::Error),
    /// The file cannot be written; nothing was changed.
    #[error("cannot write {}: {cause}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Nobody has seen the token.
    #[error(
        "the token of {name:?} could not be printed, so remove its entry from {}: {cause}",
        path.display()
    )]
    Print {
        /// The name of the token.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

impl TokenCommand {
    /// Runs it.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn run(self) -> Result<(), TokenError> {
        match self {
            Self::New(new) => new.run(),
        }
    }
}

impl NewToken {
    fn run(self) -> Result<(), TokenError> {
        let types = (!self.types.is_empty()).then_some(self.types.as_slice());
        file::check_rights(&self.scopes, types)?;
        if let Some(expires) = self.expires
            && expires <= Timestamp::now()
        {
            return Err(TokenError::Expired(expires));
        }

        let token = random_token().map_err(TokenError::Random)?;
        let digest = Digest::of(token.as_bytes());
        let entry = file::written(&self.name, digest, &self.scopes, types, self.expires);
        append(&self.file, &entry)?;

        // Whoever does not read this has the value all the same.
        let _ = writeln!(
            io::stderr(),
            "Added token {:?} to {}. Its value follows on standard output, only this once.",
            self.name,
            self.file.display()
        );
        writeln!(io::stdout(), "{token}").map_err(|cause| TokenError::Print {
            name: self.name.to_string(),
            path: self.file,
            cause,
        })
    }
}

fn random_token() -> Result<String, getrandom::Error> {
    let mut random = [0; RANDOM];
    getrandom::fill(&mut random)?;
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random)))
}

/// Adds an entry to the file. A reader sees the file as it was before or as it is afterwards, and
/// what else is in it stays.
fn append(path: &Path, entry: &str) -> Result<(), TokenError> {
    let failed = |cause| TokenError::Write {
        path: path.to_owned(),
        cause,
    };
    // A link stays a link: the file it leads to is replaced.
    let target = match path.canonicalize() {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        Err(error) => return Err(failed(error)),
    };
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Held until the end: another `token new` waits for this one.
    let lock = File::open(folder).map_err(failed)?;
    lock.lock().map_err(failed)?;

    let mut text = match file::read(&target) {
        Ok((text, _)) => text,
        Err(TokensError::Read { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
            String::new()
        }
        Err(error) => return Err(error.into()),
    };
    if !text.is_empty() {
        text += if text.ends_with('\n') { "\n" } else { "\n\n" };
    }
    text += entry;
    file::parse(&text, path)?;

    replace(&target, folder, &text).map_err(failed)?;
    lock.sync_all().map_err(failed)
}

/// Writes a file beside the target and gives it the target's name, owner and mode.
fn replace(target: &Path, folder: &Path, text: &str) -> io::Result<()> {
    let mut new = NamedTempFile::new_in(folder)?;
    match std::fs::metadata(target) {
        Ok(old) => {
            let own = new.as_file().metadata()?;
            if (old.uid(), old.gid()) != (own.uid(), own.gid()) {
                fchown(new.as_file(), Some(old.uid()), Some(old.gid()))?;
            }
            let mode = old.mode() & 0o777;
            new.as_file()
                .set_permissions(Permissions::from_mode(mode))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            new.as_file()
                .set_permissions(Permissions::from_mode(MODE))?;
        }
        Err(error) => return Err(error),
    }
    new.write_all(text.as_bytes())?;
    new.as_file().sync_all()?;
    new.persist(target)?;
    Ok(())
}

//! Settings of the connection that cannot work.

use std::path::PathBuf;

use crate::secret_file::SecretFileError;

/// Why no connection can be tried. The texts say what to change.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Two settings exclude each other.
    #[error("{0} and {1} are both set; unset one of them")]
    Both(&'static str, &'static str),
    /// One setting needs another.
    #[error("{0} is set without {1}; set both or none")]
    Missing(&'static str, &'static str),
    /// The servers in `NATS_URL` have different credentials.
    #[error("the addresses in NATS_URL have different users or tokens; use the same for all")]
    DifferentInAddresses,
    /// An address in `NATS_URL` is not one. The text is without passwords.
    #[error(
        "NATS_URL has the address {0}, which is not one; write nats://host:4222 or tls://host:4222"
    )]
    Address(String),
    /// A file cannot be read.
    #[error(transparent)]
    File(#[from] SecretFileError),
    /// A file does not hold what it should.
    #[error("{} holds no {what}", path.display())]
    NothingIn {
        /// Path of the file.
        path: PathBuf,
        /// What it should hold.
        what: &'static str,
    },
    /// A key cannot sign.
    #[error("the key in {} cannot sign: {why}", path.display())]
    CannotSign {
        /// Path of the file.
        path: PathBuf,
        /// What the key library says.
        why: String,
    },
}

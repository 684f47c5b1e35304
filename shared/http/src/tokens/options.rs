//! Settings, and which addresses may be listened on.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};

/// Who may use a REST interface.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Tokens")]
pub struct TokenOptions {
    /// File of tokens (TOML); `ktrdr-backend token new` adds one to it. With a file, every request
    /// must bring a token that allows it, except health probes and the pages for browsers. The file
    /// is read again when it changes. Without one, everybody may do everything.
    #[arg(long, env = "KTRDR_TOKENS_FILE", value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub tokens_file: Option<PathBuf>,
    /// Without a file of tokens, listen on addresses that other machines reach. Then everybody who
    /// reaches the address may start, read and cancel operations.
    #[arg(long, env = "KTRDR_INSECURE", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub insecure: bool,
}

/// Why an address may not be listened on.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "refusing to listen on {0}, which other machines may reach, without tokens: set KTRDR_TOKENS_FILE (`ktrdr-backend token new` makes the file), or listen on 127.0.0.1, or set KTRDR_INSECURE=true if everybody who reaches the address may do everything"
)]
pub struct ListenError(pub SocketAddr);

impl TokenOptions {
    /// The file of tokens. An empty setting is none.
    pub fn file(&self) -> Option<&Path> {
        self.tokens_file
            .as_deref()
            .filter(|path| !path.as_os_str().is_empty())
    }

    /// Whether a REST interface may listen on `address`. Logs a warning when it may, but should
    /// not. `is_encrypted` says whether it speaks TLS.
    ///
    /// # Errors
    /// [`ListenError`] when the address is not only this machine's, and everybody who reaches it
    /// could do everything.
    pub fn check_address(
        &self,
        address: SocketAddr,
        is_encrypted: bool,
    ) -> Result<(), ListenError> {
        if address.ip().to_canonical().is_loopback() {
            return Ok(());
        }
        match (self.file(), self.insecure) {
            (None, false) => Err(ListenError(address)),
            (None, true) => {
                tracing::warn!(%address, "KTRDR_INSECURE is set: everybody who reaches this address may start, read and cancel operations");
                Ok(())
            }
            (Some(_), _) => {
                if !is_encrypted {
                    tracing::warn!(%address, "tokens travel unencrypted on this address: everybody on the way can read them. Set KTRDR_TLS_CERT and KTRDR_TLS_KEY, or use a proxy that speaks TLS");
                }
                Ok(())
            }
        }
    }
}

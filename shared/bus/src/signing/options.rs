//! Settings about signed starts.

use std::path::PathBuf;

use clap::Args;

/// What a backend signs and trusts.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Signed starts")]
pub struct SigningOptions {
    /// File with the seed that start requests are signed with; `ktrdr-backend signing-key new`
    /// writes one. Default: start requests are not signed.
    #[arg(long, env = "KTRDR_SIGNING_KEY")]
    pub signing_key: Option<PathBuf>,
    /// Keys of other backends.
    #[command(flatten)]
    pub verify: VerifyOptions,
}

/// Whose signatures a program trusts.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Signed starts")]
pub struct VerifyOptions {
    /// Public keys of backends, separated by commas, or a file with one key a line. A worker runs
    /// only queued operations that one of them signed, and reads a changed file again. A backend
    /// with a signing key retries and resumes only operations that it or one of them signed.
    #[arg(long, env = "KTRDR_VERIFY_KEYS")]
    pub verify_keys: Option<String>,
}

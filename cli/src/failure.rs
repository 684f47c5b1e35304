//! Why a command did not succeed, and the exit code for it.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use ktrdr_client::{Error, ErrorCode};

use crate::text::{complain, printable};

/// Why a command did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// An operation failed or was cancelled. Its error is printed already.
    #[error("not every operation completed")]
    NotCompleted,
    /// Whoever read the output has seen enough. That is no error.
    #[error("nobody reads the output")]
    NobodyReads,
    /// What was typed cannot be used.
    #[error("{0}")]
    Usage(String),
    /// Not all was done, and a repetition may do the rest.
    #[error("{0}")]
    Unfinished(String),
    /// A file that was named cannot be used.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The backend was not reached, or did not do what was asked.
    #[error(transparent)]
    Client(#[from] Error),
    /// A program of `ktrdr dev` cannot be found or does not run.
    #[error("{0}")]
    Dev(String),
    /// This machine does not do what every machine should.
    #[error("{0}")]
    System(#[from] io::Error),
}

impl Failure {
    /// 0: there is nothing to complain about. 1: an operation failed or was cancelled. 2: the request was wrong.
    /// 3: nobody answered, or a repetition may do the rest.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::NobodyReads => 0,
            Self::NotCompleted | Self::Client(Error::Failed { .. } | Error::Cancelled(_)) => 1,
            Self::Usage(_) | Self::File { .. } => 2,
            Self::Client(Error::Refused(refusal)) if !is_away(refusal.status) => 2,
            Self::Client(
                Error::InvalidAddress(_)
                | Error::InvalidAuthority(_)
                | Error::InvalidToken
                | Error::InvalidParameters(_)
                | Error::InvalidLabel(..)
                | Error::InvalidStarts(_),
            ) => 2,
            Self::Unfinished(_) | Self::Client(_) | Self::Dev(_) | Self::System(_) => 3,
        })
    }

    /// Says on standard error what happened and what to do.
    pub fn print(&self) {
        if let Self::NotCompleted | Self::NobodyReads = self {
            return;
        }

        complain(&format!("error: {}", printable(&self.to_string())));
        if let Self::Client(error) = self {
            print_causes(error);
        }
    }
}

/// Whether a status says that the backend, or something before it, cannot answer now.
pub fn is_away(status: u16) -> bool {
    status >= 500
}

fn print_causes(error: &Error) {
    match error {
        Error::Refused(refusal) => {
            for violation in &refusal.violations {
                let (path, message) = (&violation.path, &violation.message);
                // The error itself says the first ones.
                if refusal.message.contains(message.as_str()) {
                    continue;
                }
                let place = if path.is_empty() { "/" } else { path };
                complain(&format!("  {}: {}", printable(place), printable(message)));
            }
            match refusal.code {
                Some(ErrorCode::Unauthorized) => {
                    complain("  give a token with --token or KTRDR_TOKEN");
                }
                Some(ErrorCode::UnknownDomain) => complain("  `ktrdr types` lists the domains"),
                _ => {}
            }
        }
        Error::Unreachable(source) => {
            let mut causes = Vec::new();
            let mut cause: Option<&dyn std::error::Error> = Some(source);
            while let Some(error) = cause {
                causes.push(error.to_string());
                cause = error.source();
            }
            for cause in &causes {
                complain(&format!("  {}", printable(cause)));
            }
            if causes.iter().any(|cause| cause.contains("certificate")) {
                complain("  --ca or KTRDR_CA names the certificate of its authority");
                return;
            }
            complain("  --url or KTRDR_URL says where it is; `ktrdr dev` starts one here");
        }
        _ => {}
    }
}

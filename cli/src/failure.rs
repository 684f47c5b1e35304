//! Why a command did not succeed, and the exit code for it.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use ktrdr_client::{Error, ErrorCode};
use serde_json::{Value, json};

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
    /// 3: nobody answered, or a repetition may do the rest. 4: this machine did not do its part.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::NobodyReads => 0,
            Self::NotCompleted | Self::Client(Error::Failed { .. } | Error::Cancelled(_)) => 1,
            Self::Usage(_) | Self::File { .. } => 2,
            Self::Client(Error::Refused(refusal)) if !is_away(refusal.status) => 2,
            Self::Client(error) if is_wrong(error) => 2,
            Self::Unfinished(_) | Self::Client(_) => 3,
            Self::Dev(_) | Self::System(_) => 4,
        })
    }

    /// Says on standard error what happened and what to do: for people, or as a document like those of the
    /// REST interface.
    pub fn print(&self, json: bool) {
        if let Self::NotCompleted | Self::NobodyReads = self {
            return;
        }
        if json {
            complain(&self.document().to_string());
            return;
        }

        let text = match self {
            Self::Client(Error::Refused(refusal)) => match refusal.code {
                Some(code) => format!("{} ({code})", refusal.message),
                None => self.to_string(),
            },
            _ => self.to_string(),
        };
        complain(&format!("error: {}", printable(&text)));
        if let Self::Client(error) = self {
            print_causes(error);
        }
    }

    /// What the backend answered, or what it would look like.
    fn document(&self) -> Value {
        let (code, mut text) = (self.code(), self.to_string());
        match self {
            Self::Client(Error::Refused(refusal)) if !refusal.document.is_empty() => {
                return Value::Object(refusal.document.clone());
            }
            Self::Client(Error::Refused(refusal)) => {
                return json!({"success": false, "error": text, "code": code, "status_code": refusal.status});
            }
            Self::Client(error) => {
                for cause in causes(error).skip(1) {
                    text = format!("{text}: {cause}");
                }
            }
            _ => {}
        }
        json!({"success": false, "error": text, "code": code})
    }

    /// The code of [`Self::document`] that no backend has given.
    fn code(&self) -> &'static str {
        match self {
            Self::NotCompleted => "not_completed",
            Self::NobodyReads => "unread",
            Self::Usage(_) => "usage",
            Self::Unfinished(_) => "unfinished",
            Self::File { .. } => "file",
            Self::Client(Error::Unreachable(_)) => "unreachable",
            Self::Client(Error::Refused(_)) => "refused",
            Self::Client(Error::Failed { .. } | Error::Cancelled(_)) => "not_completed",
            Self::Client(error) if is_wrong(error) => "usage",
            Self::Client(_) => "unexpected_answer",
            Self::Dev(_) => "program",
            Self::System(_) => "system",
        }
    }
}

/// Whether the words of the command line or its settings cannot be used.
fn is_wrong(error: &Error) -> bool {
    matches!(
        error,
        Error::InvalidAddress(_)
            | Error::InvalidAuthority(_)
            | Error::InvalidToken
            | Error::InvalidParameters(_)
            | Error::InvalidLabel(..)
            | Error::InvalidStarts(_)
    )
}

/// Whether a status says that the backend, or something before it, cannot answer now.
pub fn is_away(status: u16) -> bool {
    status >= 500
}

/// An error and what has led to it.
fn causes(error: &Error) -> impl Iterator<Item = String> {
    let first: &dyn std::error::Error = error;
    std::iter::successors(Some(first), |error| error.source()).map(ToString::to_string)
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
                Some(ErrorCode::WorkerTypeNotFound) => {
                    complain("  `ktrdr types` lists the worker types");
                }
                _ => {}
            }
        }
        Error::Unreachable(_) => {
            let causes: Vec<_> = causes(error).skip(1).collect();
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

//! `ktrdr-backend signing-key new`: makes a key for signed starts.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ktrdr_bus::signing::{KeyError, write_new_seed};

/// What to do with signing keys.
#[derive(Debug, Subcommand)]
pub enum SigningKeyCommand {
    /// Make a key, write its seed into a new file, and print the public key. Backends need the file
    /// (`KTRDR_SIGNING_KEY`), workers the public key (`KTRDR_VERIFY_KEYS`).
    New(NewKey),
}

/// A key to be made.
#[derive(Debug, Args)]
pub struct NewKey {
    /// The new file. Only its owner can read it. A file that exists is not replaced.
    file: PathBuf,
}

/// Why a key was not made, or nobody has seen its public key.
#[derive(Debug, thiserror::Error)]
pub enum NewKeyError {
    /// The file cannot be written.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The public key could not be printed.
    #[error("the public key could not be printed, so remove {} and try again: {cause}", path.display())]
    Print {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

impl SigningKeyCommand {
    /// Runs it.
    ///
    /// # Errors
    /// [`NewKeyError`].
    pub fn run(self) -> Result<(), NewKeyError> {
        let Self::New(new) = self;
        new.make(
            write_new_seed,
            "give it to backends only. The public key, for workers, follows",
        )
    }
}

impl NewKey {
    /// Makes a key with `write`, and prints its public key. `then` says what is to be done with the
    /// seed.
    pub(super) fn make(
        self,
        write: impl FnOnce(&Path) -> Result<String, KeyError>,
        then: &str,
    ) -> Result<(), NewKeyError> {
        let public = write(&self.file)?;
        // Whoever does not read this has the value all the same.
        let _ = writeln!(
            io::stderr(),
            "Wrote the seed to {}: {then} on standard output.",
            self.file.display()
        );
        writeln!(io::stdout(), "{public}").map_err(|cause| NewKeyError::Print {
            path: self.file,
            cause,
        })
    }
}

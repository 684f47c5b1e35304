//! `ktrdr-backend nats-key new`: makes a key with which a program shows NATS who it is.

use clap::Subcommand;
use ktrdr_bus::signing::write_new_user_seed;

use super::signing_key::{NewKey, NewKeyError};

/// What to do with keys of NATS users.
#[derive(Debug, Subcommand)]
pub enum NatsKeyCommand {
    /// Make a key, write its seed into a new file, and print the public key. The program needs the
    /// file (`NATS_NKEY`), nats-server the public key (`nats-config --nkeys`).
    New(NewKey),
}

impl NatsKeyCommand {
    /// Runs it.
    ///
    /// # Errors
    /// [`NewKeyError`].
    pub fn run(self) -> Result<(), NewKeyError> {
        let Self::New(new) = self;
        new.make(
            write_new_user_seed,
            "give it to the programs of one user only. The public key, for nats-server, follows",
        )
    }
}

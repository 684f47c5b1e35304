//! Signing start requests, and checking their signatures. [`ktrdr_protocol::signed_start`] says what
//! is signed.
//!
//! Keys are Ed25519 in the form of nkeys, of the kind "service": the public key begins with `V`, the
//! seed with `SV`. Keys of NATS users, accounts and operators are refused: they sign what a NATS
//! server asks them to.

#[cfg(test)]
mod fuzz;
mod keys;
mod options;
mod signer;
mod trusted;

pub use keys::{KeyError, write_new_seed, write_new_user_seed};
pub use options::{SigningOptions, VerifyOptions};
pub use signer::StartSigner;
pub use trusted::{Received, Refusal, TrustedKeys};
